"""What is kept of a request under its ``Idempotency-Key``, wherever it is kept (``on_disk``, ``shared``).

An entry is claimed before anything of the request goes upstream, and stays for the time to live of its ledger: it runs while
whoever answers it says so now and then, it is done when its answer is known, and lost when nobody says anything of it any
more. A lost one is not given to anybody else: what became of it, and what it cost, nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

#: Answers that an entry keeps, in bytes as they went to the client; larger ones are known to have been given, and no more.
MAX_ANSWER_BYTES = 1024 * 1024
DEFAULT_BYTES = 256 * 1024 * 1024
DEFAULT_SECONDS = 86_400
#: Whoever answers says so at least this often, or counts as dead; in seconds.
ALIVE_S = 60
#: Entries that have outlived their time are removed so many at once, by whoever claims another.
TIDY_ENTRIES = 50

RUNNING, LOST, DONE = "running", "lost", "done"


class Name(NamedTuple):
    """Of an entry: whose it is, and the keyed digest of the key that was sent. ``owner`` is who claims it."""

    project: str
    id: bytes


@dataclass(slots=True, frozen=True)
class Entry:
    """``request`` and ``answer`` are sealed by the key that was sent. No answer of a ``DONE`` one: it was too large."""

    state: str
    request: bytes
    answer: bytes = b""


class LedgerAway(Exception):
    """The ledger cannot be asked at the moment."""


class Ledger(Protocol):
    """Belongs to one event loop. Every method raises ``LedgerAway``."""

    async def claim(self, name: Name, owner: str, request: bytes) -> Entry | None:
        """The entry of this name; None: there was none, and there is one of ``owner`` from now on, which runs."""
        ...

    async def conclude(self, name: Name, owner: str, answer: bytes) -> None:
        """The owner's entry is done. Afterwards those that were used longest ago make room, of whoever holds most."""
        ...

    async def release(self, name: Name, owner: str) -> None:
        """There is no entry of the owner any more: the request was not answered, and costs nothing."""
        ...

    async def renew(self, running: Sequence[tuple[Name, str]]) -> None:
        """The owners of these are alive."""
        ...

    async def close(self) -> None: ...
