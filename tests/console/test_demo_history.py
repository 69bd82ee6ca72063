"""The demo's months of calls: they add up like any others, are there once, and answer what finance asks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db.models import Sum

from console import demo
from console.bootstrap import _DEMO
from console.declarative import apply_text
from console.demo import history
from console.demo.story import OK, Months, Story
from console.embedded import Refusal, run
from llmops.access.models import Project
from llmops.access.services import create_service_key
from llmops.approvals.models import Request
from llmops.audit.checking import check_database
from llmops.audit.models import Event
from llmops.budgets.models import Budget, ThresholdCrossing, Window
from llmops.serving.selectors import pending
from llmops.usage import rebuild
from llmops.usage.models import Call, CallOutcome, DriftAlert, OutcomeRollup, Rollup
from llmops.usage.selectors.reconciliation import drifts
from tests.cast import COMMAND
from tests.console.world import undone

TODAY = datetime.now(UTC).date()
MONTHS = Months.before(TODAY)


@pytest.fixture(scope="module")
def made(django_db_setup: None, django_db_blocker: Any) -> Iterator[int]:
    """A new installation's configuration with its history; how many calls it has. Taken back at the end."""
    with django_db_blocker.unblock(), undone():
        yield _fill()


@pytest.fixture
def filled(made: int, db: None) -> int:
    return made


def _fill() -> int:
    text = (_DEMO / "embedded.yaml").read_text().replace("@SIMULATOR_URL@", "http://127.0.0.1:9/v1")
    apply_text(COMMAND, text=text, reason="The demo's configuration")
    for project, name in history.KEYS.items():
        create_service_key(
            COMMAND,
            project=Project.objects.get(slug=project),
            name=name,
            scopes=["inference"],
            allowed_models=["*"],
        )
    return history.fill(COMMAND, today=TODAY)  # a run of all tests may go on past midnight


def test_it_adds_up_and_is_there_once(filled: int) -> None:
    _calls_rollups_and_windows_agree(filled)
    _recomputing_a_day_finds_nothing_to_mend()
    _it_ends_with_yesterday_and_is_there_once(filled)
    _nothing_waits_to_be_published_because_of_it()


def test_it_answers_what_finance_asks(filled: int) -> None:
    _one_feature_grew_and_there_is_a_reason()
    _a_hard_budget_held_thresholds_were_crossed_and_a_raise_waits()
    _the_providers_report_drifts_where_a_call_is_unknown()


def month_cost(feature: str, first: date, end: date) -> int:
    rows = Call.objects.filter(feature=feature, started_at__gte=midnight(first), started_at__lt=midnight(end))
    return rows.aggregate(sum=Sum("cost_nano"))["sum"] or 0


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


def _calls_rollups_and_windows_agree(filled: int) -> None:
    calls = Call.objects.aggregate(cost=Sum("cost_nano"))["cost"]
    assert Call.objects.count() == filled
    for granularity in (Rollup.HOUR, Rollup.DAY):
        sums = Rollup.objects.filter(granularity=granularity).aggregate(Sum("calls"), Sum("cost_nano"))
        assert sums == {"calls__sum": filled, "cost_nano__sum": calls}
    for budget in Budget.objects.all():
        windows = Window.objects.filter(budget=budget)
        assert windows.aggregate(sum=Sum("leased_nano"))["sum"] == 0
        assert windows.aggregate(sum=Sum("settled_nano"))["sum"] == charged(budget)
    assert Window.objects.get(budget__slug="organisation-month", starts_at=midnight(MONTHS.last)).settled_nano == (
        Call.objects.filter(started_at__gte=midnight(MONTHS.last), started_at__lt=midnight(MONTHS.this)).aggregate(
            sum=Sum("cost_nano")
        )["sum"]
    )  # fmt: skip
    assert check_database().intact


def charged(budget: Budget) -> int:
    windows = set(budget.windows.values_list("pk", flat=True))
    return sum(
        charge["cost"]
        for charges in Call.objects.values_list("charges", flat=True)
        for charge in charges
        if charge.get("budget") == str(budget.pk) or charge.get("window") in windows
    )


