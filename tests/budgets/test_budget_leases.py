"""Leases: what data planes take and bring back, under competition and after deaths."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from django.db.models import F, Sum
from django.utils import timezone

from llmops.budgets import services
from llmops.budgets.models import Budget, Lease, Window
from llmops.core.errors import Conflict, InvalidRequest, NotFound
from tests.cast import COMMAND, in_threads, one_event

#: In a period that has not ended, whenever this runs and however long it takes.
AT = timezone.now() + timedelta(days=40)


def budget_of(limit: int, **known: Any) -> Budget:
    values: dict[str, Any] = {"slug": f"b-{uuid4()}", "scope_kind": "organisation", "limit_nano": limit}
    return services.create_budget(COMMAND, **(values | known))


def window_of(limit: int, **known: Any) -> int:
    return services.open_window(budget_id=budget_of(limit, **known).pk, at=AT).window_id


def lease(window: int, journal: UUID, want: int, need: int = 1, seconds: float = 60) -> services.LeaseState:
    return services.lease(window_id=window, journal_id=journal, need=need, want=want, lease_seconds=seconds)


def book(journal: UUID, window: int, cost: int, overrun: int = 0, closing: bool = False) -> None:
    with transaction.atomic():
        services.book(
            journal_id=journal, charges=[services.WindowCharge(window, cost, overrun)], closing=closing
        )


def amounts(window: int) -> dict[str, int]:
    row = Window.objects.get(pk=window)
    return {
        "settled": row.settled_nano,
        "leased": row.leased_nano,
        "overrun": row.overrun_nano,
        "unattributed": row.unattributed_nano,
    }


def stands(
    window: int, *, settled: int = 0, leased: int = 0, overrun: int = 0, unattributed: int = 0
) -> None:
    assert amounts(window) == {
        "settled": settled,
        "leased": leased,
        "overrun": overrun,
        "unattributed": unattributed,
    }
    outstanding = Lease.objects.filter(window=window, state=Lease.OPEN).aggregate(
        sum=Sum(F("granted_nano") - F("returned_nano") - F("consumed_nano"))
    )["sum"]
    assert (outstanding or 0) == leased


def test_what_is_asked_for_is_granted_then_what_is_left_then_nothing(db: None) -> None:
    window, one, other = window_of(100), uuid4(), uuid4()
    assert lease(window, one, 70).granted_nano == 70
    told = lease(window, other, 70)
    assert (told.granted_nano, told.leased_nano, told.settled_nano, told.limit_nano) == (30, 100, 0, 100)
    assert lease(window, one, 5).granted_nano == 70
    assert lease(window, other, want=0, need=9).granted_nano == 30
    services.give_back(window_id=window, journal_id=one, amount=20)
    assert lease(window, other, want=3, need=9).granted_nano == 39, "a want below the need counts as the need"
    stands(window, leased=89)


def test_totals_only_grow_so_that_a_lost_answer_is_made_good(db: None) -> None:
    window, journal = window_of(100), uuid4()
    lease(window, journal, 40)
    lease(window, journal, 10)
    services.give_back(window_id=window, journal_id=journal, amount=15)
    book(journal, window, 20)
    told = services.read_lease(window_id=window, journal_id=journal)
    assert (told.granted_nano, told.returned_nano, told.consumed_nano, told.state) == (50, 15, 20, "open")
    assert (told.settled_nano, told.leased_nano) == (20, 15)
    with pytest.raises(Conflict, match="15 nanodollars outstanding"):
        services.give_back(window_id=window, journal_id=journal, amount=16)
    stands(window, settled=20, leased=15)


def test_wrong_askers_get_sentences(db: None) -> None:
    window, journal = window_of(100), uuid4()
    with pytest.raises(NotFound):
        lease(window + 1, journal, 5)
    with pytest.raises(NotFound):
        services.read_lease(window_id=window, journal_id=journal)
    with pytest.raises(NotFound):
        services.open_window(budget_id=uuid4(), at=AT)
    for need, want in ((-1, 5), (0, -5)):
        with pytest.raises(InvalidRequest):
            lease(window, journal, want, need=need)
    lease(window, journal, 5)
    with pytest.raises(InvalidRequest):
        services.give_back(window_id=window, journal_id=journal, amount=-1)
    services.close_leases(journal)
    with pytest.raises(Conflict, match="closed"):
        lease(window, journal, 5)
    outside = in_threads(lambda: services.book(journal_id=journal))[0]
    assert isinstance(outside, RuntimeError) and "transaction" in str(outside)
    stands(window)


def test_a_budget_of_nothing_grants_nothing(db: None) -> None:
    window = window_of(0)
    assert lease(window, uuid4(), 5).granted_nano == 0
    stands(window)


def test_a_soft_window_grants_without_a_limit(db: None) -> None:
    window, journal = window_of(10, hard=False), uuid4()
    assert lease(window, journal, 500).granted_nano == 500
    book(journal, window, 400, closing=True)
    stands(window, settled=400)


def test_windows_follow_the_period_and_open_once(db: None) -> None:
    budget = budget_of(10, period="day", timezone="America/New_York")
    first = services.open_window(budget_id=budget.pk, at=datetime(2026, 11, 20, 4, 59, tzinfo=UTC))
    again = services.open_window(budget_id=budget.pk, at=datetime(2026, 11, 19, 5, tzinfo=UTC))
    second = services.open_window(budget_id=budget.pk, at=datetime(2026, 11, 20, 5, tzinfo=UTC))
    assert first == again and first.ends_at == second.starts_at and first.window_id != second.window_id
    once = services.open_window(budget_id=budget_of(10, period="once").pk, at=AT)
    assert once.ends_at is None


def test_overrun_stands_beside_what_is_settled(db: None) -> None:
    window, journal = window_of(100), uuid4()
    lease(window, journal, 100)
    book(journal, window, 100, overrun=17)
    stands(window, settled=100, overrun=17)


def test_charges_nobody_leased_fill_the_window_and_then_overrun(
    db: None, caplog: pytest.LogCaptureFixture
) -> None:
    window, journal = window_of(100), uuid4()
    lease(window, journal, 30)
    book(journal, window, 50)
    stands(window, settled=50)
    book(uuid4(), window, 70)
    stands(window, settled=100, overrun=20)
    assert caplog.text.count("had not leased") == 2
    book(uuid4(), window + 1, 5)
    assert f"window {window + 1}, which does not exist" in caplog.text


def test_a_reaped_lease_is_charged_whole_until_its_journal_turns_up(db: None) -> None:
    window, journal, living = window_of(100), uuid4(), uuid4()
    lease(window, journal, 40, seconds=10)
    lease(window, living, 30, seconds=3600)
    assert services.reap_leases(timezone.now() + timedelta(seconds=5)) == []
    with one_event("budget.lease_charged_whole") as seen:
        assert services.reap_leases(timezone.now() + timedelta(seconds=15)) == [journal]
    assert seen.event.after["unattributed_nano"] == 40
    stands(window, settled=40, leased=30, unattributed=40)
    assert services.reap_leases(timezone.now() + timedelta(seconds=15)) == []
    assert lease(window, living, 100).granted_nano == 60, "what was charged whole can not be leased again"
    book(journal, window, 25)
    stands(window, settled=40, leased=60, unattributed=15)
    services.close_leases(journal)
    stands(window, settled=25, leased=60)
    services.close_leases(journal)
    stands(window, settled=25, leased=60)


def test_a_process_that_was_given_up_and_lives_gets_its_lease_back(db: None) -> None:
    window, journal = window_of(100), uuid4()
    lease(window, journal, 40, seconds=10)
    book(journal, window, 5)
    services.reap_leases(timezone.now() + timedelta(seconds=15))
    stands(window, settled=40, unattributed=35)
    told = services.renew_leases(journal_id=journal, lease_seconds=60)[window]
    assert (told.state, told.granted_nano, told.consumed_nano) == ("open", 40, 5)
    stands(window, settled=5, leased=35)
    services.reap_leases(timezone.now() + timedelta(seconds=90))
    assert lease(window, journal, 10).granted_nano == 50
    stands(window, settled=5, leased=45)
    services.reap_leases(timezone.now() + timedelta(seconds=90))
    services.give_back(window_id=window, journal_id=journal, amount=45)
    stands(window, settled=5)


def test_leases_whose_journal_can_be_read_are_spared(db: None) -> None:
    window, readable, lost = window_of(100), uuid4(), uuid4()
    for journal in (readable, lost):
        lease(window, journal, 10, seconds=1)
    later = timezone.now() + timedelta(seconds=5)
    assert services.reap_leases(later, spare=lambda journal: journal == readable) == [lost]
    stands(window, settled=10, leased=10, unattributed=10)


@pytest.fixture
def sampler(transactional_db: None) -> Iterator[list[int]]:
    """Watches every hard window from a connection of its own; holds how many times it looked."""
    stop, looked, broken = threading.Event(), [0], []

    def watch() -> None:
        # A pause between two looks, so that it watches the others at work and does not take their turns.
        while not stop.wait(0.002):
            for row in Window.objects.filter(hard=True):
                if row.settled_nano + row.leased_nano > row.limit_nano or row.leased_nano < 0:
                    broken.append(amounts(row.pk))
            looked[0] += 1
        connection.close()

    thread = threading.Thread(target=watch)
    thread.start()
    yield looked
    stop.set()
    thread.join(30)
    assert not broken and looked[0] > 0


def test_competitors_never_get_more_than_the_limit(sampler: list[int]) -> None:
    limit = 1000
    window = window_of(limit)
    granted: dict[UUID, int] = {}

    def compete(journal: UUID, size: int) -> Any:
        def work() -> None:
            have = 0
            for turn in range(12):
                told = lease(window, journal, size)
                have = told.granted_nano - told.returned_nano - told.consumed_nano
                assert told.settled_nano + told.leased_nano <= limit
                if have and turn % 3 == 0:
                    services.give_back(window_id=window, journal_id=journal, amount=have // 2)
                    have -= have // 2
                if have and turn % 3 == 1:
                    book(journal, window, have // 3)
            granted[journal] = have

        return work

    assert in_threads(*(compete(uuid4(), size) for size in (7, 90, 13, 250, 400, 31))) == [None] * 6
    row = amounts(window)
    stands(window, settled=row["settled"], leased=row["leased"])
    assert row["settled"] + row["leased"] <= limit


def test_a_window_is_opened_once_by_many_and_limits_move_under_them(sampler: list[int]) -> None:
    budget = budget_of(500)

    def process() -> int:
        journal = uuid4()
        window = services.open_window(budget_id=budget.pk, at=AT).window_id
        for _ in range(10):
            told = lease(window, journal, 60)
            have = told.granted_nano - told.returned_nano - told.consumed_nano
            services.give_back(window_id=window, journal_id=journal, amount=have // 2)
        services.renew_leases(journal_id=journal, lease_seconds=60)
        return window

    def operator() -> None:
        for limit in (100, 700, 0, 300, 50, 500):
            services.update_budget(COMMAND, budget_id=budget.pk, limit_nano=limit)
            services.update_budget(COMMAND, budget_id=budget.pk, thresholds=[limit % 99 + 1])

    results = in_threads(process, process, process, process, operator)
    assert len(set(results[:4])) == 1 and results[4] is None, results
    assert Window.objects.filter(budget=budget).count() == 1
    row = Window.objects.get(budget=budget)
    stands(row.pk, settled=0, leased=row.leased_nano)
    assert row.limit_nano == max(500, row.leased_nano)


def test_bookings_of_many_windows_in_any_order_do_not_deadlock(sampler: list[int]) -> None:
    windows = [window_of(10_000) for _ in range(4)]
    journals = [uuid4() for _ in range(4)]
    for journal in journals:
        for window in windows:
            lease(window, journal, 1000)

    def ingester(journal: UUID, order: list[int]) -> Any:
        def work() -> None:
            for _ in range(8):
                with transaction.atomic():
                    services.book(
                        journal_id=journal, charges=[services.WindowCharge(window, 5) for window in order]
                    )
            services.close_leases(journal)

        return work

    orders = [windows, windows[::-1], windows[2:] + windows[:2], windows[1:] + windows[:1]]
    results = in_threads(*(ingester(journal, order) for journal, order in zip(journals, orders, strict=True)))
    assert results == [None] * 4
    for window in windows:
        stands(window, settled=4 * 8 * 5)


def test_reaping_and_renewing_at_once_keeps_the_books(sampler: list[int]) -> None:
    window = window_of(1000)
    journals = [uuid4() for _ in range(3)]

    def live(journal: UUID) -> Any:
        def work() -> None:
            lease(window, journal, 200, seconds=0.001)
            for _ in range(15):
                services.renew_leases(journal_id=journal, lease_seconds=0.001)
                book(journal, window, 3)

        return work

    def reap() -> None:
        for _ in range(40):
            services.reap_leases(timezone.now() + timedelta(seconds=1))

    assert in_threads(*map(live, journals), reap, reap) == [None] * 5
    for journal in journals:
        services.close_leases(journal)
    stands(window, settled=3 * 15 * 3)
