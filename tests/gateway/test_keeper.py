"""Purse, keeper and feed on the real database: leases, losses, limits that move, snapshots that follow."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import DatabaseError, OperationalError, connection, transaction

from llmops.budgets import services as budgets
from llmops.budgets.escrow import Hold
from llmops.budgets.models import Lease, Window
from llmops.core.errors import ServiceUnavailable
from llmops.gateway.feed import Feed
from llmops.gateway.money import keeper as keeper_module
from llmops.gateway.money import purse as purse_module
from llmops.gateway.money.bank import Short
from llmops.gateway.money.keeper import Keeper
from llmops.gateway.money.purse import Purse
from llmops.providers.models import Credential, CredentialTrouble
from llmops.providers.selectors import troubles_of, unreadable
from llmops.providers.services import report_unreadable, revoke_credential
from llmops.serving.selectors import load_snapshot
from llmops.serving.services import publish
from llmops.serving.snapshot import BudgetEntry, Snapshot
from tests import configuring
from tests.cast import COMMAND

pytestmark = pytest.mark.django_db(transaction=True)


def in_thread(work: Callable[[], Any]) -> Any:
    """Run database work beside the loop, with a connection of its own."""

    def run() -> Any:
        try:
            return work()
        finally:
            connection.close()

    return asyncio.get_running_loop().run_in_executor(None, run)


class Process:
    """What a data-plane process has for its money: a purse on the test's loop, a keeper thread on the database."""

    def __init__(self, lease_seconds: float = 60.0) -> None:
        self.journal_id = uuid4()
        self.keeper: Keeper | None = None
        self.purse = Purse(lambda command: self.keeper.submit(command))  # type: ignore[union-attr]
        self.keeper = Keeper(
            asyncio.get_running_loop(), self.purse, journal_id=self.journal_id, lease_seconds=lease_seconds
        )
        self.keeper.start()

    async def close(self) -> None:
        assert self.keeper is not None
        self.purse.close()
        self.keeper.stop()
        await asyncio.to_thread(self.keeper.join, 10)
        assert not self.keeper.is_alive()

    async def hold(self, budget: BudgetEntry, amount: int) -> Hold:
        """Hold, however often it takes while a database is just back, or a window known to be dry is not asked anew."""
        for _ in range(300):
            with contextlib.suppress(ServiceUnavailable):
                held = await self.purse.hold([budget], amount)
                if isinstance(held, Hold):
                    return held
            await asyncio.sleep(0.02)
        pytest.fail(f"the money is there, but {amount} cannot be held")


@contextlib.asynccontextmanager
async def processes(count: int, **given: float) -> AsyncIterator[list[Process]]:
    running = [Process(**given) for _ in range(count)]
    try:
        yield running
    finally:
        for process in running:
            await process.close()


async def a_budget(limit: int, **known: Any) -> BudgetEntry:
    given: dict[str, Any] = {"slug": f"b-{uuid4()}", "scope_kind": "organisation", "limit_nano": limit}
    made = await in_thread(lambda: budgets.create_budget(COMMAND, **(given | known)))
    return BudgetEntry(
        id=str(made.pk),
        slug=made.slug,
        scope_kind=made.scope_kind,
        scope_value=made.scope_value,
        project=None,
        period=made.period,
        timezone=made.timezone,
        limit_nano=made.limit_nano,
        hard=made.hard,
    )


def live(budget: BudgetEntry) -> dict[str, BudgetEntry]:
    return {budget.id: budget}


async def window() -> Window:
    return await in_thread(Window.objects.get)


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not await in_thread(condition):
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.02)


async def test_leases_are_taken_spent_and_given_back() -> None:
    budget = await a_budget(10**9)
    async with processes(1) as [process]:
        held = [await process.hold(budget, 1_000) for _ in range(50)]
        row = await window()
        assert 50_000 <= row.leased_nano <= 10**9 // 4
        for one in held:
            process.purse.settle(one, 400)
    row = await window()
    assert (row.leased_nano, row.settled_nano) == (50 * 400, 0)
    [lease] = await in_thread(lambda: list(Lease.objects.all()))
    assert lease.journal_id == process.journal_id
    assert lease.granted_nano - lease.returned_nano == 50 * 400


