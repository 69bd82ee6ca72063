"""What operators decide about budgets."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from llmops.base.live import LIVE_STATE, versions
from llmops.budgets import services
from llmops.budgets.models import Budget, Window
from llmops.budgets.selectors import gauges
from llmops.core.errors import Conflict, InvalidRequest, NotFound
from llmops.core.money import MAX_NANO, NANO
from tests.cast import COMMAND, issue, no_event, one_event

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def make(**known: Any) -> Budget:
    values: dict[str, Any] = {"slug": "all", "scope_kind": "organisation", "limit_nano": 100}
    return services.create_budget(COMMAND, **(values | known))


def touched() -> int:
    return versions().get(LIVE_STATE, 0)


def opened(budget: Budget, *, leased: int = 0, settled: int = 0) -> Window:
    """The budget's present window, with money leased to and spent by a process."""
    state = services.open_window(budget_id=budget.pk, at=timezone.now())
    journal = uuid4()
    services.lease(
        window_id=state.window_id, journal_id=journal, need=0, want=leased + settled, lease_seconds=60
    )
    with transaction.atomic():
        services.book(journal_id=journal, charges=[services.WindowCharge(state.window_id, settled)])
    window = Window.objects.get(pk=state.window_id)
    assert (window.leased_nano, window.settled_nano) == (leased, settled)
    return window


def test_create_leaves_one_event_and_tells_the_data_planes(cast: SimpleNamespace) -> None:
    before = touched()
    with one_event("budget.created") as seen:
        budget = make(
            slug="support-month", scope_kind="project", scope_value=" support ", thresholds=[100, 50, 50]
        )
    assert touched() == before + 1
    budget.refresh_from_db()
    assert (budget.project, budget.scope_value, budget.thresholds) == (cast.support, "support", [50, 100])
    assert seen.event.project_id == cast.support.pk and seen.event.object_id == str(budget.pk)
    assert seen.event.after["limit_usd"] == "0.0000001"


def test_a_keys_budget_belongs_to_the_keys_project(cast: SimpleNamespace) -> None:
    key = issue(cast.search).key
    budget = make(scope_kind="key", scope_value=str(key.pk).upper())
    assert (budget.scope_value, budget.project) == (str(key.pk), cast.search)


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("slug", {"slug": "No Blanks"}),
        ("slug", {"slug": ""}),
        ("slug", {"slug": "x" * 64}),
        ("slug", {"slug": "all\n"}),
        ("slug", {"slug": "taken"}),
        ("scope_kind", {"scope_kind": "planet"}),
        ("scope_value", {"scope_value": "support"}),
        ("scope_value", {"scope_kind": "project"}),
        ("scope_value", {"scope_kind": "project", "scope_value": "nowhere"}),
        ("scope_value", {"scope_kind": "project", "scope_value": "archived"}),
        ("scope_value", {"scope_kind": "key", "scope_value": "not-an-id"}),
        ("scope_value", {"scope_kind": "key", "scope_value": str(uuid4())}),
        ("scope_value", {"scope_kind": "route", "scope_value": "Two Words"}),
        ("scope_value", {"scope_kind": "feature", "scope_value": "x" * 201}),
        ("scope_value", {"scope_kind": "tag", "scope_value": "a\0b"}),
        ("project", {"project_id": "support"}),
        ("project", {"scope_kind": "project", "scope_value": "search", "project_id": "support"}),
        ("project", {"scope_kind": "feature", "scope_value": "x", "project_id": uuid4()}),
        ("period", {"period": "fortnight"}),
        ("timezone", {"timezone": "Mars/Olympus"}),
        ("timezone", {"timezone": ""}),
        ("limit_usd", {"limit_nano": -1}),
        ("limit_usd", {"limit_nano": MAX_NANO + 1}),
        ("limit_usd", {"limit_nano": 1.5}),
        ("limit_usd", {"limit_nano": True}),
        ("limit_usd", {"limit_nano": "5"}),
        ("thresholds", {"thresholds": [0]}),
        ("thresholds", {"thresholds": [50.5]}),
        ("thresholds", {"thresholds": ["80"]}),
        ("thresholds", {"thresholds": [1001]}),
        ("thresholds", {"thresholds": "80"}),
        ("thresholds", {"thresholds": range(1, 50)}),
    ],
)
def test_a_refusal_names_the_field_and_leaves_nothing(
    cast: SimpleNamespace, field: str, values: dict[str, Any]
) -> None:
    make(slug="taken")
    from llmops.access.services import archive_project, create_project

    archive_project(COMMAND, project=create_project(COMMAND, slug="archived"))
    if values.get("project_id") == "support":
        values = values | {"project_id": cast.support.pk}
    before = touched()
    with no_event(), pytest.raises(InvalidRequest) as refusal:
        make(**values)
    assert refusal.value.param == field and refusal.value.message.startswith(f"{field}: ")
    assert touched() == before and Budget.objects.count() == 1
    # The same values are refused as a change, too.
    budget = make(slug="other")
    with no_event(), pytest.raises(InvalidRequest) as refusal:
        services.update_budget(COMMAND, budget_id=budget.pk, **values)
    assert refusal.value.param == field


