"""What the pages show, to whom, from how many queries, and whether a number leads to the calls behind it."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import time_machine
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from llmops.access.models import ServiceKey
from llmops.audit.models import Event
from llmops.core.ids import uuid7
from llmops.usage.models import Call, Job, LatencyRollup, Rollup
from tests.dashboards import seed
from tests.dashboards.conftest import signed_in
from tests.dashboards.reading import OWN_PAGES, listed, text_of

pytestmark = pytest.mark.django_db
#: Queries of each page with the cast's data, sessions and roles included. A rise is a decision, not an accident.
#: One call asks for its replays and for the datasets it is in as well.
QUERIES = {"/": 34, "/live/": 34, "/calls/": 10, "/calls/<id>/": 16, "/jobs/": 3, "/jobs/live/": 3}


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


@pytest.mark.any_engine
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


@pytest.mark.any_engine
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


@pytest.mark.any_engine
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
        paid = [group for group in groups if group.cost_nano]
        assert len({len(group.cost.partition(".")[2]) for group in paid}) == 1
        assert {group.cost for group in groups if group not in paid} <= {"$0.00"}
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
    assert went_elsewhere and len(view.errors) > 2 and view.findings and len(day) > 100
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


@pytest.mark.any_engine
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


@pytest.mark.any_engine
def test_a_call_without_a_model_says_what_it_was(alice: Client, stage: SimpleNamespace) -> None:
    at = datetime.now(UTC) - timedelta(minutes=5)
    seed.store([seed.make_call(stage, at, endpoint="files.create", route="", model="", model_version=None)])
    assert ">files.create</code>" in alice.get("/calls/").content.decode()


def test_a_call_is_found_by_either_of_its_ids(alice: Client, stage: SimpleNamespace) -> None:
    old = datetime.now(UTC) - timedelta(days=60)
    call, _ = seed.store([seed.make_call(stage, old), seed.make_call(stage, old)])
    assert listed(alice, f"/calls/?q={call.request_id}") == [str(call.pk)]
    assert alice.get(f"/calls/?q={call.pk}")["location"] == f"/calls/{call.pk}/"


# --- simulator -------------------------------------------------------------------------------------------------------


@pytest.mark.any_engine
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


@pytest.mark.any_engine
def test_an_installation_with_nothing_in_it_says_what_comes_next(db: None) -> None:
    client = signed_in(get_user_model().objects.create_superuser("root"))
    page = client.get("/")
    assert "0 of 7 steps are done" in text_of(page)
    assert page.context["next_step"].url == "/admin/access/project/add/"
    assert [step.url for step in page.context["steps"]] == [
        "/admin/access/project/add/",
        "/admin/providers/provider/add/",
        "/admin/providers/credential/add/",
        "/admin/providers/model/from-a-list/",
        "/routes/editor/",
        "/admin/serving/revision/publish/",
        "/admin/access/servicekey/add/",
    ]
    seed.fill()
    steps = client.get("/").context["steps"]
    assert [step.title for step in steps if not step.done] == []
    # Who may not take a step is not sent to a page that refuses.
    ServiceKey.objects.all().delete()
    page = signed_in(seed.person("anna", ("auditor", None))).get("/")
    assert page.context["next_step"].url == ""
    assert "ask an administrator" in text_of(page)


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


@pytest.mark.any_engine
@pytest.mark.parametrize("day", ["", "x", "2026-13-01", "9999-01-01", "2026-11-20T00:00", "\x00"])
def test_a_day_that_cannot_be_recomputed_is_refused_with_its_name(alice: Client, day: str) -> None:
    answer = alice.post("/jobs/", {"day": day})
    assert answer.status_code == 400
    assert answer.context["problem"]
    assert Job.objects.count() == 0


@pytest.mark.any_engine
def test_only_those_who_may_recompute(stage: SimpleNamespace, bob: Client) -> None:
    assert "Recompute" not in text_of(bob.get("/jobs/"))
    day = (datetime.now(UTC) - timedelta(days=1)).date()
    assert bob.post("/jobs/", {"day": day.isoformat()}).status_code == 403
    assert Client(enforce_csrf_checks=True).post("/jobs/", {"day": "2026-11-20"}).status_code in (302, 403)
    assert Job.objects.count() == 0


@pytest.mark.any_engine
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