async def test_two_processes_never_hold_more_than_the_window_together() -> None:
    limit = 1_000 * 40
    budget = await a_budget(limit)
    async with processes(2) as both:

        async def spend(process: Process) -> int:
            spent = 0
            for _ in range(30):
                found = await process.purse.hold([budget], 1_000, wait=False)
                if isinstance(found, Hold):
                    spent += process.purse.settle(found, 1_000)[0]
                process.purse.tick(live(budget))
                await asyncio.sleep(0)
            return spent

        spent = sum(await asyncio.gather(*(spend(process) for process in both)))
        assert spent <= limit
        row = await window()
        assert spent <= row.leased_nano <= limit
        # What one holds idle the other gets within seconds.
        for process in both:
            for pot in process.purse.pots.values():
                pot.last_used -= 10
            process.purse.tick(live(budget))
        await until(lambda: Window.objects.get().leased_nano == spent)
        while spent + 1_000 <= limit:
            held = await both[0].hold(budget, 1_000)
            spent += both[0].purse.settle(held, 1_000)[0]
        assert isinstance(await both[1].purse.hold([budget], 1_000, wait=False), Short)
    assert (await window()).leased_nano == limit


@pytest.fixture
def unreliable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """The keeper's database functions: ``before`` fails without effect, ``after`` with it (the answer is lost)."""
    how = {"fails": ""}

    def wrap(name: str) -> None:
        real = getattr(keeper_module, name)

        def call(**given: Any) -> Any:
            if how["fails"] == "before":
                raise OperationalError("server closed the connection")
            answer = real(**given)
            if how["fails"] == "after":
                raise OperationalError("the answer was lost")
            return answer

        monkeypatch.setattr(keeper_module, name, call)

    for name in ("lease", "give_back", "read_lease", "open_window", "renew_leases"):
        wrap(name)
    monkeypatch.setattr(keeper_module, "RETRY_S", 0.02)
    monkeypatch.setattr(purse_module, "DRY_S", 0.02)

    def set_to(state: str) -> None:
        how["fails"] = state

    yield set_to


@pytest.mark.parametrize("state", ["before", "after"])
async def test_a_lost_answer_loses_no_money(unreliable: Callable[[str], None], state: str) -> None:
    budget = await a_budget(1_000_000)
    async with processes(1) as [process]:
        held = await process.hold(budget, 1_000)
        [pot] = process.purse.pots.values()
        unreliable(state)
        with pytest.raises(ServiceUnavailable):
            await process.purse.hold([budget], 500_000)
        unreliable("")
        second = await process.hold(budget, 500_000)
        unreliable(state)
        process.purse.settle(second, 0)
        pot.last_used -= 10
        process.purse.tick(live(budget))
        assert pot.returning > 0
        await until(lambda: process.keeper is not None and process.keeper._doubtful)
        assert pot.available <= 1_000_000 - 1_000
        unreliable("")
        await until(lambda: pot.returning == 0)
        pot.last_used -= 10
        process.purse.tick(live(budget))
        await until(lambda: Window.objects.get().leased_nano == 1_000)
        assert pot.granted - pot.returned == 1_000
        process.purse.settle(held, 1_000)


async def test_calls_go_on_while_the_database_is_away(unreliable: Callable[[str], None]) -> None:
    budget = await a_budget(10**12)
    async with processes(1) as [process]:
        for _ in range(20):
            process.purse.settle(await process.hold(budget, 1_000), 900)
        unreliable("before")
        for _ in range(100):
            held = process.purse.hold_now([budget], 100)
            if held is None:
                break
            process.purse.settle(held, 90)
        assert held is not None
        unreliable("")


async def test_leases_are_renewed_and_outlive_their_first_term() -> None:
    budget = await a_budget(10**9)
    async with processes(1, lease_seconds=2.0) as [process]:
        await process.hold(budget, 1_000)
        first = (await in_thread(Lease.objects.get)).expires_at
        await until(lambda: Lease.objects.get().expires_at > first)
        [pot] = process.purse.pots.values()
        assert pot.usable_until > time.monotonic()


