"""What a page is told of runs, as server-sent events: from where it left off, by whichever process it reaches.

All runs of a page come in one stream, since browsers open few connections to a host. The id of an event is how far each run was
told (``<number>.<number>...``, in the order in which the page named them), so that ``Last-Event-ID`` says where to go on.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import sync_to_async
from django.db import close_old_connections
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from llmops.core.errors import InvalidRequest
from llmops.playground import words
from llmops.playground.figures import figures_of
from llmops.playground.hearing import Event
from llmops.playground.models import Piece, Run
from llmops.playground.sealed import opened, piece_identity
from llmops.playground.services import SILENT_FOR, give_up_lost, watched

MOST_RUNS = 16
#: At once, of one person in one process: each looks into the database some times a second.
MOST_STREAMS = 8
#: A stream ends by itself after so long, and the page comes back for the rest: none holds up a server that wants to stop.
MOST_SECONDS = 25.0
LOOK_EVERY_S, SLOWER_S, WATCH_EVERY_S = 0.1, 0.25, 5.0
#: After a run is over, its call is waited for in the ledger for so long.
LEDGER_SECONDS = 20.0
_PIECES_AT_ONCE = 200
_streams: Counter[int] = Counter()


def streams_of(user_id: int) -> int:
    """How many streams this process tells one person at the moment."""
    return _streams[user_id]


class Follower:
    """What one page still has to be told of its runs. Those that are not there (any more) are told as gone."""

    def __init__(
        self, request: HttpRequest, runs: list[Run | None], told: list[int], names: list[str]
    ) -> None:
        self.request = request
        self.runs = runs
        self.told = told
        #: how the page calls them
        self.names = names
        self.done = [False] * len(runs)
        self.over_since: list[float | None] = [None] * len(runs)
        self.watched_at = 0.0

    def look(self) -> list[bytes]:
        """What is new, as events ready to be sent."""
        close_old_connections()
        try:
            return self._look()
        finally:
            close_old_connections()

    def _look(self) -> list[bytes]:
        now = time.monotonic()
        left = [run for run, done in zip(self.runs, self.done, strict=True) if run is not None and not done]
        open_ids = [run.pk for run in left]
        if now - self.watched_at >= WATCH_EVERY_S:
            self.watched_at = now
            watched(open_ids)
        # Before the pieces: what is heard last is there once a run is over.
        fresh = Run.objects.in_bulk(open_ids)
        found: list[bytes] = []
        for index, run in enumerate(self.runs):
            if self.done[index]:
                continue
            current = fresh.get(run.pk) if run is not None else None
            if current is None:
                self.done[index] = True
                found.append(self._event({"run": self.names[index], "events": [{"t": "gone"}], "end": True}))
                continue
            found += self._pieces(index, current)
            if current.state in Run.OPEN:
                # Asked first: also an UPDATE that finds nothing waits for whoever writes.
                if current.beat_at < timezone.now() - SILENT_FOR:
                    give_up_lost(current.pk)
                continue
            found += self._end(index, current, now)
        return found

    def _pieces(self, index: int, run: Run) -> list[bytes]:
        found = []
        rows = Piece.objects.filter(run=run, n__gt=self.told[index]).order_by("n")[:_PIECES_AT_ONCE]
        for piece in rows:
            self.told[index] = piece.n
            events = [explained(event) for event in opened(piece.sealed, identity=piece_identity(piece.pk))]
            found.append(self._event({"run": str(run.pk), "events": events}))
        return found

    def _end(self, index: int, run: Run, now: float) -> list[bytes]:
        since = self.over_since[index]
        found = []
        if since is None:
            since = self.over_since[index] = now
            # Also what came between the look at the run and that at its pieces.
            found += self._pieces(index, run)
            events: list[Event] = [{"t": "state", "state": run.state}]
            if run.state == Run.LOST:
                events.insert(0, {"t": "lost", "message": words.LOST})
            found.append(self._event({"run": str(run.pk), "events": events}))
        figures = figures_of(self.request, run)
        if figures is not None or run.call_id is None or now - since > LEDGER_SECONDS:
            self.done[index] = True
            found.append(self._event({"run": str(run.pk), "figures": figures, "end": True}))
        return found

    def _event(self, data: dict[str, Any]) -> bytes:
        mark = ".".join(map(str, self.told))
        return f"id: {mark}\ndata: {json.dumps(data)}\n\n".encode()


def explained(event: Event) -> Event:
    """An event with what to do next, where something went wrong."""
    if event["t"] == "cancelled":
        return {**event, "message": words.CANCELLED.get(event.get("why", ""), words.CANCELLED["person"])}
    if event["t"] == "end":
        return {**event, "said": words.FINISHED.get(event.get("finish", ""), event.get("finish", ""))}
    if event["t"] != "error":
        return event
    step, address, label = words.next_step(event.get("code", ""))
    return {**event, "next": step, "link": reverse(address) if address else "", "label": label}


def told_so_far(mark: str, runs: int) -> list[int]:
    """Raises ``InvalidRequest`` for what is no id of an event about so many runs."""
    if not mark:
        return [0] * runs
    parts = mark.split(".")
    if len(parts) != runs or not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise InvalidRequest(
            "Last-Event-ID: this is no id of an event about these runs.", param="Last-Event-ID"
        )
    return [int(part) for part in parts]


async def events(follower: Follower) -> AsyncIterator[bytes]:
    person = int(follower.request.user.pk or 0)
    _streams[person] += 1
    try:
        async for one in _told(follower):
            yield one
    finally:
        _streams[person] -= 1
        if not _streams[person]:
            del _streams[person]


async def _told(follower: Follower) -> AsyncIterator[bytes]:
    look = sync_to_async(follower.look)
    until = time.monotonic() + MOST_SECONDS
    quiet_since = time.monotonic()
    yield b": here\n\n"
    while time.monotonic() < until:
        found = await look()
        for one in found:
            yield one
        if all(follower.done):
            yield b"event: over\ndata: {}\n\n"
            return
        now = time.monotonic()
        if found:
            quiet_since = now
        await asyncio.sleep(LOOK_EVERY_S if now - quiet_since < SLOWER_S * 8 else SLOWER_S)
