"""Clients that ask for much and take nothing of it: after a while they count as gone.

A stream waits for its client, and its provider for the stream, with a connection, a place at the target and held money that
others may need. A server says nothing of a client that is there and does not read, so it is looked for here, now and then:
a call pays no more for it than a flag at each piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

#: A client that has not taken a piece for so long (seconds) is gone; how often it is looked for.
STALLED_S, EVERY_S = 60.0, 5.0


class Interruptible(Protocol):
    """``watch.Watch``."""

    @property
    def task(self) -> asyncio.Task[Any] | None: ...

    def fire(self, reason: str) -> None: ...


class Stallable(Protocol):
    """``call.Call``: ``blocked`` is 0, or how much had gone out with the piece that is not taken yet."""

    id: str
    blocked: int

    @property
    def watch(self) -> Interruptible: ...


class Stalls:
    def __init__(self) -> None:
        self._due = 0.0
        #: call -> the piece that was seen not to be taken, and when it was seen first
        self._seen: dict[str, tuple[int, float]] = {}

    def tick(self, calls: Iterable[Stallable], now: float) -> None:
        """``now`` monotonic."""
        if now < self._due:
            return
        self._due = now + EVERY_S
        seen: dict[str, tuple[int, float]] = {}
        for call in calls:
            if not call.blocked:
                continue
            piece, since = self._seen.get(call.id, (0, now))
            if piece != call.blocked:
                since = now
            if now - since >= STALLED_S:
                call.watch.fire("client")
            else:
                seen[call.id] = (call.blocked, since)
        self._seen = seen
