"""What the pages show, to whom, from how many queries, and whether a number leads to the calls behind it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from llmops.access.models import Membership
from llmops.audit.models import Event
from llmops.core.ids import uuid7
from llmops.core.verdicts import Finding, Verdict
from llmops.usage.models import Call, Job, KeptObject, LatencyRollup, Rollup
from tests.dashboards import seed
from tests.dashboards.conftest import signed_in

pytestmark = pytest.mark.django_db
OWN_PAGES = ("/", "/calls/", "/jobs/")
#: Queries of each page with the cast's data, sessions and roles included. A rise is a decision, not an accident.
QUERIES = {"/": 31, "/live/": 31, "/calls/": 10, "/calls/<id>/": 14, "/jobs/": 3, "/jobs/live/": 3}


@pytest.fixture
def still() -> Iterator[None]:
    """The clock stands: figures do not grow old by themselves."""
    with time_machine.travel(datetime(2026, 11, 21, 14, 37, 22, tzinfo=UTC), tick=False):
        yield


@pytest.fixture
def day(stage: SimpleNamespace) -> list[Call]:
    """A day of calls in both projects, up to a moment ago."""
    now = datetime.now(UTC)
    calls = seed.traffic(stage, until=now - timedelta(minutes=1), hours=5, per_hour=40)
    return seed.store([*calls, seed.unknown(stage, now - timedelta(seconds=20))])


def text_of(answer: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))


def listed(client: Client, address: str) -> list[str]:
    """Ids of every call that a list shows, over all of its pages."""
    found: list[str] = []
    while address:
        page = client.get(address)
        assert page.status_code == 200, address
        assert 'class="notice' not in page.content.decode(), text_of(page)[:500]
        found += re.findall(r'data-key="([0-9a-f-]{36})"', page.content.decode())
        older = page.context["older"]
        address = older
    return found


# --- who gets in ---------------------------------------------------------------------------------------------------


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "address", [*OWN_PAGES, "/calls/01a1fce7-74a2-73ee-a145-f499cb5a79fb/", "/calls/?status=error"]
)
def test_strangers_are_sent_to_sign_in_and_come_back(db: None, address: str) -> None:
    answer = Client().get(address)
    assert answer.status_code == 302
    place = urlsplit(answer["location"])
    assert place.path == "/admin/login/"
    assert place.query == f"next={address.replace('?', '%3F').replace('=', '%3D')}"


def test_signing_in_leads_to_where_one_wanted_to_go() -> None:
    seed.person("dora", password=seed.PASSWORD)
    client = Client()
    for wanted, lands in (
        ("/calls/?status=error", "/calls/?status=error"),
        ("", "/"),
        ("//evil.example/", "/"),
    ):
        form = client.get("/admin/login/", {"next": wanted} if wanted else {})
        assert form.status_code == 200
        given = {"username": "dora", "password": seed.PASSWORD, "next": form.context["next"]}
        answer = client.post("/admin/login/", given)
        # A foreign place is not followed: Django's own landing place redirects to Overview.
        assert answer.status_code == 302
        assert urlsplit(answer["location"]).netloc == ""
        if wanted != "//evil.example/":
            assert answer["location"] == lands
        client.post("/admin/logout/")


@pytest.mark.any_engine
def test_live_addresses_tell_strangers_instead_of_redirecting(db: None) -> None:
    for address in ("/live/", "/jobs/live/"):
        assert Client().get(address).status_code == 401


def test_someone_without_a_role_sees_no_figure(stage: SimpleNamespace, day: list[Call]) -> None:
    charlie = signed_in(stage.charlie)
    page = charlie.get("/")
    assert "nothing here that you may see yet" in text_of(page)
    assert "gpt-4o" not in text_of(page)
    assert charlie.get("/calls/").status_code == 403
    assert charlie.get("/jobs/").status_code == 403
    assert charlie.get("/jobs/live/").status_code == 403
    assert charlie.get(f"/calls/{day[0].pk}/").status_code == 404
    assert charlie.get("/admin/").status_code == 302


def test_a_project_sees_its_own_calls_and_no_others(
    stage: SimpleNamespace, bob: Client, day: list[Call]
) -> None:
    mine = {str(call.pk) for call in day if call.project_id == stage.support.pk}
    theirs = next(call for call in day if call.project_id == stage.search.pk)
    assert set(listed(bob, "/calls/?range=24h")) == mine
    assert listed(bob, f"/calls/?range=24h&project={stage.search.pk}") == []
    assert listed(bob, f"/calls/?q={theirs.request_id}") == []
    # A foreign call's own id in the search does not even redirect.
    assert bob.get(f"/calls/?q={theirs.pk}").status_code == 200
    assert bob.get(f"/calls/{theirs.pk}/").status_code == 404
    assert bob.get(f"/calls/{uuid7()}/").status_code == 404
    page = bob.get("/?range=24h")
    assert page.context["view"].tiles[0].figures[0].text == f"{len(mine)}"
    assert "ranker" not in text_of(page)
    foreign = bob.get(f"/?range=24h&project={stage.search.pk}")
    assert foreign.context["view"].tiles[0].figures[0].text == "0"


def test_budgets_show_to_those_who_may_see_them(stage: SimpleNamespace, bob: Client, alice: Client) -> None:
    seed.store([seed.make_call(stage, datetime.now(UTC))])
    seed.budget("support-month", "50", "31", "1", value="support", project=stage.support)
    seed.budget("search-day", "5", "4", value="search", project=stage.search)
    seed.budget("everyone", "900", "35", scope="organisation")
    assert [gauge.name for gauge in bob.get("/").context["view"].gauges] == ["support-month"]
    assert [gauge.name for gauge in alice.get("/").context["view"].gauges] == [
        "search-day",
        "support-month",
        "everyone",
    ]
    chosen = alice.get(f"/?project={stage.support.pk}").context["view"].gauges
    assert [gauge.name for gauge in chosen] == ["support-month", "everyone"]


# --- figures ---------------------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_ledger(alice: Client, day: list[Call]) -> None:
    view = alice.get("/?range=24h").context["view"]
    counts = Counter(call.status for call in day)
    failed = counts[Call.ERROR] + counts[Call.INTERRUPTED] + counts[Call.UNKNOWN]
    assert sum(view.chart_data["calls"]) == len(day)
    assert sum(view.chart_data["failed"]) == failed
    assert sum(view.chart_data["spend"]) == sum(call.cost_nano for call in day)
    for dimension, groups in (("route", view.routes), ("model", view.models)):
        for group in groups:
            name = "" if group.nameless else group.name
            of_group = [call for call in day if getattr(call, dimension) == name]
            assert group.calls == len(of_group)
            assert group.cost_nano == sum(call.cost_nano for call in of_group)
            answered = sorted(call.total_us for call in of_group if call.status == Call.OK)
            if answered:
                assert group.p50_us == pytest.approx(answered[(len(answered) - 1) // 2], rel=0.02)
        assert sum(group.calls for group in groups) == len(day), "the table adds up to the tile"
        assert sum(group.cost_nano for group in groups) == sum(view.chart_data["spend"])
        assert any(group.nameless for group in groups) is any(not getattr(call, dimension) for call in day)
        assert len({len(group.cost.partition(".")[2]) for group in groups}) == 1
    errors = Counter((call.error_code) for call in day if call.error_code)
    assert {error.code: error.calls for error in view.errors} == errors


def test_calls_without_a_route_or_model_are_told_of_beside_the_others(
    alice: Client, stage: SimpleNamespace
) -> None:
    now = datetime.now(UTC)
    nameless: dict[str, Any] = {"route": "", "model": "", "cost_nano": 0}
    refused = {"status": Call.REFUSED, "error_code": "rate_limit_exceeded", "http_status": 429}
    seed.store(
        [
            seed.make_call(stage, now - timedelta(minutes=5)),
            seed.make_call(
                stage, now - timedelta(minutes=4), endpoint="chat.completions", **nameless, **refused
            ),
            # An errand is no call of the tile, and what it costs is spent.
            seed.make_call(
                stage, now - timedelta(minutes=3), endpoint="files", **(nameless | {"cost_nano": 7_000})
            ),
        ]
    )
    answer = alice.get("/?range=24h")
    view = answer.context["view"]
    tiles = {tile.label: tile for tile in view.tiles}
    assert tiles["Calls"].figures[0].text == "2"
    for what, groups in (("route", view.routes), ("model", view.models)):
        assert [group.calls for group in groups] == [1, 1]
        assert (groups[-1].name, groups[-1].cost_nano) == (f"Without a {what}", 7_000)
        assert f"Without a {what}" in text_of(answer)
        assert len(listed(alice, groups[-1].href)) == 2, "with the errand"
    assert sum(group.cost_nano for group in view.models) == sum(view.chart_data["spend"])


def test_every_number_leads_to_exactly_the_calls_behind_it(alice: Client, day: list[Call]) -> None:
    view = alice.get("/?range=24h").context["view"]
    tiles = {tile.label: tile for tile in view.tiles}
    assert len(listed(alice, tiles["Calls"].href)) == len(day)
    assert len(listed(alice, tiles["Error rate"].href)) == sum(view.chart_data["failed"])
    went_elsewhere = {str(call.pk) for call in day if call.fallback_count}
    assert set(listed(alice, tiles["Fallback rate"].href)) == went_elsewhere
    for group in (*view.routes, *view.models):
        assert len(listed(alice, group.href)) == group.calls
        assert len(listed(alice, group.failed_href)) == group.failed
    for error in view.errors:
        assert len(listed(alice, error.href)) == error.calls
    for row in view.charts[0].rows:
        assert len(listed(alice, row.href)) == int(row.cells[0])
    for finding in view.findings:
        if finding.href.startswith("/"):
            assert listed(alice, finding.href)


def test_numbers_of_a_time_of_ones_own_lead_to_its_whole_buckets(
    alice: Client, stage: SimpleNamespace
) -> None:
    at = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)
    seed.store(seed.make_call(stage, at + timedelta(seconds=20 * n)) for n in range(6))
    page = alice.get("/?from=2026-11-20T12:00:40Z&to=2026-11-20T12:01:20Z")
    shown = page.context["view"].tiles[0]
    assert shown.figures[0].text == "5"
    assert len(listed(alice, shown.href)) == 5


def test_the_period_before_is_the_one_right_before(alice: Client, stage: SimpleNamespace) -> None:
    now = datetime.now(UTC)
    seed.store(
        [
            *(seed.make_call(stage, now - timedelta(minutes=90, seconds=n)) for n in range(4)),
            *(seed.make_call(stage, now - timedelta(minutes=10, seconds=n)) for n in range(6)),
            seed.make_call(stage, now - timedelta(hours=4)),
        ]
    )
    calls = alice.get("/").context["view"].tiles[0]
    assert (calls.figures[0].text, calls.change) == ("6", "+50\u2009%")
    assert "no calls in" in alice.get("/?range=24h").context["view"].tiles[0].note


def test_a_range_that_is_asked_wrongly_is_said_and_the_page_opens(alice: Client, day: list[Call]) -> None:
    for address in (
        "/?range=2y",
        "/?from=x",
        "/?project=1",
        "/calls/?status=great",
        "/calls/?after=nonsense",
    ):
        page = alice.get(address)
        assert page.status_code == 200
        assert "This filter was left out" in text_of(page)


def test_lists_page_by_key_without_loss_or_doubles(alice: Client, stage: SimpleNamespace) -> None:
    at = datetime.now(UTC) - timedelta(minutes=5)
    # All at the same instant: only the id tells them apart.
    calls = seed.store(seed.make_call(stage, at) for _ in range(120))
    found = listed(alice, "/calls/")
    assert sorted(found) == sorted(str(call.pk) for call in calls)
    assert len(found) == len(set(found))


def test_a_call_without_a_model_says_what_it_was(alice: Client, stage: SimpleNamespace) -> None:
    at = datetime.now(UTC) - timedelta(minutes=5)
    seed.store([seed.make_call(stage, at, endpoint="files.create", route="", model="", model_version=None)])
    assert ">files.create</code>" in alice.get("/calls/").content.decode()


def test_a_call_is_found_by_either_of_its_ids(alice: Client, stage: SimpleNamespace) -> None:
    old = datetime.now(UTC) - timedelta(days=60)
    call, _ = seed.store([seed.make_call(stage, old), seed.make_call(stage, old)])
    assert listed(alice, f"/calls/?q={call.request_id}") == [str(call.pk)]
    assert alice.get(f"/calls/?q={call.pk}")["location"] == f"/calls/{call.pk}/"


# --- one call's story ------------------------------------------------------------------------------------------------


def test_the_story_of_a_call_that_failed_over_twice(alice: Client, stage: SimpleNamespace) -> None:
    window = seed.budget("support-month", "50", "31", value="support", project=stage.support)
    charge = {"window": window.pk, "held": 12_000_000, "cost": 7_206_000}
    (call,) = seed.store([seed.failed_over_twice(stage, datetime.now(UTC), charges=[charge])])
    page = alice.get(f"/calls/{call.pk}/")
    story, text = page.context["story"], text_of(page)
    assert [lane.model for lane in story.lanes] == [
        "gpt-4o-2024-08-06", "gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18", "sim-large",
    ]  # fmt: skip
    assert [lane.failed for lane in story.lanes] == [True, True, True, False]
    assert "sim-large answered in" in text
    assert "4 attempts, 1 retry, 2 fallbacks" in text
    assert "Tried again after status 429" in text
    assert text.count("Simulator") >= 2
    # 556 at $3, 256 at $0.30, 143 at $15 for a million; the rest went to attempts that failed and were billed.
    assert "$0.0038898" not in text
    assert sum(row.cost_nano for row in story.tokens) == 556 * 3_000 + 256 * 300 + 143 * 15_000
    assert story.other_cost_nano == 7_206_000 - (556 * 3_000 + 256 * 300 + 143 * 15_000)
    assert "$0.007206" in text
    assert [(charge.budget, charge.held_nano, charge.cost_nano) for charge in story.charges] == [
        ("support-month", 12_000_000, 7_206_000)
    ]
    for label in ("project", "key", "route", "model", "revision"):
        assert alice.get(story.links[label]).status_code == 200, label
    assert str(call.pk) in listed(alice, story.neighbours)


def test_a_call_of_one_attempt_costs_what_its_tokens_cost(alice: Client, stage: SimpleNamespace) -> None:
    (call,) = seed.store([seed.make_call(stage, datetime.now(UTC))])
    story = alice.get(f"/calls/{call.pk}/").context["story"]
    assert story.other_cost_nano == 0
    assert sum(part.microseconds for part in story.parts) == call.total_us


def test_what_a_call_heard_and_made_is_priced_class_by_class_in_its_tier(
    alice: Client, stage: SimpleNamespace
) -> None:
    prices = {
        "audio_input": 40_000, "image_input": 5_000, "audio_output": 80_000, "image_output": 50_000, "seconds": 100_000,
        "characters": 15_000, "images": 40_000_000, "input_priority": 4_250, "output_priority": 17_000,
    }  # fmt: skip
    number = seed.republished("gpt-4o-2024-08-06", prices)
    used = {
        "revision": number, "input_tokens": 100, "cached_input_tokens": 0, "output_tokens": 60, "audio_input_tokens": 30,
        "image_input_tokens": 20, "audio_output_tokens": 25, "image_output_tokens": 15, "characters": 7, "seconds": 8,
        "images": 2,
    }  # fmt: skip
    media = 30 * 40_000 + 20 * 5_000 + 25 * 80_000 + 15 * 50_000 + 7 * 15_000 + 8 * 100_000 + 2 * 40_000_000
    plain, dear = media + 50 * 2_500 + 20 * 10_000, media + 50 * 4_250 + 20 * 17_000
    now = datetime.now(UTC)
    standard, priority = seed.store(
        [
            seed.make_call(stage, now, cost_nano=plain, **used),
            seed.make_call(stage, now, cost_nano=dear, service_tier="priority", **used),
        ]
    )
    for call, cost in ((standard, plain), (priority, dear)):
        page = alice.get(f"/calls/{call.pk}/")
        story, text = page.context["story"], text_of(page)
        assert sum(row.cost_nano for row in story.tokens) == cost
        assert story.other_cost_nano == 0
        assert ("service tier priority" in text) is (call is priority)
        for words in ("Input, audio 30", "Output, images 15", "Characters spoken 7", "Seconds of audio heard 8", "Images made 2"):  # fmt: skip
            assert words in text
        assert "160 tokens" in text


def test_what_is_unknown_is_explained(alice: Client, stage: SimpleNamespace) -> None:
    now = datetime.now(UTC)
    unknown, interrupted, refused = seed.store(
        [seed.unknown(stage, now), seed.interrupted(stage, now), seed.refused(stage, now)]
    )
    said = text_of(alice.get(f"/calls/{unknown.pk}/"))
    assert "cannot be known from here" in said
    assert "Charged whole, because the outcome is unknown" in said
    assert "Not known: the process died." in said
    assert "got no [DONE]" in text_of(alice.get(f"/calls/{interrupted.pk}/"))
    said = text_of(alice.get(f"/calls/{refused.pk}/"))
    assert "Nothing went to a provider" in said
    assert "support-month allows no more until" in said


def test_what_is_unknown_names_what_the_provider_keeps_of_it(alice: Client, stage: SimpleNamespace) -> None:
    now = datetime.now(UTC)
    unknown, other, known = seed.store(
        [seed.unknown(stage, now), seed.unknown(stage, now), seed.make_call(stage, now)]
    )
    for call, name in ((unknown, "resp_kept_of_it"), (known, "resp_of_a_known_one")):
        KeptObject.objects.create(
            object_id=name, provider="openai", kind="response", project_id=call.project_id, key_id=call.key_id,
            made_at=now + timedelta(seconds=1), details={"call": str(call.pk)},
        )  # fmt: skip
    said = text_of(alice.get(f"/calls/{unknown.pk}/"))
    assert "Kept at the provider as resp_kept_of_it" in said
    for call in (other, known):
        assert "Kept at the provider" not in text_of(alice.get(f"/calls/{call.pk}/"))


def test_an_errand_is_told_as_one(alice: Client, stage: SimpleNamespace) -> None:
    [errand] = seed.store(
        [
            seed.make_call(
                stage, datetime.now(UTC), endpoint="files.list", model="", provider="openai", cost_nano=0
            )
        ]
    )
    assert "openai answered in" in text_of(alice.get(f"/calls/{errand.pk}/"))


def test_verdicts_of_policies_are_told_in_words(alice: Client, stage: SimpleNamespace) -> None:
    verdicts = [
        Verdict(
            "privacy", 3, "before", "personal_data", "redact", [Finding("email", "messages[0].content", 2)]
        ),
        Verdict("house-rules", 1, "after", "deny", "block", [Finding("rivals")], "after 1 more attempt"),
        Verdict("old", 2, "after", "a kind that is no more", "allow", [Finding("x")]),
    ]
    (call,) = seed.store([seed.make_call(stage, datetime.now(UTC), verdicts=msgspec.to_builtins(verdicts))])
    page = alice.get(f"/calls/{call.pk}/")
    rows, text = page.context["story"].verdicts, text_of(page)
    assert [(one.policy, one.version, one.stopped) for one in rows] == [
        ("privacy", 3, False),
        ("house-rules", 1, True),
        ("old", 2, False),
    ]
    assert "email twice at messages[0].content" in text
    assert "taken out before the provider saw it" in text
    assert "The answer was kept back" in text and "(after 1 more attempt)" in text
    told = alice.get(f"/api/v1/calls/{call.pk}/").json()
    assert told["verdicts"][0] == msgspec.to_builtins(verdicts[0])


def test_a_story_survives_what_it_spoke_of(alice: Client, stage: SimpleNamespace) -> None:
    odd = seed.make_call(
        stage, datetime.now(UTC), project_id=uuid7(), key_id=uuid7(), route="gone", model="gone", provider="gone",
        revision=999, cost_nano=1, charges=[{"window": 10**9, "held": 1, "cost": 1}, {"budget": str(uuid7()), "cost": 1}],
        attempts=[seed.attempt(1, "gone", credential="not-an-id", status=200)],
    )  # fmt: skip
    seed.store([odd])
    page = alice.get(f"/calls/{odd.pk}/")
    assert page.status_code == 200
    assert "deleted since" in text_of(page)


def test_links_show_to_those_who_may_follow_them(stage: SimpleNamespace) -> None:
    (call,) = seed.store([seed.make_call(stage, datetime.now(UTC))])
    Membership.objects.create(user=stage.charlie, project=stage.support, role="finance")
    story = signed_in(stage.charlie).get(f"/calls/{call.pk}/").context["story"]
    # Finance sees models and routes, but neither keys nor revisions.
    assert story.links["model"]
    assert story.links["route"]
    assert (story.links["key"], story.links["revision"]) == ("", "")


# --- simulator -------------------------------------------------------------------------------------------------------


def test_simulated_answers_are_marked_everywhere(alice: Client, stage: SimpleNamespace) -> None:
    now = datetime.now(UTC)
    real, simulated = seed.store([seed.make_call(stage, now), seed.failed_over_twice(stage, now)])
    view = alice.get("/").context["view"]
    assert "sim-large" in view.simulated
    assert {group.name: group.simulated for group in view.models} == {
        "gpt-4o-2024-08-06": False, "sim-large": True,
    }  # fmt: skip
    rows = {row.id: row.simulated for row in view.recent}
    assert rows == {real.pk: False, simulated.pk: True}
    assert alice.get(f"/calls/{simulated.pk}/").context["story"].simulated
    assert not alice.get(f"/calls/{real.pk}/").context["story"].simulated


# --- live ------------------------------------------------------------------------------------------------------------


def test_a_live_page_hears_of_a_new_call_and_of_nothing_else(
    still: None, alice: Client, stage: SimpleNamespace
) -> None:
    now = datetime.now(UTC) - timedelta(minutes=3)
    seed.store([seed.make_call(stage, now)])
    marker = alice.get("/").context["marker"]
    assert alice.get("/live/", {"marker": marker}).status_code == 204
    (fresh,) = seed.store([seed.make_call(stage, datetime.now(UTC))])
    answer = alice.get("/live/", {"marker": marker})
    assert answer.status_code == 200
    told = answer.json()
    assert str(fresh.pk) in told["parts"]["recent"]
    assert sum(told["charts"]["calls"]) == 2
    assert set(told["spoken"]) == {"calls", "latency", "spend"}
    assert alice.get("/live/", {"marker": told["marker"]}).status_code == 204
    # Nothing came, but time went by.
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=1), tick=False):
        assert alice.get("/live/", {"marker": told["marker"]}).status_code == 200
    # Every part has its place on the page.
    page = alice.get("/").content.decode()
    for part in told["parts"]:
        assert f'id="part-{part}"' in page


def test_a_live_page_hears_of_money_that_moves(alice: Client, stage: SimpleNamespace) -> None:
    seed.store([seed.make_call(stage, datetime.now(UTC))])
    window = seed.budget("support-month", "50", "31", value="support", project=stage.support)
    marker = alice.get("/").context["marker"]
    window.leased_nano += 1_000_000_000
    window.save()
    answer = alice.get("/live/", {"marker": marker})
    assert "$1.00 held" in re.sub(r"<[^>]+>", "", answer.json()["parts"]["gauges"])


def test_the_first_call_of_all_reloads_the_empty_page(alice: Client, stage: SimpleNamespace) -> None:
    page = alice.get("/")
    assert "Make the first call" in text_of(page)
    assert "curl http://testserver/v1/chat/completions" in text_of(page)
    seed.store([seed.make_call(stage, datetime.now(UTC))])
    assert alice.get("/live/", {"marker": page.context["marker"]}).json()["reload"] is True


# --- jobs ------------------------------------------------------------------------------------------------------------


def test_asking_for_a_job(alice: Client, stage: SimpleNamespace) -> None:
    day = (datetime.now(UTC) - timedelta(days=1)).date()
    events = Event.objects.count()
    assert alice.post("/jobs/", {"day": day.isoformat()})["location"] == "/jobs/"
    assert Event.objects.count() == events + 1
    page = alice.get("/jobs/")
    assert f"{day:%-d %B %Y}" in text_of(page)
    again = alice.post("/jobs/", {"day": day.isoformat()})
    assert again.status_code == 400
    assert "being recomputed already" in text_of(again)


@pytest.mark.parametrize("day", ["", "x", "2026-13-01", "9999-01-01", "2026-11-20T00:00", "\x00"])
def test_a_day_that_cannot_be_recomputed_is_refused_with_its_name(alice: Client, day: str) -> None:
    answer = alice.post("/jobs/", {"day": day})
    assert answer.status_code == 400
    assert answer.context["problem"]
    assert Job.objects.count() == 0


def test_only_those_who_may_recompute(stage: SimpleNamespace, bob: Client) -> None:
    assert "Recompute" not in text_of(bob.get("/jobs/"))
    day = (datetime.now(UTC) - timedelta(days=1)).date()
    assert bob.post("/jobs/", {"day": day.isoformat()}).status_code == 403
    assert Client(enforce_csrf_checks=True).post("/jobs/", {"day": "2026-11-20"}).status_code in (302, 403)
    assert Job.objects.count() == 0


def test_a_job_tells_how_far_it_is_and_what_it_found(alice: Client) -> None:
    job = Job.objects.create(
        kind="rebuild",
        arguments={"day": "2026-11-20"},
        state=Job.RUNNING,
        done=12,
        total=48,
        requested_by="alice",
    )
    page = alice.get("/jobs/")
    assert re.search(r'<progress max="48" value="12"', page.content.decode())
    marker = page.context["marker"]
    assert alice.get("/jobs/live/", {"marker": marker}).status_code == 204
    job.state, job.done = Job.DONE, 48
    job.message, job.result = "2 figures differed.", {"differences": ["chat at 12:00: 4 calls instead of 3"]}
    job.finished_at = datetime.now(UTC)
    job.save()
    told = alice.get("/jobs/live/", {"marker": marker}).json()
    assert "4 calls instead of 3" in told["parts"]["jobs"]
    assert told["said"].endswith("Done.")


# --- queries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 8])
def test_queries_do_not_grow_with_what_is_shown(alice: Client, stage: SimpleNamespace, times: int) -> None:
    now = datetime.now(UTC)
    window = seed.budget("support-month", "50", "31", value="support", project=stage.support)
    charge = {"window": window.pk, "held": 12_000_000, "cost": 7_206_000}
    calls = seed.store(
        seed.failed_over_twice(stage, now - timedelta(seconds=n), charges=[charge]) for n in range(times)
    )
    for n in range(times - 1):
        seed.budget(f"budget-{n}", "5", "1", scope="feature", value=str(n), project=stage.support)
        Job.objects.create(kind="rebuild", arguments={"day": "2026-11-20"}, requested_by="alice")
    counted = {}
    for name, address in (
        ("/", "/"), ("/live/", "/live/"), ("/calls/", "/calls/"), ("/calls/<id>/", f"/calls/{calls[0].pk}/"),
        ("/jobs/", "/jobs/"), ("/jobs/live/", "/jobs/live/"),
    ):  # fmt: skip
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert alice.get(address).status_code == 200
        # Only PostgreSQL has a clock of its own to be asked.
        counted[name] = sum("clock_timestamp" not in query["sql"] for query in queries)
    assert counted == QUERIES


def test_figures_are_read_from_rollups_alone(alice: Client, stage: SimpleNamespace) -> None:
    """Calls older than their retention are gone; what they cost is not."""
    seed.store([seed.make_call(stage, datetime.now(UTC) - timedelta(days=3))])
    Call.objects.all().delete()
    view = alice.get("/?range=7d").context["view"]
    assert view.tiles[0].figures[0].text == "1"
    assert not view.nothing_yet
    assert Rollup.objects.exists()
    assert LatencyRollup.objects.exists()


# --- security --------------------------------------------------------------------------------------------------------


class Markup(HTMLParser):
    """Collects what the strict policy would refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: Counter[str] = Counter()
        self.unnamed: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        for name, value in attributes:
            if name.startswith("on") or name == "style" or name.startswith("x-"):
                self.found.append(f"{tag} {name}={value}")
            if name in ("href", "src", "action") and (value or "").lower().startswith(
                ("javascript:", "http:", "https:")
            ):
                self.found.append(f"{tag} {name}={value}")
        if tag == "script" and not given.get("src") and given.get("type") != "application/json":
            self.found.append("inline script")
        if tag == "style":
            self.found.append("inline style")
        if given.get("id"):
            self.ids[str(given["id"])] += 1


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "address", ["/?range=24h", "/calls/?range=24h", "/jobs/", "story", "/no/such/page/", "/admin/login/"]
)
def test_own_pages_hold_nothing_that_their_policy_refuses(
    alice: Client, day: list[Call], address: str
) -> None:
    client = Client() if address == "/admin/login/" else alice
    page = client.get(f"/calls/{day[-1].pk}/" if address == "story" else address)
    policy = dict(part.split(" ", 1) for part in page["content-security-policy"].split("; "))
    assert policy["script-src"] == "'self'"
    assert policy["style-src"] == "'self'"
    assert (policy["default-src"], policy["frame-ancestors"], policy["base-uri"]) == (
        "'none'",
        "'none'",
        "'none'",
    )
    markup = Markup()
    markup.feed(page.content.decode())
    assert markup.found == []
    assert {name: times for name, times in markup.ids.items() if times > 1} == {}
    assert page.status_code == 404 or "no-store" in page["cache-control"]