async def test_a_lease_that_can_not_be_renewed_is_not_spent_from(unreliable: Callable[[str], None]) -> None:
    budget = await a_budget(10**9)
    async with processes(1, lease_seconds=0.5) as [process]:
        held = await process.hold(budget, 1_000)
        unreliable("before")
        [pot] = process.purse.pots.values()
        await until(lambda: time.monotonic() > pot.usable_until)
        lease = await in_thread(Lease.objects.get)
        assert lease.expires_at.timestamp() > time.time() - 5
        assert process.purse.hold_now([budget], 1) is None
        with pytest.raises(ServiceUnavailable):
            await process.purse.hold([budget], 1)
        unreliable("")
        await process.hold(budget, 1_000)
        process.purse.settle(held, 1_000)


async def test_a_lease_that_was_charged_whole_meanwhile_comes_back() -> None:
    budget = await a_budget(10**9)
    async with processes(1, lease_seconds=0.4) as [process]:
        process.purse.settle(await process.hold(budget, 1_000), 600)
        [pot] = process.purse.pots.values()

        def forfeit() -> None:
            Lease.objects.update(expires_at="2020-01-01T00:00:00Z")
            budgets.reap_leases()

        await in_thread(forfeit)
        pot.usable_until = 0.0
        assert process.purse.hold_now([budget], 1) is None
        await process.hold(budget, 1_000)
        lease = await in_thread(Lease.objects.get)
        assert lease.state == Lease.OPEN
        row = await window()
        assert row.unattributed_nano == 0


async def test_a_process_that_is_taken_for_dead_spends_no_more() -> None:
    budget = await a_budget(10**6)
    async with processes(1) as [process]:
        process.purse.settle(await process.hold(budget, 1_000), 600)

        def close() -> None:
            with transaction.atomic():
                budgets.close_leases(process.journal_id)

        await in_thread(close)
        with pytest.raises(ServiceUnavailable):
            await process.purse.hold([budget], 900_000)


async def test_a_limit_that_moves_is_followed() -> None:
    budget = await a_budget(1_000_000)
    async with processes(1) as [process]:
        held = await process.hold(budget, 10_000)

        def move(limit: int) -> BudgetEntry:
            budgets.update_budget(COMMAND, budget_id=UUID(budget.id), limit_nano=limit)
            return BudgetEntry(
                **{name: getattr(budget, name) for name in budget.__struct_fields__} | {"limit_nano": limit}
            )

        lower = await in_thread(lambda: move(20_000))
        process.purse.tick(live(lower))
        await until(lambda: Window.objects.get().limit_nano == 20_000)
        [pot] = process.purse.pots.values()
        await until(lambda: pot.limit == 20_000)
        short = await process.purse.hold([lower], 15_000, wait=False)
        assert isinstance(short, Short)
        assert short.limit == 20_000
        higher = await in_thread(lambda: move(2_000_000))
        process.purse.tick(live(higher))
        await until(lambda: pot.limit == 2_000_000)
        again = await process.hold(higher, 1_500_000)
        process.purse.settle(held, 0)
        process.purse.settle(again, 0)


# ---------------------------------------------------------------------- the feed


class Watching:
    def __init__(self, first: Snapshot, poll: float = 0.02) -> None:
        self.seen: list[Snapshot] = []
        self.changed = threading.Event()
        self.process = uuid4()
        report = partial(report_unreadable, process=self.process, host="here")
        self.feed = Feed(first, self._deliver, poll=poll, report=report)
        self.feed.start()

    def _deliver(self, snapshot: Snapshot) -> None:
        self.seen.append(snapshot)
        self.changed.set()

    def next(self) -> Snapshot:
        assert self.changed.wait(10), "nothing was delivered"
        self.changed.clear()
        return self.seen[-1]

    def stop(self) -> None:
        self.feed.stop()
        self.feed.join(10)
        assert not self.feed.is_alive()


@pytest.fixture
def watching() -> Iterator[Watching]:
    made = Watching(load_snapshot())
    yield made
    made.stop()


