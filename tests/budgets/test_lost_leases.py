"""What people find out afterwards: of lost leases, and what then stands in windows."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, transaction
from django.db.models import F, Sum
from django.utils import timezone

from llmops.budgets import services
from llmops.budgets.models import Budget, Explanation, Lease, Overrun, Window
from llmops.core.errors import Conflict, InvalidRequest, NotFound
from tests.cast import COMMAND, in_threads, no_event, one_event


def budget_of(limit: int = 100, **known: Any) -> Budget:
    values: dict[str, Any] = {"slug": f"b-{uuid4()}", "scope_kind": "organisation", "limit_nano": limit}
    return services.create_budget(COMMAND, **(values | known))


def lost(budget: Budget, amount: int, spent: int = 0) -> tuple[UUID, Lease]:
    """A lease whose process is gone with its journal, charged whole."""
    state, journal = services.open_window(budget_id=budget.pk, at=timezone.now()), uuid4()
    services.lease(window_id=state.window_id, journal_id=journal, need=0, want=amount, lease_seconds=-1)
    if spent:
        with transaction.atomic():
            services.book(journal_id=journal, charges=[services.WindowCharge(state.window_id, spent)])
    services.reap_leases()
    return journal, Lease.objects.get(journal_id=journal)


def stands(budget: Budget) -> tuple[int, int, int]:
    """(settled, leased, unattributed); checks that they are what the leases say."""
    window = Window.objects.get(budget=budget)
    leases = Lease.objects.filter(window=window)

    def outstanding(state: str) -> int:
        total = F("granted_nano") - F("returned_nano") - F("consumed_nano")
        return leases.filter(state=state).aggregate(sum=Sum(total))["sum"] or 0

    consumed = leases.aggregate(sum=Sum("consumed_nano"))["sum"] or 0
    assert window.unattributed_nano == outstanding(Lease.FORFEITED)
    assert window.leased_nano == outstanding(Lease.OPEN)
    assert window.settled_nano == (
        consumed + window.unattributed_nano + outstanding(Lease.EXPLAINED) + window.corrected_nano
    )
    assert window.overrun_nano == (window.overruns.aggregate(sum=Sum("amount_nano"))["sum"] or 0)
    return window.settled_nano, window.leased_nano, window.unattributed_nano


def explain(lease: Lease, spent: Any, reason: str = "the invoice") -> Lease:
    return services.explain_lease(COMMAND, lease_id=lease.pk, spent_nano=spent, reason=reason)


def test_what_was_not_spent_is_free_again(db: None) -> None:
    budget = budget_of(100)
    _, lease = lost(budget, 70, spent=10)
    assert stands(budget) == (70, 0, 60)
    with one_event("budget.lease_explained") as seen:
        explain(lease, 25)
    assert seen.event.object_id == str(budget.pk) and seen.event.reason == "the invoice"
    assert stands(budget) == (35, 0, 0)
    told = services.lease(window_id=lease.window_id, journal_id=uuid4(), need=1, want=500, lease_seconds=60)
    assert told.granted_nano == 65
    with no_event(), pytest.raises(Conflict, match="explained"):
        explain(lease, 5)
    with pytest.raises(IntegrityError), transaction.atomic():
        Explanation.objects.update(spent_nano=0)


@pytest.mark.parametrize("real", [0, 10, 25, 40])
def test_a_journal_that_turns_up_is_believed_more_than_the_person(db: None, real: int) -> None:
    budget = budget_of(100)
    journal, lease = lost(budget, 60)
    explain(lease, 25)
    with transaction.atomic():
        services.book(
            journal_id=journal, charges=[services.WindowCharge(lease.window_id, real)], closing=True
        )
    window = Window.objects.get(budget=budget)
    assert (window.settled_nano, window.leased_nano, window.unattributed_nano) == (real, 0, 0)


def test_a_process_that_lives_after_all_goes_on_with_what_it_has(db: None) -> None:
    budget = budget_of(100)
    journal, lease = lost(budget, 60)
    explain(lease, 25)
    states = services.renew_leases(journal_id=journal, lease_seconds=60)
    assert states[lease.window_id].state == Lease.OPEN
    assert stands(budget) == (0, 25, 0)


@pytest.mark.parametrize("spent", [-1, 61, 1.5, True, "5"])
def test_what_can_not_be_is_refused(db: None, spent: Any) -> None:
    budget = budget_of(100)
    _, lease = lost(budget, 60)
    with no_event(), pytest.raises(InvalidRequest) as refusal:
        explain(lease, spent)
    assert refusal.value.param == "spent_usd"
    with no_event(), pytest.raises(InvalidRequest) as refusal:
        explain(lease, 5, reason="  ")
    assert refusal.value.param == "reason"
    with pytest.raises(NotFound):
        services.explain_lease(COMMAND, lease_id=lease.pk + 1, spent_nano=1, reason="x")
    assert stands(budget) == (60, 0, 60)


def test_two_who_explain_at_once(transactional_db: None) -> None:
    budget = budget_of(100)
    _, lease = lost(budget, 60)
    results = in_threads(*[lambda amount=amount: explain(lease, amount) for amount in (5, 10, 20, 40)])
    won = [one for one in results if isinstance(one, Lease)]
    assert len(won) == 1 and all(isinstance(one, Lease | Conflict) for one in results)
    assert stands(budget)[0] == won[0].outstanding_nano


def test_each_overrun_has_its_call_and_cause(db: None) -> None:
    budget = budget_of(100)
    state, journal, call = services.open_window(budget_id=budget.pk, at=timezone.now()), uuid4(), uuid4()
    services.lease(window_id=state.window_id, journal_id=journal, need=0, want=50, lease_seconds=60)
    with transaction.atomic():
        services.book(
            journal_id=journal,
            charges=[services.WindowCharge(state.window_id, 50, 7)],
            overruns=[
                services.OverrunOfCall(state.window_id, call, 7, "9 tokens and 2 held", timezone.now())
            ],
        )
        # More than is leased and than there is: it is seen, too.
        services.book(journal_id=journal, charges=[services.WindowCharge(state.window_id, 60)])
    rows = Overrun.objects.filter(window=state.window_id).order_by("amount_nano")
    assert [(one.call_id, one.amount_nano) for one in rows] == [(call, 7), (None, 10)]
    assert Window.objects.get(pk=state.window_id).overrun_nano == 17
