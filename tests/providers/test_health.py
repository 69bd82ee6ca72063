"""What data planes say about targets and keys, from their journal to the pages, and an operator's reset on its way back."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest

from llmops.base.clock import database_now
from llmops.core.errors import InvalidRequest
from llmops.gateway.feed import Feed
from llmops.providers import services
from llmops.providers.models import HealthEvent, OpenBreaker
from llmops.providers.selectors import open_breakers, refused_credentials
from llmops.serving.selectors import load_snapshot
from llmops.usage.ingest.loop import Ingester
from llmops.usage.journal import JournalWriter
from llmops.usage.records import BreakerSeen, CredentialSeen
from tests import configuring
from tests.cast import COMMAND, bearer, every_scope, no_event, one_event, signed_in

pytestmark = pytest.mark.django_db

WHY = "12 of 20 calls failed within 60 s: status 500 (12)"


@pytest.fixture
def process(tmp_path):
    """A journal as a data plane writes it, and the ingester beside it."""
    writer = JournalWriter(tmp_path)
    ingester = Ingester(tmp_path)

    def write(*records: Any) -> None:
        for record in records:
            writer.append(record)
        ingester.run_once()

    yield write, writer, ingester
    writer.close()


def breaker(state: str = "open", by: str = "rate", **changes: Any) -> BreakerSeen:
    now = time.time_ns()
    given = {
        "n": 0,
        "at": now,
        "route": "chat",
        "model": "sim-small",
        "provider": "simulator",
        "state": state,
        "by": by,
    }
    if state == "open":
        given |= {"until": now + 30 * 10**9, "why": WHY}
    return BreakerSeen(**(given | changes))


def test_an_open_breaker_is_seen_until_it_closes(process) -> None:
    write, writer, _ = process
    write(breaker())
    [row] = open_breakers("chat")
    assert (row.model, row.provider, row.process, row.why) == (
        "sim-small",
        "simulator",
        writer.journal_id,
        WHY,
    )
    assert row.host
    assert timedelta(seconds=25) < row.until - row.since < timedelta(seconds=31)
    since = row.since
    write(breaker(by="probe", why="the probe failed too: status 500"))
    [row] = open_breakers()
    assert (row.since, row.why) == (since, "the probe failed too: status 500"), "it is the same trouble still"
    assert open_breakers("other") == []
    write(breaker("closed", by="probe"))
    assert open_breakers() == []
    events = list(HealthEvent.objects.order_by("at", "id").values_list("kind", "route", "text"))
    assert events == [
        ("breaker_opened", "chat", WHY),
        ("breaker_opened", "chat", "the probe failed too: status 500"),
        ("breaker_closed", "chat", "a probe was answered"),
    ]


def test_what_is_open_for_one_project_stands_beside_what_is_open_for_all(process) -> None:
    write, *_ = process
    write(breaker(), breaker(project="support"), breaker(project="sales"))
    assert sorted(row.project for row in open_breakers("chat")) == ["", "sales", "support"]
    write(breaker("closed", by="probe", project="sales"))
    assert sorted(row.project for row in open_breakers("chat")) == ["", "support"]
    texts = set(HealthEvent.objects.values_list("text", flat=True))
    assert f"for the calls of one project: {WHY}" in texts
    assert not any("support" in text for text in texts), "whoever sees the route may read it"


def test_what_another_process_found_out_is_told_by_that_one(process) -> None:
    write, *_ = process
    write(
        breaker(by="another"),
        breaker(model="other", by="another"),
        breaker("closed", by="another", model="other"),
    )
    assert [row.model for row in open_breakers()] == ["sim-small"]
    assert not HealthEvent.objects.exists()


def test_the_breakers_of_a_process_end_with_it(process) -> None:
    write, writer, ingester = process
    write(breaker())
    assert OpenBreaker.objects.count() == 1
    writer.close()
    ingester.run_once()
    assert OpenBreaker.objects.count() == 0


def test_a_refused_key_is_seen_until_it_is_accepted_or_put_anew(process) -> None:
    write, *_ = process
    key = configuring.credential(activate=True)

    def say(status: int, code: str) -> None:
        write(CredentialSeen(n=0, at=time.time_ns(), credential=str(key.pk), status=status, code=code))

    say(401, "refused")
    [(found, event)] = refused_credentials()
    assert (found.pk, event.kind, event.text) == (key.pk, "credential_refused", "status 401")
    key.refresh_from_db()
    assert key.last_failure == "401 refused"
    say(200, "accepted")
    assert refused_credentials() == []
    say(429, "quota")
    assert len(refused_credentials()) == 1
    services.drain_credential(COMMAND, credential=key)
    assert refused_credentials() == [], "whoever acted has seen it"


def test_an_operators_reset_reaches_data_planes_with_the_next_look(cast) -> None:
    route = configuring.route("chat")
    services.reset_breakers_route(COMMAND, route=route, reason="the provider is back")
    first = load_snapshot()
    delivered: list[Any] = []
    feed = Feed(first, delivered.append)
    feed._look()
    assert delivered == []
    with one_event("route.breakers_reset") as seen:
        services.reset_breakers_route(COMMAND, route=route, reason="again")
    assert seen.event.reason == "again"
    feed._look()
    [snapshot] = delivered
    assert snapshot.live.breaker_resets["chat"] > first.live.breaker_resets["chat"]
    with no_event(), pytest.raises(InvalidRequest):
        services.reset_breakers_route(COMMAND, route=route, reason="x" * 301)


def test_old_events_go(process) -> None:
    write, *_ = process
    write(breaker())
    HealthEvent.objects.update(at=database_now() - timedelta(days=91))
    assert services.forget_old_events() == 1


@pytest.mark.any_engine
def test_pages_show_it(cast, process) -> None:
    write, *_ = process
    route = configuring.route("chat")
    key = configuring.credential(activate=True)
    write(
        breaker(),
        CredentialSeen(n=0, at=time.time_ns(), credential=str(key.pk), status=401, code="refused"),
    )
    page = signed_in(cast.alice).get(f"/admin/providers/route/{route.pk}/change/").content.decode()
    assert "open until" in page
    assert "12 of 20 calls failed" in page
    page = signed_in(cast.alice).get(f"/admin/providers/credential/{key.pk}/change/").content.decode()
    assert "key refused" in page
    texts = [finding.text for finding in signed_in(cast.alice).get("/").context["view"].verdict.findings]
    assert any("Target sim-small of route chat is left alone by a data plane" in text for text in texts)
    assert any(f"Provider key {key} was refused" in text for text in texts)
    # Provider keys are not for everybody.
    texts = [finding.text for finding in signed_in(cast.dan).get("/").context["view"].verdict.findings]
    assert not any("Provider key" in text for text in texts)


@pytest.mark.any_engine
def test_whose_calls_alone_fail_is_told_to_whoever_sees_the_project(cast, process) -> None:
    write, *_ = process
    route = configuring.route("chat")
    write(breaker(project="support"))
    page = signed_in(cast.alice).get(f"/admin/providers/route/{route.pk}/change/").content.decode()
    assert "for the calls of one project" in page

    def told(person: Any) -> list[str]:
        findings = signed_in(person).get("/").context["view"].verdict.findings
        return [one.text for one in findings if "for the calls of project support" in one.text]

    assert told(cast.alice)
    assert told(cast.bob)
    assert not told(cast.charlie), "a project that may not be seen is not named"
    client = bearer(every_scope(cast.support).secret)
    [found] = client.get("/api/v1/routes/chat/").json()["open_breakers"]
    assert found["one_project"] is True
    assert "support" not in str(found)


def test_the_api_tells_it_and_resets(cast, process) -> None:
    write, *_ = process
    configuring.route("chat")
    write(breaker(), breaker(model="other", route="x"))
    client = bearer(every_scope(cast.support).secret)
    found = client.get("/api/v1/routes/chat/").json()
    assert [(one["model"], one["why"]) for one in found["open_breakers"]] == [("sim-small", WHY)]
    assert [one["open_breakers"] for one in client.get("/api/v1/routes/").json()["results"]] == [
        found["open_breakers"]
    ]
    with one_event("route.breakers_reset"):
        answer = client.post("/api/v1/routes/chat/reset-breakers/", {}, content_type="application/json")
    assert answer.status_code == 200
    assert answer.json()["breakers_reset_at"]
