"""The requests with an ``Idempotency-Key`` that this process answers at the moment, and what is still to be told the ledger."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from llmops.gateway.idempotency.ledger import Entry, Ledger, LedgerAway, Name

log = logging.getLogger(__name__)

#: A third of the time after which an owner that says nothing counts as dead.
RENEW_S = 20.0
CLOSE_S = 2.0


class Flights:
    """Belongs to one event loop."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._under_way: dict[Name, tuple[str, asyncio.Event]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._renewed = time.monotonic()

    def __len__(self) -> int:
        return len(self._under_way)

    def over(self, name: Name) -> asyncio.Event | None:
        """Set when the request under way here is answered; None when none is."""
        found = self._under_way.get(name)
        return found[1] if found is not None else None

    async def claim(self, name: Name, owner: str, request: bytes) -> Entry | None:
        """As ``Ledger.claim``; an entry that is ours by the time nobody wants it any more is given back."""
        claiming = asyncio.ensure_future(self.ledger.claim(name, owner, request))
        try:
            entry = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claiming.add_done_callback(partial(self._unwanted, name, owner))
            raise
        except LedgerAway:
            # It may have come that far all the same: whoever asks again must not find what nobody answers.
            self.later(self._give_back(name, owner))
            raise
        if entry is None:
            self._under_way[name] = owner, asyncio.Event()
        return entry

    def _unwanted(self, name: Name, owner: str, claimed: asyncio.Future[Entry | None]) -> None:
        if not claimed.cancelled() and claimed.exception() is None and claimed.result() is None:
            self.later(self.release(name, owner))

    async def _give_back(self, name: Name, owner: str) -> None:
        """Of an entry that is not known to be here: another request of this name may be under way in this process."""
        with suppress(LedgerAway):
            await self.ledger.release(name, owner)

    async def conclude(self, name: Name, owner: str, answer: bytes) -> None:
        """Never raises: what cannot be told stays under way until it counts as lost, and is not answered anew. It is told to its end
        though whoever waits for that is cancelled: nobody else would tell it."""
        await asyncio.shield(self.later(self._conclude(name, owner, answer)))

    async def _conclude(self, name: Name, owner: str, answer: bytes) -> None:
        try:
            await self.ledger.conclude(name, owner, answer)
        except LedgerAway:
            log.warning("an answer under an idempotency key cannot be kept; call %s", owner)
        finally:
            self._landed(name)

    async def release(self, name: Name, owner: str) -> None:
        """Never raises, as ``conclude``, and is done to its end as well."""
        await asyncio.shield(self.later(self._release(name, owner)))

    async def _release(self, name: Name, owner: str) -> None:
        try:
            await self.ledger.release(name, owner)
        except LedgerAway:
            log.warning("an idempotency key cannot be freed; call %s", owner)
        finally:
            self._landed(name)

    def _landed(self, name: Name) -> None:
        found = self._under_way.pop(name, None)
        if found is not None:
            found[1].set()

    def later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do it without anybody having to wait."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def tick(self) -> None:
        """Show that the owners of what is under way live."""
        if not self._under_way or time.monotonic() - self._renewed < RENEW_S:
            return
        self._renewed = time.monotonic()
        try:
            await self.ledger.renew([(name, owner) for name, (owner, _) in self._under_way.items()])
        except LedgerAway:
            log.warning("idempotency keys under way cannot be held on")

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
        await self.ledger.close()
