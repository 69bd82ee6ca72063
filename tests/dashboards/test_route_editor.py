"""The route editor and the page that says what would happen: what they show, save, refuse, and to whom."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.urls import reverse

from llmops.access.models import Membership
from llmops.audit.models import Event
from llmops.dashboards.routes.typed import Meant, of_form, of_route
from llmops.providers.models import Model, ModelConfig, Route, RouteTarget
from llmops.usage.models import Call
from tests.console.browser_forms import form_of
from tests.dashboards import seed
from tests.dashboards.conftest import signed_in

BIG, SMALL, SIM = "gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18", "sim-large"


def editor(slug: str = "") -> str:
    return reverse("dashboards:route_editor", args=[slug]) if slug else reverse("dashboards:route_add")


def typed(client: Any, shown: str = "chat", /, **changes: Any) -> dict[str, Any]:
    """The form as the page shows it, with changes; a list stands for rows."""
    page = client.get(editor(shown)).content.decode()
    return form_of(page) | changes


@pytest.mark.any_engine
def test_a_route_is_shown_as_it_is(alice):
    page = alice.get(editor("chat")).content.decode()
    assert "Where a request goes" in page and "Nothing is wrong" in page
    # One target, then two fallbacks in their order.
    assert (
        page.index(f'class="stop-name">{BIG}')
        < page.index(f'class="stop-name">{SMALL}')
        < page.index(f'class="stop-name">{SIM}')
    )
    assert "3 attempts in all, within 90 s" in page
    assert alice.get(editor("nothing")).status_code == 404


@pytest.mark.any_engine
def test_what_the_page_shows_changes_nothing_when_it_is_sent_back(alice):
    before = Event.objects.count()
    answer = alice.post(editor("chat"), typed(alice))
    assert answer.status_code == 302
    assert Event.objects.count() == before


def test_a_change_is_one_event_of_the_same_service(alice):
    before = Event.objects.count()
    form = typed(
        alice,
        **{
            "targets-model": [BIG, SMALL],
            "targets-weight": ["75", "25"],
            "fallbacks-model": [SIM, ""],
            "after-rate_limit-model": [SIM],
            "total_timeout_ms": "12.5",
            "description": "For chats",
        },
    )
    assert alice.post(editor("chat"), form).status_code == 302
    [event] = Event.objects.order_by("-pk")[: Event.objects.count() - before]
    assert event.action == "route.changed"
    route = Route.objects.get(slug="chat")
    assert route.total_timeout_ms == 12_500
    kept = of_route(route)
    assert kept.targets == [(BIG, "75"), (SMALL, "25")]
    assert kept.fallbacks == [SIM]
    assert kept.by_class == {"rate_limit": [SIM]}


@pytest.mark.any_engine
def test_a_new_route(alice):
    form = typed(alice, "", slug="fresh", **{"targets-model": [BIG], "targets-weight": [""]})
    answer = alice.post(editor(), form)
    assert answer["Location"] == editor("fresh")
    assert of_route(Route.objects.get(slug="fresh")).targets == [(BIG, "100")]
    again = alice.post(editor(), form)
    assert again.status_code == 400 and "already exists" in again.content.decode()


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"targets-weight": ["-1"]}, "whole number from 0 to 1000000"),
        ({"targets-weight": ["9" * 400]}, "whole number from 0 to 1000000"),
        ({"targets-model": ["nothing"]}, "There is no model &#x27;nothing&#x27;."),
        ({"fallbacks-model": [SIM, SIM]}, "named twice"),
        ({"attempts": "11"}, "From 1 to 10."),
        ({"attempts": "1.5"}, "Write a whole number."),
        ({"total_timeout_ms": "NaN"}, "Write a number of seconds"),
        ({"total_timeout_ms": "1e99"}, "From 0.1 to 3600."),
        ({"total_timeout_ms": "1e999999999"}, "number of seconds"),
        ({"cache_ttl_s": ""}, "Write a whole number."),
        ({"policies-name": ["nothing"]}, "there is no policy"),
        ({"context_strategy": "hope"}, "not a valid choice"),
        ({"description": "a\x00b"}, "control characters cannot be kept"),
        ({"targets-weight": ["9" * 5_000]}, "The weight of"),
        ({"targets-weight": ["0" * 5_000]}, "The weight of"),
        ({"targets-model": ["a\x00b"]}, "There is no model"),
        ({"larger_model": "a\x00b"}, "There is no model"),
        ({"policies-name": ["a\x00b"]}, "is not the name of a policy"),
    ],
)
def test_what_means_nothing_is_said_and_stays_as_typed(alice, change, said):
    before = of_route(Route.objects.get(slug="chat"))
    answer = alice.post(editor("chat"), typed(alice, **change))
    assert answer.status_code == 400
    assert said in answer.content.decode()
    assert of_route(Route.objects.get(slug="chat")) == before
    # Looking at the same never fails, and says something is wrong.
    looked = alice.post(reverse("dashboards:route_check"), typed(alice, **change))
    assert looked.status_code == 200


@pytest.mark.any_engine
def test_somebody_else_was_faster(alice):
    mine = typed(alice, description="mine")
    Route.objects.get(slug="chat").save()
    answer = alice.post(editor("chat"), mine)
    assert answer.status_code == 400 and "Somebody changed this route" in answer.content.decode()
    assert 'value="mine"' in answer.content.decode()


@pytest.mark.any_engine
def test_the_check_says_what_publishing_would(alice, stage):
    bare = Model.objects.create(slug="bare")
    bare.current = ModelConfig.objects.create(
        model=bare, version=1, provider=stage.openai, upstream_model="bare-2026-01-01", context_window=128_000,
        max_output_tokens=1_000, default_max_output_tokens=100, digest="0" * 64, created_by="test",
    )  # fmt: skip
    bare.save()
    Model.objects.filter(slug=SIM).update(archived_at=datetime.now(UTC))
    check = reverse("dashboards:route_check")
    form = typed(
        alice,
        **{"targets-model": [BIG, "bare"], "targets-weight": ["3", "1"], "context_strategy": "larger_model"},
    )
    before = Event.objects.count()
    told = alice.post(check, form).json()
    assert "Model bare has no price for input and output" in told["parts"]["problems"]
    assert f"leads to the model {SIM}, which is archived" in told["parts"]["problems"]
    assert "uses a larger model for inputs that are too long, but names none" in told["parts"]["problems"]
    assert "75 %" in told["parts"]["picture"] and "25 %" in told["parts"]["picture"]
    assert told["said"].startswith("2 problems and ")
    assert Event.objects.count() == before
    assert Route.objects.get(slug="chat").context_strategy == "refuse"


@pytest.mark.any_engine
def test_an_estimate_of_what_is_typed(alice, stage):
    now = datetime.now(UTC)
    seed.store([seed.make_call(stage, now - timedelta(minutes=5)) for _ in range(40)])
    form = typed(
        alice, cost="1", **{"targets-model": [SMALL], "targets-weight": ["1"], "fallbacks-model": [SIM]}
    )
    told = alice.post(reverse("dashboards:route_check"), form).json()
    live, then = 40 * (556 * 2_500 + 256 * 1_250 + 143 * 10_000), 40 * (556 * 150 + 256 * 75 + 143 * 600)
    assert "On the 40 calls of the last 7 days" in told["said"]
    assert seed_usd(then) in told["said"] and seed_usd(live) in told["said"]
    # What is wrong stays beside the buttons, whatever is said of costs.
    assert told["state"] == "Nothing is wrong."


def seed_usd(nano: int) -> str:
    from llmops.dashboards.formats import usd

    return usd(nano)


@pytest.mark.any_engine
def test_who_may_not_change_routes_may_look(bob, stage):
    page = bob.get(editor("chat")).content.decode()
    assert "You may look at routes, not change them." in page and '<fieldset class="whole" disabled>' in page
    assert bob.post(editor("chat"), {}).status_code == 403
    assert bob.post(reverse("dashboards:route_check"), {}).status_code == 403
    assert bob.get(editor()).status_code == 403
    charlie = signed_in(stage.charlie)
    assert charlie.get(editor("chat")).status_code == 403
    assert charlie.get(reverse("dashboards:whatif")).status_code == 403


@pytest.mark.any_engine
def test_a_form_is_read_as_the_page_wrote_it(stage):
    for route in Route.objects.all():
        first = of_route(route)
        meant = Meant(first)
        assert meant.problems == {}
        assert meant.changes()["total_timeout_ms"] == route.total_timeout_ms


# --- what if -----------------------------------------------------------------------------------------------------------


def asked(client: Any, **query: str) -> str:
    answer = client.get(reverse("dashboards:whatif"), query)
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.fixture
def calls(stage):
    now = datetime.now(UTC)
    found = [seed.make_call(stage, now - timedelta(minutes=5 + number % 50)) for number in range(100)]
    found += [seed.make_call(stage, now - timedelta(minutes=9), project=stage.search) for _ in range(10)]
    found += [seed.refused(stage, now - timedelta(minutes=9)) for _ in range(5)]
    return seed.store(found)


@pytest.mark.any_engine
def test_without_traffic_the_page_says_what_to_do(alice):
    assert "There was no traffic" in asked(alice)


def test_a_model_that_is_down(alice, calls):
    page = asked(alice, what=f"model:{BIG}", failure="down", days="1" if datetime.now(UTC).hour else "7")
    assert "no more calls fail than now" in page
    # All calls go to the first fallback, after two attempts at the target.
    rows = list(
        csv.DictReader(
            io.StringIO(
                alice.get(
                    reverse("dashboards:whatif_csv"), {"what": f"model:{BIG}", "failure": "down"}
                ).content.decode()
            )
        )
    )
    by_model = {row["model"]: row for row in rows}
    assert by_model[BIG]["calls_live"] == "110.00" and by_model[BIG]["calls_then"] == "0.00"
    assert by_model[SMALL]["calls_then"] == "110.00"
    assert by_model["(all)"]["attempts_live"] == "110.00" and by_model["(all)"]["failed_then"] == "0.00"
    # Cost of the live way is what was charged: the same prices.
    assert by_model["(all)"]["cost_live_usd"] == seed_exact(sum(call.cost_nano for call in calls))


def seed_exact(nano: int) -> str:
    return f"{nano // 10**9}.{nano % 10**9:09d}"


def test_a_whole_provider_and_what_is_drafted(alice, calls):
    page = asked(alice, what="provider:openai", failure="down", route="chat")
    assert "sim-large" in page and "Attempts added" in page
    RouteTarget.objects.filter(route__slug="chat", fallback=True).delete()
    # Live still has them.
    assert "no more calls fail" in asked(alice, what="provider:openai", failure="down")
    page = asked(alice, what="provider:openai", failure="down", by="draft")
    assert "110 of 110 calls fail" in page
    assert "Fails: no connection to gpt-4o-2024-08-06" in page


def test_figures_are_of_the_projects_that_one_may_see(bob, stage, calls):
    page = asked(bob, what="provider:openai", failure="down")
    assert "100 calls of the last 7 days" in page
    other = asked(bob, what="provider:openai", failure="down", project=str(stage.search.pk))
    assert "There was no traffic" in other
    Membership.objects.create(user=stage.bob, project=stage.search, role="operator")
    assert "110 calls" in asked(bob, what="provider:openai", failure="down")


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "query",
    [
        {"days": "8"},
        {"project": "x"},
        {"failure": "hope"},
        {"failure": "down"},
        {"failure": "down", "what": "planet:earth"},
        {"failure": "slow", "what": f"model:{BIG}", "factor": "nan"},
        {"failure": "errors", "what": f"model:{BIG}", "percent": "101"},
    ],
)
def test_what_cannot_be_understood_is_said(alice, stage, query):
    answer = alice.get(reverse("dashboards:whatif"), query)
    assert answer.status_code == 400
    assert "notice" in answer.content.decode()


@pytest.mark.any_engine
def test_numbers_of_questions_do_not_grow_with_calls(alice, stage, calls, django_assert_max_num_queries):
    with django_assert_max_num_queries(70):
        asked(alice, what="provider:openai", failure="down")
    assert Call.objects.count() > 100


@pytest.mark.any_engine
def test_text_in_a_file_is_no_formula(alice, stage):
    now = datetime.now(UTC)
    seed.store([seed.make_call(stage, now - timedelta(minutes=5), route="=1+1")])
    text = alice.get(reverse("dashboards:whatif_csv"), {"route": "=1+1"}).content.decode()
    assert "\r\n'=1+1," in text


def test_of_form_reads_no_more_rows_than_there_may_be():
    from django.http import QueryDict

    data = QueryDict(mutable=True)
    data.setlist("targets-model", ["m"] * 500)
    data.setlist("targets-weight", ["1"] * 10)
    assert len(of_form(data).targets) == 60
