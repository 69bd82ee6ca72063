"""Leased money in memory: several processes on one window, lost answers, roll-over, and nobody ever spends too much."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from llmops.budgets.escrow import Hold
from llmops.core.errors import ServiceUnavailable
from llmops.gateway.money import purse as purse_module
from llmops.gateway.money.bank import GiveBack, More, Open, Short
from llmops.gateway.money.purse import Purse
from llmops.serving.snapshot import RaiseEntry
from tests.gateway.purses import NOON, Clock, a_purse, everything, must_hold, settled_down
from tests.gateway.rig import Vault, a_budget

# ---------------------------------------------------------------------- one process


async def test_the_first_call_opens_the_window_and_the_next_ones_ask_nobody() -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=1_000_000)
    await must_hold(purse, [budget], 100)
    assert [type(one) for one in vault.commands] == [Open, More]
    for _ in range(10):
        assert purse.hold_now([budget], 100) is not None
    assert len(vault.commands) == 2


async def test_all_budgets_are_held_on_or_none() -> None:
    vault, clock = Vault(), Clock()
    purse = a_purse(vault, clock)
    rich, poor = a_budget("rich", 1_000_000), a_budget("poor", 50)
    short = await purse.hold([rich, poor], 100, wait=False)
    assert isinstance(short, Short)
    assert (short.budget.slug, short.left, short.spent, short.limit) == ("poor", 50, 0, 50)
    assert all(pot.held == 0 for pot in purse.pots.values())


async def test_calls_over_several_budgets_at_once_never_hold_on_some_of_them() -> None:
    """Two processes, three budgets of which one is poor, calls on every combination, some of which lose their answers."""
    vault = Vault()
    first, second = Purse(vault.bank(lambda: first)), Purse(vault.bank(lambda: second))
    purses = [first, second]
    budgets = [a_budget("rich", 100_000), a_budget("middling", 20_000), a_budget("poor", 5_000)]
    sets = [[one for bit, one in enumerate(budgets) if number >> bit & 1] for number in range(1, 8)]
    held: list[tuple[Purse, Hold]] = []

    async def call(number: int) -> None:
        purse, wanted = purses[number % 2], sets[number % 7]
        vault.lose = number % 5 == 0
        try:
            found = await purse.hold(wanted, 100 + number, wait=number % 3 == 0)
        except ServiceUnavailable:
            # Its answer was lost, and the next one is not due yet.
            return
        if isinstance(found, Hold):
            assert {account.budget for account in found.accounts} == {budget.id for budget in wanted}
            held.append((purse, found))
            if number % 2:
                purse.settle(found, number)

    await asyncio.gather(*(call(number) for number in range(200)))
    await settled_down()
    vault.check()
    for purse in purses:
        for pot in purse._every_pot():
            ours = [one for owner, one in held if owner is purse and pot in one.accounts]
            assert pot.available >= 0
            assert pot.held == sum(one.amount for one in ours if not one.ended)
    totals = {window.window_id: window for window in vault.windows.values()}
    for window in totals.values():
        spent = sum(
            pot.spent + pot.held
            for purse in purses
            for pot in purse._every_pot()
            if pot.window == window.window_id
        )
        assert spent <= window.limit_nano


async def test_near_the_limit_the_lease_is_exact() -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=1_000)
    held = [await must_hold(purse, [budget], 300) for _ in range(3)]
    short = await purse.hold([budget], 300, wait=False)
    assert isinstance(short, Short)
    assert short.left == 100
    assert await must_hold(purse, [budget], 100)
    assert [purse.settle(one, 300) for one in held] == [(300, 0)] * 3


async def test_many_that_wait_are_asked_for_together() -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=10**9)
    held = await asyncio.gather(*(must_hold(purse, [budget], 1_000) for _ in range(200)))
    assert len(held) == 200
    assert len(vault.commands) < 6


async def test_at_the_limit_a_call_waits_a_moment_for_money_that_comes_back() -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=1_000)
    first = await must_hold(purse, [budget], 900)
    waiting = asyncio.ensure_future(purse.hold([budget], 500))
    await settled_down()
    assert not waiting.done()
    purse.settle(first, 100)
    assert isinstance(await waiting, Hold)


async def test_it_does_not_wait_for_money_that_can_not_come_back() -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=1_000)
    spent = await must_hold(purse, [budget], 900)
    purse.settle(spent, 900)
    # Hanging is what it guards against; the clock of the purse stands still.
    async with asyncio.timeout(10):
        assert isinstance(await purse.hold([budget], 500), Short)


async def test_a_database_that_does_not_answer_is_not_a_budget_that_is_spent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vault, clock = Vault(), Clock()
    vault.away = True
    purse, budget = a_purse(vault, clock), a_budget()
    with pytest.raises(ServiceUnavailable, match="team"):
        await purse.hold([budget], 100)
    vault.away = False
    clock.pass_by(1)
    await must_hold(purse, [budget], 100)
    clock.pass_by(1)
    vault.away = True
    with pytest.raises(ServiceUnavailable, match="team"):
        await purse.hold([budget], 10**9 // 2)
    monkeypatch.setattr(purse_module, "PATIENCE_S", 0.0)
    vault.away, vault.slow = False, True
    clock.pass_by(1)
    with pytest.raises(ServiceUnavailable, match="team"):
        await purse.hold([budget], 10**9 // 2)


async def test_what_is_leased_goes_on_being_spent_while_the_database_is_away() -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=10**12)
    for _ in range(50):
        held = await must_hold(purse, [budget], 1_000)
        purse.settle(held, 900)
        clock.pass_by(0.1)
        purse.tick(everything(budget))
        await settled_down()
    vault.away = True
    for _ in range(600):
        held_now = purse.hold_now([budget], 1_000)
        assert held_now is not None, "a minute's worth must be there"
        purse.settle(held_now, 900)
        clock.pass_by(0.1)
        purse.tick(everything(budget))
        await settled_down()


async def test_idle_money_goes_back() -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=1_000_000)
    held = await must_hold(purse, [budget], 100)
    purse.settle(held, 40)
    for _ in range(5):
        clock.pass_by(1)
        purse.tick(everything(budget))
        await settled_down()
    [window] = vault.windows.values()
    assert window.leased_nano == 40
    assert [type(one) for one in vault.commands].count(GiveBack) == 1


@pytest.mark.parametrize("at_rest", [0.0, 60.0], ids=["just opened", "long at rest"])
async def test_money_that_a_call_asked_for_waits_until_it_knows_what_it_can_afford(at_rest: float) -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=1_000)
    if at_rest:
        purse.settle(await must_hold(purse, [budget], 10), 0)
        clock.pass_by(at_rest)
        purse.tick(everything(budget))
        await settled_down()
    with purse.weighing([budget]):
        assert isinstance(await purse.hold([budget], 1_001), Short)
        clock.pass_by(5.0)
        purse.tick(everything(budget))
        await settled_down()
        assert purse.left([budget]) == 1_000
        assert purse.hold_now([budget], 990) is not None
    purse.tick(everything(budget))
    await settled_down()
    assert purse.left([budget]) == 0, "nobody needs the rest"


async def test_money_on_its_way_back_is_not_spent() -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=1_000_000)
    purse.settle(await must_hold(purse, [budget], 1_000), 0)
    vault.slow = True
    clock.pass_by(5)
    more = asyncio.ensure_future(purse.hold([budget], 100_000, wait=False))
    await settled_down()
    purse.tick(everything(budget))
    [pot] = purse.pots.values()
    on_its_way = pot.returning
    assert on_its_way and pot.available == 0
    vault.work()
    await settled_down()
    assert isinstance(await more, Hold)
    [lease] = vault.leases.values()
    assert pot.held + pot.available == lease.granted_nano - on_its_way
    vault.work()
    await settled_down()
    assert pot.returning == 0
    assert pot.held + pot.available == lease.granted_nano - lease.returned_nano


async def test_a_give_back_whose_answer_was_lost_is_neither_lost_nor_done_twice() -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=1_000_000)
    purse.settle(await must_hold(purse, [budget], 1_000), 400)
    vault.lose = True
    clock.pass_by(5)
    purse.tick(everything(budget))
    await settled_down()
    [pot], [lease] = purse.pots.values(), vault.leases.values()
    assert (pot.returning, pot.available) == (0, 0)
    assert lease.granted_nano - lease.returned_nano == 400


async def test_money_that_calls_hold_does_not_go_back() -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=1_000_000)
    held = await must_hold(purse, [budget], 100)
    clock.pass_by(60)
    purse.tick(everything(budget))
    purse.close()
    await settled_down()
    [window] = vault.windows.values()
    assert window.leased_nano == 100
    purse.settle(held, 100)


async def test_a_call_is_charged_to_the_window_in_which_it_was_held() -> None:
    vault, clock = Vault(), Clock(now=datetime(2026, 11, 10, 23, 59, 58, tzinfo=UTC).timestamp())
    purse, budget = a_purse(vault, clock), a_budget(period="day", limit_nano=1_000)
    before = await must_hold(purse, [budget], 900)
    purse.tick(everything(budget))
    await settled_down()
    clock.pass_by(3)
    after = await must_hold(purse, [budget], 900)
    assert before.accounts[0].window != after.accounts[0].window
    purse.settle(before, 800)
    purse.settle(after, 700)
    clock.pass_by(5)
    purse.tick(everything(budget))
    await settled_down()
    assert sorted(window.leased_nano for window in vault.windows.values()) == [700, 800]


async def test_the_next_window_is_opened_before_it_begins() -> None:
    vault, clock = Vault(), Clock(now=datetime(2026, 11, 10, 23, 59, 57, tzinfo=UTC).timestamp())
    purse, budget = a_purse(vault, clock), a_budget(period="day", limit_nano=10**9)
    purse.settle(await must_hold(purse, [budget], 900), 1)
    purse.tick(everything(budget))
    await settled_down()
    assert len(vault.windows) == 2
    clock.pass_by(4)
    vault.commands.clear()
    await must_hold(purse, [budget], 900)
    assert not [one for one in vault.commands if isinstance(one, Open)]


async def test_a_clock_that_is_set_back_spends_nothing_twice() -> None:
    """Back by two months and forth again: each moment's window pays for its calls, and none more than it has."""
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=1_000)
    first = await must_hold(purse, [budget], 600)
    clock.now -= 60 * 86_400
    earlier = await must_hold(purse, [budget], 900)
    assert earlier.accounts[0].window != first.accounts[0].window
    assert purse.settle(first, 600) == (600, 0) and purse.settle(earlier, 900) == (900, 0)
    purse.tick(everything(budget))
    await settled_down()
    clock.now += 60 * 86_400
    for amount, fits in ((500, False), (400, True), (1, False)):
        found = await purse.hold([budget], amount, wait=False)
        assert isinstance(found, Hold) == fits, amount
    vault.check()
    spent = {pot.window: pot.spent for pot in purse._every_pot()}
    assert spent[first.accounts[0].window] == 600