def test_a_raised_limit_counts_at_once(db: None) -> None:
    budget = make(limit_nano=100)
    window = opened(budget, leased=60, settled=40)
    with one_event("budget.changed") as seen:
        services.update_budget(COMMAND, budget_id=budget.pk, limit_nano=150, reason="a busy day")
    assert seen.event.before == {"limit_usd": "0.0000001"} and seen.event.after == {"limit_usd": "0.00000015"}
    assert seen.event.reason == "a busy day"
    window.refresh_from_db()
    assert window.limit_nano == 150
    state = services.lease(window_id=window.pk, journal_id=uuid4(), need=1, want=80, lease_seconds=60)
    assert state.granted_nano == 50


def test_a_lowered_limit_stops_leases_and_comes_down_as_money_comes_back(db: None) -> None:
    budget = make(limit_nano=100)
    state = services.open_window(budget_id=budget.pk, at=timezone.now())
    journal = uuid4()
    where = {"window_id": state.window_id, "journal_id": journal}
    services.lease(**where, need=1, want=90, lease_seconds=60)
    services.update_budget(COMMAND, budget_id=budget.pk, limit_nano=30)
    window = Window.objects.get(pk=state.window_id)
    assert window.limit_nano == 90
    told = services.lease(window_id=window.pk, journal_id=uuid4(), need=5, want=5, lease_seconds=60)
    assert (told.granted_nano, told.limit_nano) == (0, 30)
    services.give_back(**where, amount=40)
    with transaction.atomic():
        services.book(journal_id=journal, charges=[services.WindowCharge(window.pk, 20)])
    window.refresh_from_db()
    assert (window.limit_nano, window.settled_nano, window.leased_nano) == (50, 20, 30)
    services.give_back(**where, amount=25)
    window.refresh_from_db()
    assert window.limit_nano == 30
    told = services.lease(**where, need=9, want=9, lease_seconds=60)
    assert (told.granted_nano, told.settled_nano + told.leased_nano) == (95, 30)


def test_past_windows_keep_the_limit_they_had(db: None) -> None:
    budget = make(limit_nano=100, period="day")
    past = services.open_window(budget_id=budget.pk, at=datetime(2024, 1, 5, tzinfo=UTC))
    journal = uuid4()
    services.lease(window_id=past.window_id, journal_id=journal, need=0, want=60, lease_seconds=60)
    services.update_budget(COMMAND, budget_id=budget.pk, limit_nano=10)
    services.close_leases(journal)
    assert Window.objects.get(pk=past.window_id).limit_nano == 100
    services.update_budget(COMMAND, budget_id=budget.pk, limit_nano=1000)
    assert Window.objects.get(pk=past.window_id).limit_nano == 100


def test_soft_and_hard_may_be_switched_with_money_out(db: None) -> None:
    budget = make(limit_nano=100)
    window = opened(budget, leased=30, settled=50)
    services.update_budget(COMMAND, budget_id=budget.pk, hard=False)
    at = timezone.now()
    with transaction.atomic():
        services.book(journal_id=uuid4(), soft=[services.SoftCharge(budget.pk, at, 500)])
    window.refresh_from_db()
    assert (window.settled_nano, window.hard, window.limit_nano) == (550, False, 100)
    services.update_budget(COMMAND, budget_id=budget.pk, hard=True)
    window.refresh_from_db()
    assert (window.hard, window.limit_nano) == (True, 580)
    told = services.lease(window_id=window.pk, journal_id=uuid4(), need=1, want=1, lease_seconds=60)
    assert (told.granted_nano, told.limit_nano) == (0, 100)
    # A data plane that has not heard yet charges it softly: what does not fit is overrun, not a broken constraint.
    with transaction.atomic():
        services.book(journal_id=uuid4(), soft=[services.SoftCharge(budget.pk, at, 7)])
    window.refresh_from_db()
    assert (window.settled_nano, window.overrun_nano) == (550, 7)


