"""Several processes on one window, whatever is lost between them and the database: nobody ever spends too much."""

from __future__ import annotations

import asyncio

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmops.budgets.escrow import Hold
from llmops.core.errors import ServiceUnavailable
from llmops.gateway.money import purse as purse_module
from llmops.gateway.money.purse import Purse
from tests.gateway.purses import Clock, a_purse, everything, settled_down
from tests.gateway.rig import Vault, a_budget
from tests.trying import tries


async def test_two_processes_share_a_window_to_its_last_nanodollar() -> None:
    vault, clock = Vault(), Clock()
    budget = a_budget(limit_nano=100_000)
    purses = [a_purse(vault, clock), a_purse(vault, clock)]
    spent = 0
    for turn in range(400):
        purse = purses[turn % 2]
        found = await purse.hold([budget], 700, wait=False)
        if isinstance(found, Hold):
            spent += sum(purse.settle(found, 500))
        clock.pass_by(0.5)
        for one in purses:
            one.tick(everything(budget))
        await settled_down()
    assert 100_000 - 700 < spent <= 100_000


class Spending(RuleBasedStateMachine):
    """Two processes, two budgets, answers that get lost, a database that goes away, days that pass."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.vault, self.clock = Vault(slow=True), Clock()
        self.budgets = [a_budget("day", 5_000, period="day"), a_budget("once", 9_000, period="once")]
        self.purses = [a_purse(self.vault, self.clock), a_purse(self.vault, self.clock)]
        self.held: list[tuple[Purse, Hold]] = []
        self.charged: dict[int, int] = {}
        self._patience = purse_module.PATIENCE_S
        purse_module.PATIENCE_S = 0.0

    def teardown(self) -> None:
        purse_module.PATIENCE_S = self._patience
        self.runner.close()

    @rule(which=st.integers(0, 1), budgets=st.sampled_from([[0], [1], [0, 1]]), amount=st.integers(1, 3_000))
    def hold(self, which: int, budgets: list[int], amount: int) -> None:
        purse = self.purses[which]

        async def attempt() -> None:
            try:
                wanted = [self.budgets[one] for one in budgets]
                found = purse.hold_now(wanted, amount)
                if found is not None:
                    self.held.append((purse, found))
                else:
                    purse._survey(wanted, amount, self.clock.mono, {})
            except ServiceUnavailable:
                return

        self.runner.run(attempt())

    @rule(which=st.integers(0, 1), budget=st.integers(0, 1))
    def hold_all_there_is(self, which: int, budget: int) -> None:
        purse, wanted = self.purses[which], [self.budgets[budget]]

        async def attempt() -> None:
            if amount := purse.left(wanted):
                found = purse.hold_now(wanted, amount)
                assert found is not None
                self.held.append((purse, found))

        self.runner.run(attempt())

    @precondition(lambda self: self.held)
    @rule(share=st.floats(0, 1.5), index=st.integers(0, 100))
    def settle(self, share: float, index: int) -> None:
        purse, held = self.held.pop(index % len(self.held))
        spent, _ = purse.settle(held, int(held.amount * share))
        for account in held.accounts:
            self.charged[account.window] = self.charged.get(account.window, 0) + spent

    @rule(seconds=st.sampled_from([0.1, 1, 4, 3_600, 40_000]))
    def time_passes(self, seconds: float) -> None:
        self.clock.pass_by(seconds)

        async def tick() -> None:
            for purse in self.purses:
                purse.tick(everything(*self.budgets))
            await settled_down()

        self.runner.run(tick())

    @rule(commands=st.integers(1, 6))
    def bank_works(self, commands: int) -> None:
        async def work() -> None:
            for _ in range(commands):
                self.vault.work()
                await settled_down()

        self.runner.run(work())

    @rule(away=st.booleans(), lose=st.booleans())
    def weather(self, away: bool, lose: bool) -> None:
        self.vault.away, self.vault.lose = away, lose and not away

    @rule(which=st.integers(0, 1))
    def budget_vanishes_and_returns(self, which: int) -> None:
        async def tick() -> None:
            self.purses[which].tick({})
            await settled_down()

        self.runner.run(tick())

    @rule()
    def ingester_books(self) -> None:
        for purse in self.purses:
            for pot in purse._every_pot():
                lease = self.vault.leases.get((id(purse), pot.window))
                if lease is None:
                    continue
                window = next(one for one in self.vault.windows.values() if one.window_id == pot.window)
                fresh = pot.spent - lease.consumed_nano
                lease.consumed_nano += fresh
                window.leased_nano -= fresh
                window.settled_nano += fresh

    @invariant()
    def nobody_has_spent_or_held_more_than_there_is(self) -> None:
        self.vault.check()
        for window in self.vault.windows.values():
            held = sum(
                account.held
                for purse in self.purses
                for account in purse._every_pot()
                if account.window == window.window_id
            )
            assert self.charged.get(window.window_id, 0) + held <= window.limit_nano

    @invariant()
    def no_process_spends_what_it_did_not_lease(self) -> None:
        for purse in self.purses:
            for pot in purse._every_pot():
                lease = self.vault.leases.get((id(purse), pot.window))
                granted, returned = (lease.granted_nano, lease.returned_nano) if lease else (0, 0)
                assert pot.spent + pot.held <= granted - returned


Spending.TestCase.settings = tries(120, at_least=50, stateful_step_count=40)
TestSpending = Spending.TestCase
