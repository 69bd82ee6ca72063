"""What a period left over goes on into the next: exactly, once, whoever asks and however often."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from llmops.budgets import services
from llmops.budgets.models import Budget, Window
from llmops.budgets.periods import bounds
from llmops.budgets.selectors import gauges
from llmops.core.errors import InvalidRequest
from tests.cast import COMMAND, in_threads, no_event, one_event

#: Budgets were there long before the periods that are played with, and the periods end when the test says so.
MARCH = datetime(2027, 3, 10, 12, tzinfo=UTC)
APRIL = datetime(2027, 4, 10, 12, tzinfo=UTC)


def carrying(limit: int = 100, cap: int = 40, **known: Any) -> Budget:
    values: dict[str, Any] = {"slug": f"c-{uuid4()}", "scope_kind": "organisation", "limit_nano": limit}
    budget = services.create_budget(COMMAND, **(values | {"carry_over_nano": cap} | known))
    Budget.objects.filter(pk=budget.pk).update(created_at=datetime(2027, 3, 1, tzinfo=UTC))
    return budget


def spend(budget: Budget, at: datetime, settled: int, leased: int = 0) -> UUID:
    state = services.open_window(budget_id=budget.pk, at=at)
    journal = uuid4()
    services.lease(
        window_id=state.window_id, journal_id=journal, need=0, want=settled + leased, lease_seconds=60
    )
    with transaction.atomic():
        services.book(journal_id=journal, charges=[services.WindowCharge(state.window_id, settled)])
    return journal


def window(budget: Budget, at: datetime) -> Window:
    return Window.objects.get(budget=budget, starts_at=bounds(budget.period, budget.timezone, at)[0])


def stands(budget: Budget, at: datetime) -> tuple[int, int, int]:
    """(limit, carried in, passed on)"""
    row = window(budget, at)
    return row.limit_nano, row.carried_nano, row.passed_on_nano


def test_what_is_left_moves_up_to_the_cap_and_no_second_time(db: None) -> None:
    budget = carrying(limit=100, cap=40)
    spend(budget, MARCH, settled=30)
    with no_event():
        assert services.carry_over(budget_id=budget.pk, now=MARCH) == 0, "nothing ended yet"
    with one_event("budget.carried_over") as seen:
        assert services.carry_over(budget_id=budget.pk, now=APRIL) == 40
    assert seen.event.after["amount_nano"] == 40 and seen.event.actor_kind == "job"
    assert (stands(budget, MARCH), stands(budget, APRIL)) == ((100, 0, 40), (140, 40, 0))
    with no_event():
        assert services.carry_over(budget_id=budget.pk, now=APRIL) == 0
    april = window(budget, APRIL)
    state = services.lease(window_id=april.pk, journal_id=uuid4(), need=1, want=500, lease_seconds=60)
    assert state.granted_nano == 140


def test_leased_money_follows_when_it_comes_back(db: None) -> None:
    budget = carrying(limit=100, cap=90)
    journal = spend(budget, MARCH, settled=20, leased=70)
    assert services.carry_over(budget_id=budget.pk, now=APRIL) == 10
    services.give_back(window_id=window(budget, MARCH).pk, journal_id=journal, amount=30)
    assert services.carry_over(budget_id=budget.pk, now=APRIL) == 30
    with transaction.atomic():
        services.book(
            journal_id=journal,
            charges=[services.WindowCharge(window(budget, MARCH).pk, 15)],
            closing=True,
        )
    assert services.carry_over(budget_id=budget.pk, now=APRIL) == 25
    assert (stands(budget, MARCH), stands(budget, APRIL)) == ((100, 0, 65), (165, 65, 0))
    march = window(budget, MARCH)
    assert (march.settled_nano, march.leased_nano) == (35, 0)
    state = services.lease(window_id=march.pk, journal_id=uuid4(), need=1, want=5, lease_seconds=60)
    assert state.granted_nano == 0, "what was passed on can not be spent where it came from"


def test_periods_in_which_nothing_ran_left_all_of_it(db: None) -> None:
    budget = carrying(limit=100, cap=250)
    june = datetime(2027, 6, 5, tzinfo=UTC)
    services.carry_over(budget_id=budget.pk, now=june)
    assert [stands(budget, at)[1] for at in (MARCH, APRIL, datetime(2027, 5, 5, tzinfo=UTC), june)] == [
        0,
        100,
        200,
        250,
    ]
    # A budget that is younger than the last period has nothing from before.
    young = carrying(limit=100, cap=50)
    Budget.objects.filter(pk=young.pk).update(created_at=june)
    assert services.carry_over(budget_id=young.pk, now=june) == 0


def test_ten_at_once_move_it_once(transactional_db: None) -> None:
    budget = carrying(limit=1_000, cap=700)
    spend(budget, MARCH, settled=200)
    services.open_window(budget_id=budget.pk, at=APRIL)
    moved = in_threads(*[lambda: services.carry_over(budget_id=budget.pk, now=APRIL)] * 10)
    assert sorted(moved) == [0] * 9 + [700]
    assert stands(budget, APRIL) == (1_700, 700, 0)


def test_a_lease_that_lacks_money_finds_what_came_over(db: None) -> None:
    yesterday, today = timezone.now() - timedelta(days=1), timezone.now()
    budget = carrying(limit=100, cap=60, period="day")
    Budget.objects.filter(pk=budget.pk).update(created_at=yesterday - timedelta(days=0, hours=1))
    spend(budget, yesterday, settled=10)
    opened = services.open_window(budget_id=budget.pk, at=today)
    assert opened.limit_nano == 160, "opening a window carries over what is free by then"
    Window.objects.filter(pk=opened.window_id).update(carried_nano=0, limit_nano=100)
    Window.objects.filter(pk=window(budget, yesterday).pk).update(passed_on_nano=0)
    state = services.lease(window_id=opened.window_id, journal_id=uuid4(), need=1, want=130, lease_seconds=60)
    assert (state.granted_nano, state.limit_nano) == (130, 160)
    gauge = next(one for one in gauges(None, timezone.now()) if one.budget_id == budget.pk)
    assert (gauge.limit_nano, gauge.carried_nano, gauge.left_nano) == (160, 60, 30)


def test_a_changed_limit_keeps_what_came_over(db: None) -> None:
    budget = carrying(limit=100, cap=40)
    spend(budget, MARCH, settled=0)
    services.carry_over(budget_id=budget.pk, now=APRIL)
    services.update_budget(COMMAND, budget_id=budget.pk, limit_nano=10)
    assert stands(budget, APRIL) == (50, 40, 0)
    services.update_budget(COMMAND, budget_id=budget.pk, carry_over_nano=0, limit_nano=200)
    assert stands(budget, APRIL) == (240, 40, 0)
    assert services.carry_over(budget_id=budget.pk, now=APRIL) == 0


@pytest.mark.parametrize("change", [{"passed_on_nano": 71}, {"passed_on_nano": -1}, {"carried_nano": -1}])
def test_the_database_itself_refuses_to_carry_what_is_used(db: None, change: dict[str, int]) -> None:
    budget = carrying(limit=100)
    spend(budget, MARCH, settled=20, leased=10)
    with pytest.raises(IntegrityError), transaction.atomic():
        Window.objects.filter(budget=budget).update(**change)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("carry_over_usd", {"carry_over_nano": -1}),
        ("carry_over_usd", {"carry_over_nano": 1.5}),
        ("carry_over_usd", {"carry_over_nano": 5, "hard": False}),
        ("carry_over_usd", {"carry_over_nano": 5, "period": "once"}),
        ("at_limit_route", {"at_limit_route": "Two Words"}),
        ("at_limit_route", {"at_limit_route": "nowhere"}),
        ("at_limit_route", {"at_limit_route": "chat", "hard": False}),
        ("notify", {"notify": "a@example.com"}),
        ("notify", {"notify": ["a@example.com", "nobody"]}),
        ("notify", {"notify": ["a@example.com\nBcc: b@example.com"]}),
        ("notify", {"notify": [f"a{number}@example.com" for number in range(21)]}),
        ("notify", {"notify": [7]}),
    ],
)
def test_what_makes_no_sense_is_refused_by_field(
    db: None, monkeypatch: pytest.MonkeyPatch, field: str, values: dict[str, Any]
) -> None:
    monkeypatch.setattr("llmops.providers.selectors.route_exists", lambda slug: slug == "chat")
    with no_event(), pytest.raises(InvalidRequest) as refusal:
        services.create_budget(
            COMMAND, **({"slug": "x", "scope_kind": "organisation", "limit_nano": 1} | values)
        )
    assert refusal.value.param == field and refusal.value.message.startswith(f"{field}: ")
    budget = services.create_budget(
        COMMAND, slug="x", scope_kind="organisation", limit_nano=1, carry_over_nano=1, at_limit_route="chat"
    )
    with no_event(), pytest.raises(InvalidRequest):
        services.update_budget(COMMAND, budget_id=budget.pk, **values)