def test_what_changes_is_delivered(watching: Watching) -> None:
    configuring.everything()
    publish(COMMAND, reason="first")
    while watching.next().revision != 1 or "chat" not in watching.seen[-1].routes:
        pass
    budgets.create_budget(COMMAND, slug="new", scope_kind="organisation", limit_nano=5)
    while not watching.next().live.budgets:
        pass
    assert [one.slug for one in watching.seen[-1].live.budgets] == ["new"]
    assert watching.seen[-1].document is watching.seen[-2].document


def test_nothing_is_delivered_while_nothing_changes(watching: Watching) -> None:
    assert not watching.changed.wait(0.3)


def test_a_database_that_goes_away_leaves_the_last_snapshot_and_is_noticed_when_back(
    watching: Watching, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from llmops.gateway import feed

    def away() -> dict[str, int]:
        raise DatabaseError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(feed, "versions", away)
        # A look that was under way when the database went still sees it.
        wait_for(lambda: [one for one in caplog.records if "the database is away" in one.message])
        budgets.create_budget(COMMAND, slug="new", scope_kind="organisation", limit_nano=5)
        assert not watching.changed.wait(0.3)
    assert watching.next().live.budgets
    assert len([one for one in caplog.records if "the database is away" in one.message]) == 1


def test_a_snapshot_that_can_not_be_built_does_not_end_the_feed(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmops.gateway import feed

    def broken(previous: Snapshot) -> Snapshot:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(feed, "load_snapshot", broken)
        budgets.create_budget(COMMAND, slug="new", scope_kind="organisation", limit_nano=5)
        assert not watching.changed.wait(0.3)
    assert watching.next().live.budgets


# ---------------------------------------------------------------------- keys that this process cannot read


def wait_for(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


def test_a_key_that_cannot_be_read_is_reported_and_taken_back_when_its_file_appears(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmops.gateway import feed

    monkeypatch.setattr(feed, "READ_AGAIN_S", 0.1)
    settings.SECRET_FILE_DIRS = [str(tmp_path)]
    path = tmp_path / "key"
    key = configuring.credential(source="file", reference=str(path), activate=True)
    watching = Watching(load_snapshot())
    try:
        [trouble] = wait_for(lambda: troubles_of(Credential.objects.get(pk=key.pk)))
        assert (trouble.host, trouble.process) == ("here", watching.process)
        assert str(path) in trouble.reason
        assert [(str(one), only) for one, _, only in unreadable()] == [("sim/primary", True)]
        assert not watching.changed.is_set(), "nothing new to serve"
        path.write_text("sk-PLANTED-0123456789abcdef")
        assert watching.next().live.credentials["sim"][0].secret == "sk-PLANTED-0123456789abcdef"
        wait_for(lambda: not CredentialTrouble.objects.exists())
        # Broken by a change in the database, and mended by one.
        broken = configuring.credential(
            name="second", source="env", reference="NOT_SET_ANYWHERE", activate=True
        )
        wait_for(lambda: troubles_of(Credential.objects.get(pk=broken.pk)))
        assert [(str(one), only) for one, _, only in unreadable()] == [("sim/second", False)]
        revoke_credential(COMMAND, credential=broken)
        wait_for(lambda: not CredentialTrouble.objects.exists())
    finally:
        watching.stop()


def test_what_cannot_be_read_is_said_again_and_taken_back_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from llmops.gateway import feed

    monkeypatch.setattr(feed, "SAY_AGAIN_S", 0.1)
    key = configuring.credential(source="env", reference="NOT_SET_ANYWHERE", activate=True)
    watching = Watching(load_snapshot())
    [first] = wait_for(lambda: CredentialTrouble.objects.all())
    wait_for(lambda: CredentialTrouble.objects.get().seen_at > first.seen_at)
    assert CredentialTrouble.objects.get().since == first.since
    # One that died without taking it back is over when it was silent for long.
    long_ago = first.seen_at - timedelta(minutes=5)
    CredentialTrouble.objects.create(
        credential=key, process=uuid4(), host="dead", reason="x", since=long_ago, seen_at=long_ago
    )
    assert [one.host for one in troubles_of(Credential.objects.get(pk=key.pk))] == ["here"]
    watching.stop()
    assert [one.host for one in CredentialTrouble.objects.all()] == ["dead"]
    assert unreadable() == []