async def test_a_clock_that_is_set_back_a_little_stays_in_its_window() -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=1_000)
    await must_hold(purse, [budget], 600)
    clock.now -= 3_600
    short = await purse.hold([budget], 600, wait=False)
    assert isinstance(short, Short) and short.left == 400
    for _ in range(10):
        purse.tick(everything(budget))
        clock.now -= 5
        await settled_down()
    assert sum(pot.held for pot in purse._every_pot()) == 600


async def test_raises_begin_and_end_by_the_clock_of_the_process() -> None:
    vault, clock = Vault(), Clock()
    purse = a_purse(vault, clock)
    budget = a_budget(limit_nano=1_000, raises=(RaiseEntry(NOON + 60, NOON + 120, 500),))
    await must_hold(purse, [budget], 100)
    opened = len(vault.commands)
    purse.tick(everything(budget))
    await settled_down()
    assert not [one for one in vault.commands[opened:] if isinstance(one, Open)]
    for seconds in (61, 61):
        before = len(vault.commands)
        clock.pass_by(seconds)
        purse.tick(everything(budget))
        await settled_down()
        asked = [one for one in vault.commands[before:] if isinstance(one, Open)]
        assert len(asked) == 1, "it looks again at what the window allows"
        purse.tick(everything(budget))
        await settled_down()
        assert [one for one in vault.commands[before:] if isinstance(one, Open)] == asked


