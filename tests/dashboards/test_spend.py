"""Spend agrees with the calls, leads to them, says why it moved, and shows nobody what is not theirs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any
from unittest import mock
from uuid import UUID

import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from llmops.core.money import NANO
from llmops.dashboards import formats
from llmops.dashboards.spend.query import parse
from llmops.usage.models import Call
from llmops.usage.services import outcomes
from llmops.usage.services.outcomes import Told
from tests.cast import COMMAND
from tests.console.world import undone
from tests.dashboards import seed, spend_world
from tests.dashboards.conftest import signed_in
from tests.dashboards.reading import listed, text_of
from tests.dashboards.spend_world import NOW

pytestmark = pytest.mark.django_db
#: Queries of the page, sessions, roles and lists to choose from included. A rise is a decision, not an accident.
QUERIES = {"": 19, "?by=feature&range=last-month": 17, "?by=user": 21, "?by=day&compare=none": 15}
OCTOBER = (datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def booked(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimpleNamespace]:
    """Booked once, in a transaction that is taken back at the end; what a test adds is taken back before."""
    with django_db_blocker.unblock(), undone():
        with time_machine.travel(NOW, tick=False):
            stage = seed.fill()
            spend_world.months(stage, tmp_path_factory.mktemp("journals"), now=NOW, scale=0.2)
        yield stage


@pytest.fixture
def stage(booked: SimpleNamespace, db: None) -> SimpleNamespace:
    return booked


@pytest.fixture
def months(stage: SimpleNamespace) -> Iterator[SimpleNamespace]:
    with time_machine.travel(NOW, tick=False):
        yield stage


def nano(exact: str) -> int:
    whole, _, rest = exact.replace("$", "").replace("\u2009", "").partition(".")
    return int(whole) * NANO + int(rest.ljust(9, "0"))


def shown(row: Any) -> float:
    return float(row.spend.text.replace("$", "").replace("\u2009", ""))


def costs(by: str, start: datetime, end: datetime) -> Counter[str]:
    """What calls of a span cost, by the text of a column, added up here."""
    found: Counter[str] = Counter()
    for call in Call.objects.filter(started_at__gte=start, started_at__lt=end):
        values = call.tags if by == "tag" else [getattr(call, by)]
        for value in values:
            found[value.date().isoformat() if isinstance(value, datetime) else str(value)] += call.cost_nano
    return found


def test_every_figure_is_the_sum_of_its_calls_and_leads_to_them(
    months: SimpleNamespace, alice: Client
) -> None:
    total = sum(costs("feature", *OCTOBER).values())
    projects = {str(project.pk): project.slug for project in (months.support, months.search)}
    keys = {str(key.pk): f"{slug} / {key.name}" for slug, key in months.keys.items()}
    centres = {
        slug: project.cost_center
        for slug, project in (("support", months.support), ("search", months.search))
    }
    named: dict[str, Any] = {
        "project": ("project_id", projects.get),
        "key": ("key_id", keys.get),
        "cost_centre": ("project_id", lambda value: centres[projects[value]]),
        "user": ("user_digest", lambda value: value),
        "feature": ("feature", lambda value: value or "Without a feature"),
        "model": ("model", lambda value: value or "Without a model"),
        "route": ("route", lambda value: value),
        "tag": ("tag", lambda value: value),
        "day": ("started_at", lambda value: f"{date.fromisoformat(value):%a} {date.fromisoformat(value).day} Oct 2026"),
    }  # fmt: skip
    for by, (column, name_of) in named.items():
        view = alice.get(f"/spend/?range=last-month&by={by}").context["view"]
        expected: Counter[str] = Counter()
        for value, cost in costs(column, *OCTOBER).items():
            if value or by != "user":
                expected[name_of(value)] += cost
        assert {row.name: nano(row.spend.exact) for row in view.rows} == dict(expected), by
        assert nano(view.total.spend.exact) == total
        rest = nano(view.rest.spend.exact) if view.rest else 0
        if by != "tag":
            assert sum(expected.values()) + rest == total
            column_sum = sum(shown(row) for row in view.rows) + (shown(view.rest) if view.rest else 0)
            assert round(column_sum, 9) == shown(view.total), "the column adds up as it is shown"
        for row in [*view.rows[:2], view.rows[-1]]:
            calls = Call.objects.filter(pk__in=listed(alice, row.href))
            assert sum(call.cost_nano for call in calls) == nano(row.spend.exact), (by, row.name)
            assert formats.count(len(calls)) == row.calls
            refused = sum(call.status == Call.REFUSED for call in calls)
            assert (formats.count(refused) if refused else "") == row.refused
            if len(calls) > refused:
                each = nano(row.spend.exact) / (len(calls) - refused) / NANO
                decimals = len(row.per_call.partition(".")[2])
                assert abs(float(row.per_call.lstrip("$")) - each) <= 10**-decimals, (
                    "as the columns beside it say"
                )
    assert (
        sum(Call.objects.filter(pk__in=listed(alice, view.total.href)).values_list("cost_nano", flat=True))
        == total
    )


def test_an_open_month_is_compared_with_the_same_hours_of_the_last(
    months: SimpleNamespace, alice: Client
) -> None:
    view = alice.get("/spend/").context["view"]
    now = sum(costs("model", datetime(2026, 11, 1, tzinfo=UTC), NOW).values())
    until = datetime(2026, 10, 21, 15, tzinfo=UTC)
    before = sum(costs("model", OCTOBER[0], until).values())
    assert nano(view.total.spend.exact) == now
    assert nano(view.movers_total.before.exact) == before
    change = (
        int(view.movers_total.change.exact.replace("$", "").replace(".", "").replace("-", "")) if now else 0
    )
    assert change
    assert view.tiles[1].label == "Forecast to 30 November"
    assert view.chart_data["likely"][-1] >= view.chart_data["low"][-1] >= now
    assert len(view.chart_data["days"]) == 30 and len(view.chart_data["spend"]) == 30


def test_finance_finds_what_grew_most_and_why(months: SimpleNamespace, alice: Client) -> None:
    answer = alice.get("/spend/?range=last-month&by=feature")
    view = answer.context["view"]
    assert re.search(r"spent in October 2026, \$[\d.]+ more than in September 2026", view.headline)
    assert view.because.startswith("Grew most: feature draft (+$")
    assert "Mostly dearer models: gpt-4o-2024-08-06 from" in view.because
    why = {mover.name: mover.why for mover in view.movers}
    assert why["triage"].startswith("Mostly longer calls: ")
    assert why["translate"] == "Nothing of it was spent before"
    assert why["search"].startswith("Mostly fewer calls: ")
    for mover in [*view.movers, view.movers_total]:
        parts = [part.text.replace("−", "-").replace("$", "").replace("+", "") for part in mover.parts]
        change = mover.change.text.replace("−", "-").replace("$", "").replace("+", "")
        assert round(sum(map(float, parts)), 9) == float(change), mover.name
        assert ", ".join(f"{name} {part.text}" for name, part in mover.reasons) in text_of(answer)
    by_percent = alice.get("/spend/?range=last-month&by=feature&movers=percent").context["view"]
    assert by_percent.movers[0].name == "translate" and by_percent.movers[0].percent == "new"
    for mover in view.movers[:3]:
        calls = Call.objects.filter(pk__in=listed(alice, mover.before_href))
        assert sum(call.cost_nano for call in calls) == nano(mover.before.exact)


def test_savings_are_what_lists_say(months: SimpleNamespace, alice: Client) -> None:
    view = alice.get("/spend/?range=last-month").context["view"]
    answers, prompts, routing = (nano(step.amount.exact.lstrip("-")) for step in view.savings)
    calls = Call.objects.filter(started_at__gte=OCTOBER[0], started_at__lt=OCTOBER[1])
    assert answers == sum(call.saved_nano for call in calls) > 0
    cheaper = {slug: prices["input"] - prices.get("cached_input", 0) for slug, prices in seed.PRICES.items()}
    exact = sum(call.cached_input_tokens * cheaper.get(call.model, 0) for call in calls) / 10**6
    assert 0 <= exact - prompts < 100
    large = seed.PRICES[spend_world.LARGE]
    chosen = calls.filter(route="chat", model=spend_world.SMALL)
    dearer = sum(
        (call.input_tokens - call.cached_input_tokens) * large["input"]
        + call.cached_input_tokens * large["cached_input"]
        + call.output_tokens * large["output"]
        for call in chosen
    ) / 10**6 - sum(call.cost_nano for call in chosen)
    # Each call was rounded up, the list price of a day's tokens once.
    assert abs(routing - dearer) <= len(chosen) + 100


def test_a_project_sees_its_own_spend_and_no_other(months: SimpleNamespace, bob: Client) -> None:
    own = costs("project_id", *OCTOBER)[str(months.support.pk)]
    for by in ("project", "feature", "user", "tag", "model", "key", "cost_centre"):
        view = bob.get(f"/spend/?range=last-month&by={by}").context["view"]
        assert nano(view.total.spend.exact) == own
        assert not {"search", "rank", "CC-210"} & {row.name for row in view.rows}
    foreign = bob.get(f"/spend/?range=last-month&project={months.search.pk}")
    assert foreign.context["view"].rows == []
    assert "CC-210" not in text_of(bob.get("/spend/?cost_centre=CC-210"))
    assert bob.get("/spend/?cost_centre=CC-210").context["view"].rows == []
    assert listed(bob, "/calls/?range=30d&cost_centre=CC-210") == []
    assert signed_in(months.charlie).get("/spend/").status_code == 403
    assert Client().get("/spend/").status_code == 302


def test_filters_narrow_and_what_cannot_be_understood_is_said(months: SimpleNamespace, alice: Client) -> None:
    narrowed = alice.get(
        f"/spend/?range=last-month&by=model&feature=draft&project={months.support.pk}&route=chat"
    ).context["view"]
    assert {row.name for row in narrowed.rows} <= {spend_world.LARGE, spend_world.SMALL, "Without a model"}
    assert nano(narrowed.total.spend.exact) == costs("feature", *OCTOBER)["draft"]
    nameless = alice.get("/spend/?range=last-month&feature=(none)").context["view"]
    assert nano(nameless.total.spend.exact) == costs("feature", *OCTOBER)[""]
    odd = alice.get(
        "/spend/?range=never&by=mood&compare=x&project=1&from=yesterday&movers=z&model=" + 70 * "m"
    )
    assert odd.status_code == 200
    said = text_of(odd)
    for name in ("range", "by", "compare", "project", "from", "movers", "model"):
        assert f" {name}: " in said, name
    odd = alice.get("/spend/?by=user&model=gpt")
    assert "figures by end user are kept by project alone" in text_of(odd)
    assert alice.get("/spend/?from=2026-11-09&to=2026-11-01").status_code == 200
    quiet = alice.get("/spend/?from=2026-01-09&to=2026-01-09")
    assert "Nothing was spent in the day of 9 January 2026" in text_of(quiet)


def test_a_page_asks_a_fixed_number_of_questions(months: SimpleNamespace, alice: Client) -> None:
    found = {}
    for address in QUERIES:
        with CaptureQueriesContext(connection) as asked:
            assert alice.get(f"/spend/{address}").status_code == 200
        found[address] = len(asked)
    assert found == QUERIES


def test_what_a_call_brought_stands_beside_what_it_cost(months: SimpleNamespace, alice: Client) -> None:
    calls = list(
        Call.objects.filter(
            feature="draft", status="ok", started_at__gte=OCTOBER[0], started_at__lt=OCTOBER[1]
        )
    )
    told = [Told(call.pk, "converted", 2 * NANO, note="by phone") for call in calls[:4]]
    # Ids of these calls were made today, the calls began before: look them up by id alone.
    with mock.patch.object(
        outcomes, "_calls", lambda ids, *_: {call.pk: call for call in calls if call.pk in ids}
    ):
        assert outcomes.report_outcomes(COMMAND, told, project_ids=None) == ["recorded"] * 4
    [unit] = alice.get("/spend/?range=last-month").context["view"].units
    cost = costs("feature", *OCTOBER)["draft"]
    assert (unit.name, unit.kind, unit.outcomes, unit.value) == ("draft", "converted", "4", "$8.00")
    assert nano(unit.spend.exact) == cost and nano(unit.cost_each.exact) == cost // 4
    assert unit.rate == formats.percent(4, int(unit.served.replace("\u2009", "")))
    assert unit.returned == "×\u2009" + f"{8 * NANO / cost:.1f}"
    assert sum(call.cost_nano for call in Call.objects.filter(pk__in=listed(alice, unit.href))) == cost
    story = text_of(alice.get(f"/calls/{calls[0].pk}/"))
    assert "Brought converted $2.00" in story and "by phone" in story
    assert alice.get("/spend/").context["view"].units == []


def test_tags_overlap_and_say_so(months: SimpleNamespace, alice: Client) -> None:
    answer = alice.get("/spend/?range=last-month&by=tag")
    view = answer.context["view"]
    assert view.movers and view.movers_total is None and view.rest is None
    assert "under each of them" in text_of(answer) and "beyond the largest" not in text_of(answer)
    # What each model cost is not kept by tag, so nothing is said of models.
    assert {mover.parts[2].text for mover in view.movers} == {"–"}
    users = alice.get("/spend/?range=last-month&by=user").context["view"]
    assert nano(users.movers_total.now.exact) <= nano(users.total.spend.exact)


def test_ranges_and_comparisons() -> None:
    def spans(**given: str) -> tuple[str, ...]:
        query = parse(given, now=NOW)
        parts = [query.span.start, query.span.end]
        parts += [query.before.start, query.before.end] if query.before else []
        return tuple(f"{at:%m-%d %H}" for at in parts)

    assert spans() == ("11-01 00", "11-22 00", "10-01 00", "10-21 15")
    assert spans(range="last-month") == ("10-01 00", "11-01 00", "09-01 00", "10-01 00")
    assert spans(range="quarter") == ("10-01 00", "11-22 00", "07-01 00", "08-21 15")
    assert spans(range="7d") == ("11-15 00", "11-22 00", "11-08 00", "11-14 15")
    assert spans(compare="none") == ("11-01 00", "11-22 00")
    custom = {"from": "2026-03-31", "to": "2026-03-31"}
    assert spans(**custom, compare="month") == ("03-31 00", "04-01 00", "02-28 00", "03-01 00")
    assert spans(**custom) == ("03-31 00", "04-01 00", "03-30 00", "03-31 00")
    # The 30th of March is compared with a February that is over.
    late = parse({}, now=datetime(2026, 3, 30, 9, tzinfo=UTC))
    assert late.before is not None and late.before.end == datetime(2026, 3, 1, tzinfo=UTC)
    for address in ({}, {"range": "30d", "by": "tag"}, custom, {"compare": "before", "movers": "percent"}):
        again = dict(pair.split("=") for pair in parse(address, now=NOW).query()[1:].split("&") if pair)
        assert parse(again, now=NOW) == parse(address, now=NOW)
    assert isinstance(parse({"project": str(UUID(int=1))}, now=NOW).project, UUID)
