"""Files that are sent as they are made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections, connection
from django.http import HttpRequest, StreamingHttpResponse


def streamed(
    request: HttpRequest, chunks: Iterator[bytes], filename: str, content_type: str
) -> StreamingHttpResponse:
    """Chunk by chunk, each in a worker's thread with a connection of its own for just so long.

    Django would collect a plain iterator whole before it sends the first byte of an asynchronous answer.
    """
    body: Any = _beside(chunks) if isinstance(request, ASGIRequest) else chunks
    response = StreamingHttpResponse(body, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response


async def _beside(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    def following() -> bytes | None:
        close_old_connections()
        try:
            return next(chunks, None)
        finally:
            connection.close()

    step = sync_to_async(following, thread_sensitive=False)
    while (chunk := await step()) is not None:
        yield chunk
