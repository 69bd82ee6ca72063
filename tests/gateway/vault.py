"""Money behind the keeper, for tests that decide when an answer comes, or that it is lost.

``Vault`` stands for the database: it keeps the windows' arithmetic and answers on the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from llmops.budgets.periods import bounds
from llmops.gateway.money.bank import Command, GiveBack, More, Open
from llmops.gateway.money.purse import Purse
from llmops.serving.snapshot import (
    BudgetEntry,
)


@dataclass
class VaultWindow:
    window_id: int
    limit_nano: int
    starts: float
    ends: float | None
    settled_nano: int = 0
    leased_nano: int = 0


@dataclass
class VaultLease:
    granted_nano: int = 0
    returned_nano: int = 0
    consumed_nano: int = 0
    state: str = "open"
    limit_nano: int = 0
    settled_nano: int = 0
    leased_nano: int = 0


@dataclass
class Vault:
    """Windows and leases of any number of purses. ``away``: nothing is answered; ``lose``: done, but the answer is lost."""

    windows: dict[tuple[str, float], VaultWindow] = field(default_factory=dict)
    leases: dict[tuple[int, int], VaultLease] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    away: bool = False
    lose: bool = False
    #: when set, commands wait for ``work``
    slow: bool = False
    _queue: list[tuple[Command, Purse]] = field(default_factory=list)

    def bank(self, purse_of: Callable[[], Purse]) -> Callable[[Command], None]:
        def submit(command: Command) -> None:
            self.commands.append(command)
            self._queue.append((command, purse_of()))
            if not self.slow:
                asyncio.get_running_loop().call_soon(self.work)

        return submit

    def work(self, commands: int = 1) -> None:
        """Do the oldest commands; each answer comes a turn of the loop later."""
        for _ in range(min(commands, len(self._queue))):
            command, purse = self._queue.pop(0)
            asyncio.get_running_loop().call_soon(self._do(command, purse))

    def window(self, budget: BudgetEntry, at: float) -> VaultWindow:
        starts, ends = bounds(budget.period, budget.timezone, datetime.fromtimestamp(at, tz=UTC))
        key = (budget.id, starts.timestamp())
        if key not in self.windows:
            self.windows[key] = VaultWindow(
                len(self.windows) + 1,
                budget.limit_nano,
                starts.timestamp(),
                ends.timestamp() if ends else None,
            )
        return self.windows[key]

    def _do(self, command: Command, purse: Purse) -> Callable[[], None]:
        if self.away:
            return lambda: purse.told_failed(command)
        if isinstance(command, Open):
            window = self.window(command.budget, command.at)
            held = self.leases.get((id(purse), window.window_id))
            seen = self._seen(held, window) if held else None
            told = VaultWindow(**vars(window))
            return lambda: purse.told_open(
                command, told, window.starts, window.ends, seen, usable_until=float("inf")
            )
        window = next(one for one in self.windows.values() if one.window_id == command.pot.window)
        held = self.leases.setdefault((id(purse), window.window_id), VaultLease())
        if isinstance(command, More):
            free = window.limit_nano - window.settled_nano - window.leased_nano
            grant = max(0, min(max(command.need, command.want), free))
            held.granted_nano += grant
            window.leased_nano += grant
        else:
            held.returned_nano += command.amount
            window.leased_nano -= command.amount
        self.check()
        seen = self._seen(held, window)
        if self.lose:
            gave = command.amount if isinstance(command, GiveBack) else 0

            def lost() -> None:
                purse.told_failed(command)
                asyncio.get_running_loop().call_soon(
                    lambda: purse.told_reread(command.pot, self._seen(held, window), gave_back=gave)
                )

            return lost
        if isinstance(command, More):
            return lambda: purse.told_lease(command, seen, usable_until=float("inf"))
        return lambda: purse.told_returned(command, seen)

    @staticmethod
    def _seen(held: VaultLease, window: VaultWindow) -> VaultLease:
        return VaultLease(
            held.granted_nano,
            held.returned_nano,
            held.consumed_nano,
            held.state,
            window.limit_nano,
            window.settled_nano,
            window.leased_nano,
        )

    def check(self) -> None:
        for window in self.windows.values():
            assert window.leased_nano >= 0
            assert window.settled_nano + window.leased_nano <= window.limit_nano