async def test_a_lowered_limit_takes_effect_as_far_as_money_is_free() -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=1_000_000)
    held = await must_hold(purse, [budget], 300)
    [window] = vault.windows.values()
    window.limit_nano = max(1_000, window.leased_nano)
    lower = a_budget(limit_nano=1_000, id=budget.id)
    purse.tick(everything(lower))
    await settled_down()
    window.limit_nano = 1_000
    assert window.leased_nano == 300
    purse.tick(everything(lower))
    await settled_down()
    assert isinstance(await purse.hold([lower], 900, wait=False), Short)
    clock.pass_by(1)
    assert isinstance(await purse.hold([lower], 600, wait=False), Hold)
    purse.settle(held, 300)


async def test_a_budget_that_is_gone_keeps_no_money() -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=1_000_000)
    held = await must_hold(purse, [budget], 300)
    purse.tick({})
    await settled_down()
    [window] = vault.windows.values()
    assert window.leased_nano == 300
    purse.settle(held, 100)
    purse.tick({})
    await settled_down()
    assert window.leased_nano == 100


async def test_a_budget_that_comes_back_does_not_spend_its_lease_twice() -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=1_000)
    purse.settle(await must_hold(purse, [budget], 600), 600)
    purse.tick({})
    await settled_down()
    short = await purse.hold([budget], 500, wait=False)
    assert isinstance(short, Short)
    assert isinstance(await purse.hold([budget], 400, wait=False), Hold)


async def test_an_account_it_has_forgotten_counts_as_spent() -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(period="day", limit_nano=1_000)
    purse.settle(await must_hold(purse, [budget], 600), 600)
    clock.pass_by(86_400)
    for _ in range(3):
        purse.tick(everything(budget))
        await settled_down()
    assert purse._every_pot() == []
    clock.pass_by(-86_400)
    short = await purse.hold([budget], 500, wait=False)
    assert isinstance(short, Short)
    assert isinstance(await purse.hold([budget], 400, wait=False), Hold)


async def test_a_lease_that_somebody_ended_is_not_spent_from() -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=1_000_000)
    held = await must_hold(purse, [budget], 300)
    [lease] = vault.leases.values()
    lease.state = "forfeited"
    with pytest.raises(ServiceUnavailable):
        await purse.hold([budget], 500_000)
    assert purse.hold_now([budget], 1) is None
    with pytest.raises(ServiceUnavailable):
        await purse.hold([budget], 1)
    purse.settle(held, 0)


async def test_an_overrun_is_not_paid_from_the_lease() -> None:
    vault, clock = Vault(), Clock()
    purse, budget = a_purse(vault, clock), a_budget(limit_nano=1_000)
    held = await must_hold(purse, [budget], 400)
    assert purse.settle(held, 1_000) == (400, 600)
    assert isinstance(await purse.hold([budget], 600, wait=False), Hold)
