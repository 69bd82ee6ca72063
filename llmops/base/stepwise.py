"""Answers that are sent as they are made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections, connection
from django.http import HttpRequest, StreamingHttpResponse


def stepwise(request: HttpRequest, chunks: Iterator[bytes], content_type: str) -> StreamingHttpResponse:
    """Chunk by chunk, each in a worker's thread with a connection of its own for just so long.

    Django would collect a plain iterator whole before it sends the first byte of an asynchronous answer. A generator is closed
    once nobody listens any more, in such a thread as well.
    """
    body: Any = _beside(chunks) if isinstance(request, ASGIRequest) else chunks
    return StreamingHttpResponse(body, content_type=content_type)


async def _beside(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    def following() -> bytes | None:
        close_old_connections()
        try:
            return next(chunks, None)
        finally:
            connection.close()

    def ended() -> None:
        if isinstance(chunks, Generator):
            close_old_connections()
            try:
                chunks.close()
            finally:
                connection.close()

    def started(work: Any) -> asyncio.Task[Any]:
        return asyncio.ensure_future(sync_to_async(work, thread_sensitive=False)())

    step = started(following)
    try:
        # Shielded: a thread cannot be called off, and what it works on may not be closed meanwhile.
        while (chunk := await asyncio.shield(step)) is not None:
            yield chunk
            step = started(following)
    finally:
        await asyncio.wait([step])
        await started(ended)
