"""Places of one process that all projects share: each may have as many as seven times what is free.

So one project alone may have seven eighths of them, two may have seven fifteenths each: nobody is held back while there is room,
and there is always room for whoever comes next (dynamic thresholds: Choudhury and Hahne 1998, "Dynamic Queue Length Thresholds
for Shared-Memory Packet Switches").
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

from llmops.core.waiting import Waiting

#: How many times the free places one project may have.
TIMES = 7
#: Seconds for which a count of a crowd is good: to count thousands takes a part of a millisecond.
COUNTED_S = 0.02


def many(places: int) -> int:
    """While fewer of them are taken than this, it does not matter by whom."""
    return places * TIMES // (TIMES + 1)


class Crowd:
    """Who has the places, counted when they are nearly all taken, and not before."""

    __slots__ = ("_at", "_had")

    def __init__(self) -> None:
        self._at = 0.0
        self._had: Counter[str] = Counter()

    def takes(self, project: str, places: int, taken: Callable[[], Iterable[str]], now: float) -> bool:
        """Whether ``project`` may take one of so many ``places``. ``taken``: of each that is taken, the project; ``now`` in seconds."""
        if now - self._at >= COUNTED_S:
            self._at, self._had = now, Counter(taken())
        had = self._had
        if had[project] >= TIMES * max(0, places - had.total()):
            return False
        had[project] += 1
        return True


class Turns:
    """A place for one at a time, which projects have in turn. Whoever ``take``s it must ``leave``. Belongs to one event loop."""

    __slots__ = ("_taken", "_waiting")

    def __init__(self) -> None:
        self._taken = False
        self._waiting = Waiting()

    async def take(self, project: str) -> None:
        if not self._taken:
            self._taken = True
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(project, place)
        try:
            await place
        except BaseException:
            if not self._waiting.forget(project, place) and not place.cancelled():
                # It came in the same moment in which whoever waited was ended.
                self.leave()
            raise

    def leave(self) -> None:
        while self._waiting:
            place = self._waiting.first(next(iter(self._waiting)))
            if not place.done():
                place.set_result(None)
                return
        self._taken = False