@pytest.mark.any_engine
def test_the_admin_gets_what_it_needs_and_no_inline_script(alice: Client) -> None:
    policy = alice.get("/admin/access/project/")["content-security-policy"]
    assert "script-src 'self' 'unsafe-eval';" in f"{policy};"
    assert "frame-ancestors 'none'" in policy


@pytest.mark.any_engine
def test_what_callers_send_is_shown_as_text(alice: Client, stage: SimpleNamespace) -> None:
    evil = "</script><script>alert(1)</script>"
    (call,) = seed.store(
        [
            seed.make_call(
                stage, datetime.now(UTC), route=evil[:63], model=evil[:63], feature=evil, session=evil, tags=[evil],
                error_code=evil[:60], error_message=evil, upstream_model=evil, cost_nano=0,
                attempts=[seed.attempt(1, evil, note=evil, why=evil, code=evil, provider_request=evil)],
            )
        ]
    )  # fmt: skip
    for address in ("/", "/calls/", f"/calls/{call.pk}/", "/live/"):
        answer = alice.get(address)
        assert answer.status_code == 200
        assert "<script>alert" not in answer.content.decode()
    typed = alice.get("/calls/", {"route": '"><script>alert(1)</script>', "q": "<b>x"}).content.decode()
    assert "<script>alert" not in typed
    assert "<b>x" not in typed


