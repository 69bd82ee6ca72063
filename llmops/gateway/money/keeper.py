"""The thread that fetches leases, gives them back and renews them: the bank of a ``Purse``.

One command at a time, in order. A command whose answer was lost may have taken effect: its lease is read again, and the
totals tell. A lease may be used until it could have been charged whole by somebody else, less a margin.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import DatabaseError, InterfaceError

from llmops.budgets.services import (
    LeaseState,
    give_back,
    lease,
    open_window,
    read_lease,
    renew_leases,
)
from llmops.core.errors import ConsoleError, NotFound
from llmops.gateway.database import drop_connection, use_own_connection
from llmops.gateway.money.bank import Command, GiveBack, More, Open, Pot
from llmops.gateway.money.purse import Purse
from llmops.usage.services import journal_closed

log = logging.getLogger(__name__)

#: Doubtful leases are read again this often while the database is away.
RETRY_S = 0.5
#: How often the database is asked whether the journal of this process still counts.
LOOK_S = 5.0


class Keeper(threading.Thread):
    """Works for ``purse`` on ``loop``. ``submit`` may be called from the loop; answers come back on it.

    ``on_closed`` is called on the loop, once, when somebody has closed the journal in the database although this process
    lives: what it writes from then on would never be booked.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        purse: Purse,
        *,
        journal_id: UUID,
        lease_seconds: float,
        on_closed: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(name="gateway-keeper", daemon=True)
        self._loop = loop
        self._purse = purse
        self._journal_id = journal_id
        self._lease_seconds = lease_seconds
        self._margin = max(lease_seconds / 10, min(5.0, lease_seconds / 3))
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        #: by window: the account, and what of it was set aside by give-backs that failed
        self._doubtful: dict[int, tuple[Pot, int]] = {}
        self._renewed = time.monotonic()
        self._leased = False
        self._away = False
        self._on_closed = on_closed
        self._looked = time.monotonic()

    def submit(self, command: Command) -> None:
        self._commands.put(command)

    def stop(self) -> None:
        """End after what was submitted before."""
        self._commands.put(None)

    def run(self) -> None:
        use_own_connection()
        try:
            while True:
                try:
                    command = self._commands.get(timeout=self._pause())
                except queue.Empty:
                    command = None
                else:
                    if command is None:
                        return
                self._round(command)
        finally:
            drop_connection()

    def _pause(self) -> float:
        return RETRY_S if self._doubtful or self._away else 1.0

    def _round(self, command: Command | None) -> None:
        try:
            if self._on_closed is not None and time.monotonic() - self._looked > LOOK_S:
                self._look()
            if self._doubtful:
                self._read_doubtful()
            if self._leased and time.monotonic() - self._renewed > self._lease_seconds / 4:
                self._renew()
            if command is not None:
                self._do(command)
        except (DatabaseError, InterfaceError) as error:
            if not self._away:
                log.warning("the database is away; spending what is leased: %s", error)
            self._away = True
            drop_connection()
            self._failed(command)
        except ConsoleError as refusal:
            log.error("%s could not be done: %s", type(command).__name__, refusal.message)
            self._failed(command)
        except Exception:
            log.exception("%s failed", type(command).__name__)
            self._failed(command)
        else:
            if self._away:
                log.warning("the database is back")
            self._away = False

    def _look(self) -> None:
        self._looked = time.monotonic()
        if self._on_closed is not None and journal_closed(self._journal_id):
            self._tell(self._on_closed)
            self._on_closed = None

    def _failed(self, command: Command | None) -> None:
        if command is None:
            return
        if isinstance(command, More | GiveBack):
            pot, gave = self._doubtful.get(command.pot.window, (command.pot, 0))
            if isinstance(command, GiveBack):
                gave += command.amount
            self._doubtful[pot.window] = (pot, gave)
        self._tell(self._purse.told_failed, command)

    def _do(self, command: Command) -> None:
        if isinstance(command, Open):
            self._open(command)
        elif isinstance(command, More):
            usable = self._usable_from_now()
            state = lease(
                window_id=command.pot.window,
                journal_id=self._journal_id,
                need=command.need,
                want=command.want,
                lease_seconds=self._lease_seconds,
            )
            self._leased = True
            self._tell(self._purse.told_lease, command, state, usable_until=usable)
        else:
            state = give_back(
                window_id=command.pot.window, journal_id=self._journal_id, amount=command.amount
            )
            self._tell(self._purse.told_returned, command, state)

    def _open(self, command: Open) -> None:
        usable = self._usable_from_now()
        window = open_window(budget_id=UUID(command.budget.id), at=datetime.fromtimestamp(command.at, tz=UTC))
        known = self._read(window.window_id)
        if known is not None:
            # This process has a lease here already, perhaps one that was charged whole while the database was away:
            # renewing puts it back as it was.
            known = self._renew().get(window.window_id, known)
            usable = self._usable_from_now()
        self._tell(
            self._purse.told_open,
            command,
            window,
            window.starts_at.timestamp(),
            window.ends_at.timestamp() if window.ends_at else None,
            known,
            usable_until=usable,
        )

    def _renew(self) -> dict[int, LeaseState]:
        now = time.monotonic()
        usable = self._usable_from_now()
        states = renew_leases(journal_id=self._journal_id, lease_seconds=self._lease_seconds)
        self._renewed = now
        self._tell(self._purse.told_renewed, usable)
        return states

    def _read_doubtful(self) -> None:
        for window, (pot, gave) in list(self._doubtful.items()):
            state = self._read(window)
            del self._doubtful[window]
            self._tell(self._purse.told_reread, pot, state, gave_back=gave)

    def _read(self, window_id: int) -> LeaseState | None:
        try:
            return read_lease(window_id=window_id, journal_id=self._journal_id)
        except NotFound:
            return None

    def _usable_from_now(self) -> float:
        return time.monotonic() + self._lease_seconds - self._margin

    def _tell(self, told: Callable[..., None], *arguments: Any, **named: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(lambda: told(*arguments, **named))
        except RuntimeError:
            # The loop is closed: nobody is left to be told.
            log.debug("told nobody: %s", told.__name__)
