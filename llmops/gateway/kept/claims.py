"""Rows of kept objects that somebody has to look after, and what the database does for whoever does: ``shelf.DatabaseShelf``."""

from __future__ import annotations

from typing import Protocol

import msgspec

from llmops.gateway.kept.owners import Owner


class Claim(msgspec.Struct, frozen=True):
    """A row that this process looks after: its number, whose it is, and how often it was looked at."""

    row: int
    token: str
    owner: Owner
    looks: int


class Desk(Protocol):
    """Who looks after which row. Both raise ``ShelfAway``."""

    async def claim(self, token: str, seconds: float) -> Claim | None:
        """One row that is due, from now on ours for so long."""
        ...

    async def put_back(self, claim: Claim, due_in: float | None) -> None:
        """The row is due again in so many seconds (None: never), and nobody's until then."""
        ...


class Bill(msgspec.Struct, frozen=True):
    """What a call is booked with. ``open``: that is its hold, because nobody knew, and nobody has corrected it."""

    cost: int
    open: bool


class Books(Protocol):
    """What is booked of calls. Both raise ``ShelfAway``."""

    async def bill(self, call: str, started: int) -> Bill | None:
        """What is booked of a call that started at ``started`` (Unix ns); None while nothing is."""
        ...

    async def correct(self, claim: Claim, call: str, bill: Bill, cost: int, reason: str) -> None:
        """The call cost so much, and its row is done. Does nothing when either is as it was not seen."""
        ...


class DeskAndBooks(Desk, Books, Protocol):
    """Both halves."""