def _recomputing_a_day_finds_nothing_to_mend() -> None:
    day = MONTHS.last.replace(day=20)
    result: dict[str, Any] = {}
    before = Rollup.objects.filter(granularity__gt=60).order_by("pk")
    stored = list(before.values_list(*Rollup.DIMENSIONS, *Rollup.SUMS))
    outcomes = list(OutcomeRollup.objects.order_by("pk").values())
    for number in (rebuild.STEPS - 2, rebuild.STEPS - 1):
        result = rebuild.step(day, number, result)
    assert result["differences"] == []
    assert list(before.values_list(*Rollup.DIMENSIONS, *Rollup.SUMS)) == stored
    assert list(OutcomeRollup.objects.order_by("pk").values()) == outcomes


def _one_feature_grew_and_there_is_a_reason() -> None:
    grown = {
        feature: month_cost(feature, MONTHS.last, MONTHS.this)
        - month_cost(feature, MONTHS.before_last, MONTHS.last)
        for feature in set(Call.objects.values_list("feature", flat=True))
    }
    assert max(grown, key=lambda name: grown[name]) == "drafts"
    assert month_cost("drafts", MONTHS.last, MONTHS.this) > 3 * month_cost(
        "drafts", MONTHS.before_last, MONTHS.last
    )
    assert Call.objects.filter(feature="faq", cache="hit", saved_nano__gt=0).exists()
    assert CallOutcome.objects.count() > 300


def _a_hard_budget_held_thresholds_were_crossed_and_a_raise_waits() -> None:
    held = ThresholdCrossing.objects.get(refusing=True)
    assert held.window.budget.slug == "search-day"
    assert held.crossed_at.date() == held.window.starts_at.date() == MONTHS.last.replace(day=12)
    assert held.window.settled_nano <= held.limit_nano
    assert Call.objects.filter(error_code="insufficient_quota").count() > 5
    crossed = ThresholdCrossing.objects.filter(window__budget__slug="drafts-month", window__starts_at=midnight(MONTHS.last))  # fmt: skip
    # Months differ in their working days: in some the limit itself is reached.
    assert sorted(crossed.values_list("percent", flat=True))[:2] == [50, 80]
    assert all(MONTHS.last <= one.crossed_at.date() < MONTHS.this for one in crossed)
    assert sorted(Request.objects.values_list("state", flat=True)) == [Request.EXECUTED, Request.OPEN]


def _the_providers_report_drifts_where_a_call_is_unknown() -> None:
    unknown = Call.objects.get(status=Call.UNKNOWN)
    assert unknown.charged_at_hold
    alerts = DriftAlert.objects.all()
    assert {(one.day, one.model) for one in alerts} == {(unknown.started_at.date(), "sim-gpt-4o")}
    off = [one for one in drifts("simulator", MONTHS.last, MONTHS.this - timedelta(days=1)) if one.drifts]
    assert {one.day for one in off} == {unknown.started_at.date()}


def _it_ends_with_yesterday_and_is_there_once(filled: int) -> None:
    assert not Call.objects.filter(started_at__gte=midnight(TODAY)).exists()
    assert not Window.objects.filter(starts_at__gte=midnight(TODAY), settled_nano__gt=0).exclude(
        budget__period="month"
    )
    events = Event.objects.count()
    assert history.fill(COMMAND) == 0
    assert (Event.objects.count(), Call.objects.count()) == (events, filled)
    assert Event.objects.filter(action="demo.history_added").count() == 1


def _nothing_waits_to_be_published_because_of_it() -> None:
    assert not pending().changes


@pytest.mark.parametrize("today", ["2026-03-01", "2026-03-02", "2027-01-01", "2028-02-29", "2026-12-31"])
def test_the_story_can_be_told_on_any_day(today: str) -> None:
    months = Months.before(date.fromisoformat(today))
    calls = list(Story(months).calls())
    assert 2_000 < len(calls) < 6_000
    assert [call.at for call in calls] == sorted(call.at for call in calls)
    assert {call.at.date() for call in calls if call.feature == "backfill"} == {months.last.replace(day=12)}
    assert sum(call.status != OK for call in calls) < len(calls) / 50
    assert max(call.at.date() for call in calls) < months.today


def test_a_setting_that_is_none_of_its_words_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CONSOLE_DATA_DIR", str(tmp_path / "var"))
    for said, wanted in (("", "yes"), ("Yes", "yes"), ("No", "no"), ("0", "no"), ("empty", "empty")):
        monkeypatch.setenv(demo.SETTING, said)
        assert demo.wanted() == wanted
    monkeypatch.setenv(demo.SETTING, "perhaps")
    with pytest.raises(Refusal, match="CONSOLE_DEMO"):
        run()
