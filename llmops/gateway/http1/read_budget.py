"""So many reads in one turn of an event loop: the rest wait for its next turn.

libuv asks its sockets again without anything in between for as long as a full list of 1,024 is ready, up to 48 times (``uv__io_poll``).
With more streams than that, each a little behind, what their reads cost is all that the loop does for seconds: tasks that were
woken wait, calls that begin run into their time-outs, and clients that left are not noticed. Past the budget a connection only
keeps what came, which is quick enough for the list to run short; in the next turns what was kept is read in one piece each.
"""

from __future__ import annotations

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary

#: Reads after which it is noted whether the loop turns, and which it may make beyond them until it has.
NOTED = 256
BEYOND = 256


class Reader(Protocol):
    """``connection.Connection``."""

    def catch_up(self) -> None:
        """Read what was kept, within the budget of this turn."""

    def abandon(self) -> None:
        """Close at once."""


class ReadBudget:
    """Of one event loop. ``reads``: counted up by each read, and with the loop's turns now and then set back to 0."""

    __slots__ = ("__weakref__", "_behind", "_loop", "_noted", "reads")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.reads = 0
        self._noted = False
        self._behind: list[Reader] = []

    def spent(self) -> bool:
        """Asked at each read beyond ``NOTED``: whether it has to wait for the loop's next turn."""
        if not self._noted:
            self._noted = True
            self._loop.call_soon(self._turned)
        return self.reads > NOTED + BEYOND

    def keep(self, reader: Reader) -> None:
        """``reader`` has kept something that it had nothing of before."""
        self._behind.append(reader)

    def _turned(self) -> None:
        self._noted = False
        self.reads = 0
        behind, self._behind = self._behind, []
        for reader in behind:
            try:
                reader.catch_up()
            except Exception as error:
                # As the loop treats a read that fails: the others go on.
                self._loop.call_exception_handler(
                    {"message": "reading what was kept failed", "exception": error, "protocol": reader}
                )
                reader.abandon()


_budgets: WeakKeyDictionary[asyncio.AbstractEventLoop, ReadBudget] = WeakKeyDictionary()


def budget_of(loop: asyncio.AbstractEventLoop) -> ReadBudget:
    budget = _budgets.get(loop)
    if budget is None:
        budget = _budgets[loop] = ReadBudget(loop)
    return budget
