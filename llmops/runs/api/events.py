"""The steps of a run as server-sent events, as they are written down; by whichever process is asked, from wherever one left off.

The id of an event is the number of the step, so ``Last-Event-ID`` says where to go on. A stream ends by itself with the run
(``event: end``), or after a while; then a client comes back for the rest.

Beside them, for runs of the mode ``stream``: ``delta``, what the model says as it says it. These have no id and are not told again; who
comes back gets the text of the turn under way from its beginning (``at`` 0), and the step of the turn has it whole in any case.

Whoever may not see the run any more (a key that was revoked, a role that was taken) hears no more of it within a second.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import close_old_connections
from rest_framework.renderers import BaseRenderer

from llmops.access.selectors import powers_of_actor
from llmops.core.actors import Actor
from llmops.core.errors import InvalidRequest, RateLimited
from llmops.runs.api.shapes import RunSerializer, told_step
from llmops.runs.conversation import TURN
from llmops.runs.models import Run, Step
from llmops.runs.sealed import opened, saying_identity
from llmops.runs.services.saying import HERE

#: At once in one process, and of one key or person: each looks into the database some times a second.
MOST_STREAMS, MOST_OF_ONE = 64, 16
MOST_SECONDS, LOOK_EVERY_S, SLOWER_S, COMMENT_EVERY_S = 55.0, 0.1, 0.4, 10.0
#: Whether the reader still may is asked so often.
_MAY_EVERY_S = 0.8
#: What is said in this very process is looked at so often.
_LISTEN_EVERY_S = 0.04
_AT_ONCE = 100
_streams: Counter[str] = Counter()


@dataclass(frozen=True, slots=True)
class Reader:
    """Who follows a run of the project ``project``."""

    actor: Actor
    project: UUID

    @property
    def name(self) -> str:
        return f"{self.actor.kind} {self.actor.identifier}"

    def may(self) -> bool:
        return powers_of_actor(self.actor).allow("run.view", self.project)


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


def take_place(reader: Reader) -> None:
    """Raises ``RateLimited`` where there is none. One that follows a great many leaves room for others."""
    if _streams.total() >= MOST_STREAMS or _streams[reader.name] >= MOST_OF_ONE:
        raise RateLimited("Too many follow runs here at the moment. Try again shortly.", retry_after=5)


class Listened:
    """What of the text of the turn under way was told on this stream. ``turns`` are over: their steps have it."""

    def __init__(self) -> None:
        self.turns = 0
        self._turn, self._text = 0, ""

    def news(self, said: tuple[int, str] | None) -> list[bytes]:
        if said is None or said[0] <= self.turns:
            return []
        turn, text = said
        if turn == self._turn and self._text.startswith(text):
            # As it was, or what was written down some time ago, while the words themselves have gone on.
            return []
        goes_on = turn == self._turn and text.startswith(self._text)
        at = len(self._text) if goes_on else 0
        self._turn, self._text = turn, text
        return [_event("delta", {"turn": turn, "at": at, "text": text[at:]}, None)]


@dataclass(frozen=True, slots=True)
class Look:
    """New events, the number of the last one, whether there will be no more, turns that are over, and what is said by now."""

    found: list[bytes]
    last: int
    over: bool
    turns: int = 0
    said: tuple[int, str] | None = None


def look(run_id: UUID, after: int) -> Look:
    # Before the steps: what is written last is there once a run is over. Without its texts, which may be large.
    run = Run.objects.only("state", "turns", "sealed_saying").filter(pk=run_id).first()
    rows = list(Step.objects.filter(run_id=run_id, n__gt=after).order_by("n")[:_AT_ONCE])
    found = [_event(row.kind, told_step(row), row.n) for row in rows]
    last = rows[-1].n if rows else after
    if run is None or (run.over and len(rows) < _AT_ONCE):
        whole = Run.objects.select_related("project").filter(pk=run_id).first()
        found.append(_event("end", dict(RunSerializer(whole).data) if whole is not None else {}, None))
        return Look(found, last, True)
    # The run was looked at before its steps: its turn may have ended between the two.
    turns = max(run.turns, *(row.turn for row in rows if row.kind == TURN), 0)
    said = opened(run.sealed_saying, identity=saying_identity(run.pk)) if run.sealed_saying else None
    return Look(found, last, False, turns, (said["turn"], said["text"]) if said else None)


def _look(run_id: UUID, after: int, reader: Reader | None) -> Look | None:
    """None where ``reader`` may not see it any more."""
    close_old_connections()
    try:
        return look(run_id, after) if reader is None or reader.may() else None
    finally:
        close_old_connections()


def _event(kind: str, data: dict[str, Any], number: int | None) -> bytes:
    mark = f"id: {number}\n" if number is not None else ""
    return f"{mark}event: {kind}\ndata: {json.dumps(data, default=str)}\n\n".encode()


async def events(run_id: UUID, after: int, reader: Reader, head: bytes = b"") -> AsyncIterator[bytes]:
    _streams[reader.name] += 1
    try:
        look_in, listened = sync_to_async(_look), Listened()
        until = quiet = time.monotonic()
        asked = 0.0
        until += MOST_SECONDS
        yield head or b": here\n\n"
        while time.monotonic() < until:
            ask = time.monotonic() - asked >= _MAY_EVERY_S
            asked = time.monotonic() if ask else asked
            seen = await look_in(run_id, after, reader if ask else None)
            if seen is None:
                # Without ``end``: it is not over, and whoever comes back for the rest is told why not.
                return
            after, listened.turns = seen.last, seen.turns
            for one in (*seen.found, *listened.news(HERE.get(run_id) or seen.said)):
                yield one
            if seen.over:
                return
            now = time.monotonic()
            if seen.found:
                quiet = now
            elif now - quiet > COMMENT_EVERY_S:
                quiet = now
                yield b": still\n\n"
            again = now + (LOOK_EVERY_S if now - quiet < 2.0 else SLOWER_S)
            while (left := again - time.monotonic()) > 0:
                await asyncio.sleep(min(left, _LISTEN_EVERY_S))
                for one in listened.news(HERE.get(run_id)):
                    quiet = time.monotonic()
                    yield one
    finally:
        _streams[reader.name] -= 1
        if not _streams[reader.name]:
            del _streams[reader.name]