@pytest.mark.any_engine
@pytest.mark.parametrize("template", ["400", "403", "403_csrf", "404", "500"])
def test_error_pages_need_no_database_and_say_what_to_do(template: str, client: Client) -> None:
    from django.template.loader import get_template

    with CaptureQueriesContext(connection) as queries:
        html = get_template(f"{template}.html").render()
    assert len(queries) == 0
    assert 'class="button primary"' in html


@pytest.mark.any_engine
def test_a_fault_ends_in_the_page_for_faults(alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the database went away")

    monkeypatch.setattr("llmops.dashboards.overview.build", broken)
    alice.raise_request_exception = False
    answer = alice.get("/")
    assert answer.status_code == 500
    assert "The console failed to answer" in text_of(answer)
    assert "database went away" not in text_of(answer)
    assert answer["content-security-policy"]


# --- navigation ------------------------------------------------------------------------------------------------------


def navigation(client: Client) -> list[str]:
    html = client.get("/").content.decode()
    html = html[html.index('<nav class="shell-nav"') : html.index("</nav>")]
    return re.findall(r"<span>([^<]+)</span></a></li>", html)


@pytest.mark.any_engine
def test_the_navigation_offers_what_opens(stage: SimpleNamespace) -> None:
    everything = [
        "Overview", "Spend", "Reconciliation", "Calls", "Jobs", "Providers", "Credentials", "Models", "Prices", "Routes", "Policies", "Revisions",
        "Projects", "Service keys", "Members", "Users", "Budgets", "Approvals",
        "Audit",
    ]  # fmt: skip
    assert navigation(signed_in(stage.alice)) == everything
    assert navigation(signed_in(stage.charlie)) == ["Overview"]
    finance = signed_in(seed.person("fiona", ("finance", stage.support)))
    assert navigation(finance) == [
        "Overview", "Spend", "Calls", "Jobs", "Models", "Prices", "Routes", "Projects", "Budgets", "Approvals",
    ]  # fmt: skip
    for client in (
        finance,
        signed_in(stage.bob),
        signed_in(seed.person("rita", ("reviewer", stage.support))),
    ):
        html = client.get("/").content.decode()
        for address in re.findall(r'<li><a href="([^"]+)"', html[: html.index("</nav>")]):
            assert client.get(address).status_code == 200, address
    # The admin shows the same navigation.
    assert navigation(finance) == re.findall(
        r"<span>([^<]+)</span></a></li>",
        finance.get("/admin/access/project/").content.decode().split("</nav>")[0],
    )
