"""Purses over one bank in memory, and the clocks that a test moves for them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

from llmops.budgets.escrow import Hold
from llmops.gateway.money.purse import Purse
from llmops.serving.snapshot import BudgetEntry
from tests.gateway.rig import Vault

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC).timestamp()


@dataclass
class Clock:
    """Two clocks that a test moves together. Real waits still pass on the loop."""

    now: float = NOON
    mono: float = 1_000.0
    purses: list[Purse] = field(default_factory=list)

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.mono += seconds


def a_purse(vault: Vault, clock: Clock) -> Purse:
    made = Purse(vault.bank(lambda: made), clock=lambda: clock.now, monotonic=lambda: clock.mono)
    clock.purses.append(made)
    return made


def everything(*budgets: BudgetEntry) -> dict[str, BudgetEntry]:
    return {budget.id: budget for budget in budgets}


async def settled_down() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def must_hold(purse: Purse, budgets: list[BudgetEntry], amount: int) -> Hold:
    held = await purse.hold(budgets, amount)
    assert isinstance(held, Hold)
    return held