def test_scope_period_and_zone_are_fixed_by_the_first_window(cast: SimpleNamespace) -> None:
    budget = make(scope_kind="project", scope_value="support")
    services.update_budget(COMMAND, budget_id=budget.pk, scope_value="search", period="day")
    budget.refresh_from_db()
    assert budget.project == cast.search
    services.open_window(budget_id=budget.pk, at=NOW)
    for change in (
        {"scope_value": "support"},
        {"scope_kind": "organisation", "scope_value": ""},
        {"period": "week"},
        {"timezone": "Europe/Berlin"},
    ):
        with no_event(), pytest.raises(Conflict) as refusal:
            services.update_budget(COMMAND, budget_id=budget.pk, **change)
        assert refusal.value.param in change
    # Saying the same again is no change.
    with no_event():
        services.update_budget(
            COMMAND,
            budget_id=budget.pk,
            scope_kind="project",
            scope_value="search",
            project_id=cast.search.pk,
            period="day",
            timezone="UTC",
            slug="all",
            limit_nano=100,
            hard=True,
            thresholds=[],
        )


def test_an_archived_budget_is_over(db: None) -> None:
    budget = make()
    opened(budget, settled=10)
    with one_event("budget.archived"):
        services.archive_budget(COMMAND, budget_id=budget.pk)
    assert gauges(None, timezone.now()) == []
    for act in (
        lambda: services.archive_budget(COMMAND, budget_id=budget.pk),
        lambda: services.update_budget(COMMAND, budget_id=budget.pk, limit_nano=5),
    ):
        with no_event(), pytest.raises(Conflict):
            act()
    with pytest.raises(NotFound):
        services.update_budget(COMMAND, budget_id=uuid4(), limit_nano=5)


@pytest.mark.parametrize(
    "change",
    [
        {"settled_nano": 71},
        {"leased_nano": 61},
        {"limit_nano": 69},
        {"settled_nano": -1},
        {"leased_nano": -1},
        {"overrun_nano": -1},
        {"unattributed_nano": -1},
    ],
)
def test_the_database_itself_refuses_to_overspend(db: None, change: dict[str, int]) -> None:
    budget = make(limit_nano=100)
    window = opened(budget, leased=40, settled=30)
    Window.objects.filter(pk=window.pk).update(limit_nano=100, settled_nano=40, leased_nano=30)
    with pytest.raises(IntegrityError), transaction.atomic():
        Window.objects.filter(pk=window.pk).update(**change)


def test_gauges_tell_settled_held_and_reset(cast: SimpleNamespace) -> None:
    month = make(slug="b-org", limit_nano=10 * NANO, thresholds=[50, 80], timezone="Europe/Berlin")
    make(slug="c-search", scope_kind="feature", scope_value="x", project_id=cast.search.pk)
    window = services.open_window(budget_id=month.pk, at=NOW)
    services.lease(window_id=window.window_id, journal_id=uuid4(), need=0, want=2 * NANO, lease_seconds=60)
    Window.objects.filter(pk=window.window_id).update(settled_nano=6 * NANO)
    first, second = gauges(None, NOW)
    assert (
        first.slug,
        first.settled_nano,
        first.held_nano,
        first.left_nano,
        first.percent,
        first.passed,
    ) == (
        "b-org",
        6 * NANO,
        2 * NANO,
        2 * NANO,
        80,
        (50,),
    )
    assert first.resets_at == datetime(2026, 11, 30, 23, tzinfo=UTC)
    assert (second.scope, second.project_slug, second.settled_nano) == (
        "feature x in project search",
        "search",
        0,
    )
    assert [one.slug for one in gauges({cast.search.pk}, NOW)] == ["c-search"]
    assert gauges(set(), NOW) == []
