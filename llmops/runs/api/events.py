"""The steps of a run as server-sent events, as they are written down; by whichever process is asked, from wherever one left off.

The id of an event is the number of the step, so ``Last-Event-ID`` says where to go on. A stream ends by itself with the run
(``event: end``), or after a while; then a client comes back for the rest.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import close_old_connections
from rest_framework.renderers import BaseRenderer

from llmops.core.errors import InvalidRequest, RateLimited
from llmops.runs.api.shapes import RunSerializer, told_step
from llmops.runs.models import Run, Step

#: At once in one process: each looks into the database some times a second.
MOST_STREAMS = 64
MOST_SECONDS, LOOK_EVERY_S, SLOWER_S, COMMENT_EVERY_S = 55.0, 0.1, 0.4, 10.0
_AT_ONCE = 100
_streams: Counter[str] = Counter()


class EventStream(BaseRenderer):
    """So that a client may ask for what it gets. Errors are JSON in any case."""

    media_type = "text/event-stream"
    format = "sse"

    def render(self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None) -> bytes:
        return json.dumps(data, default=str).encode()


def told_so_far(mark: str) -> int:
    """Raises ``InvalidRequest`` for what is no id of an event."""
    if not mark:
        return 0
    if not mark.isdecimal() or len(mark) > 9:
        raise InvalidRequest("Last-Event-ID: this is the number of a step.", param="Last-Event-ID")
    return int(mark)


def take_place() -> None:
    if _streams["all"] >= MOST_STREAMS:
        raise RateLimited("Too many follow runs here at the moment. Try again shortly.", retry_after=5)


def _look(run_id: UUID, after: int) -> tuple[list[bytes], int, bool]:
    """New events, the number of the last one, and whether there will be no more."""
    close_old_connections()
    try:
        # Before the steps: what is written last is there once a run is over.
        run = Run.objects.select_related("project").filter(pk=run_id).first()
        rows = list(Step.objects.filter(run_id=run_id, n__gt=after).order_by("n")[:_AT_ONCE])
        found = [_event(row.kind, told_step(row), row.n) for row in rows]
        last = rows[-1].n if rows else after
        over = run is None or (run.over and len(rows) < _AT_ONCE)
        if over:
            found.append(_event("end", dict(RunSerializer(run).data) if run is not None else {}, None))
        return found, last, over
    finally:
        close_old_connections()


def _event(kind: str, data: dict[str, Any], number: int | None) -> bytes:
    mark = f"id: {number}\n" if number is not None else ""
    return f"{mark}event: {kind}\ndata: {json.dumps(data, default=str)}\n\n".encode()


async def events(run_id: UUID, after: int, head: bytes = b"") -> AsyncIterator[bytes]:
    _streams["all"] += 1
    try:
        look = sync_to_async(_look)
        until = quiet = time.monotonic()
        until += MOST_SECONDS
        yield head or b": here\n\n"
        while time.monotonic() < until:
            found, after, over = await look(run_id, after)
            for one in found:
                yield one
            if over:
                return
            now = time.monotonic()
            if found:
                quiet = now
            elif now - quiet > COMMENT_EVERY_S:
                quiet = now
                yield b": still\n\n"
            await asyncio.sleep(LOOK_EVERY_S if now - quiet < 2.0 else SLOWER_S)
    finally:
        _streams["all"] -= 1
