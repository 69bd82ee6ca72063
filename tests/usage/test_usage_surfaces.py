"""Calls and jobs through the API and the admin, and the selectors behind them."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from django.test import Client

from llmops.core.errors import InvalidRequest, NotFound
from llmops.gateway.app import ORDINARY
from llmops.usage.ingest.loop import Ingester
from llmops.usage.journal import JournalWriter
from llmops.usage.models import Call, Job, Journal, Rollup
from llmops.usage.records import Attempt, Ended
from llmops.usage.selectors import CallFilters, call_story, calls_page, overview
from llmops.usage.services import jobs as job_services
from llmops.usage.work import MODEL_WORK
from tests.cast import bearer, issue, no_event, one_event, signed_in
from tests.kept import kept
from tests.usage.journals import Scribe, origin, outcome
from tests.usage.reckoning import finals

CALLS, JOBS = "/api/v1/calls/", "/api/v1/jobs/"
START = datetime(2024, 5, 16, 8, tzinfo=UTC)


@kept
def traffic(cast: SimpleNamespace) -> SimpleNamespace:
    """Calls of both projects over an hour, some at the same instant; ``calls`` in the order in which they ended."""
    keys = [issue(cast.support).key, issue(cast.search).key]
    with tempfile.TemporaryDirectory() as directory:
        scribe = Scribe.at(Path(directory))
        for number in range(60):
            which = number % 2
            failed = number % 10 == 0
            scribe.call(
                project=str((cast.support, cast.search)[which].pk),
                key=str(keys[which].pk),
                started=int((START.timestamp() + number // 4 * 240) * 1e9),
                route=("chat", "search")[which],
                cost=1000,
                result=outcome("error", 502, code="upstream_error") if failed else outcome(),
            )
        Ingester(Path(directory)).run_once()
        scribe.writer.close()
    return SimpleNamespace(
        keys=keys,
        journal_id=scribe.writer.journal_id,
        calls=[last.origin.call for last, _ in finals(scribe.written)],
    )


def walk(client: Client, **filters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    url: str | None = f"{CALLS}?{urlencode(filters)}"
    while url:
        answer = client.get(url)
        assert answer.status_code == 200, answer.json()
        found += answer.json()["results"]
        url = answer.json()["next"]
    return found


def test_pages_show_every_call_once_newest_first(cast: SimpleNamespace, traffic: SimpleNamespace) -> None:
    expected = [str(pk) for pk in Call.objects.order_by("-started_at", "-id").values_list("pk", flat=True)]
    for size in (7, 20, 60, 500):
        found = walk(signed_in(cast.alice), page_size=size)
        assert [call["id"] for call in found] == expected
    # One by one the last three instants, which four calls share each.
    last = walk(signed_in(cast.alice), page_size=1, **{"from": "2024-05-16T08:48:00Z"})
    assert [call["id"] for call in last] == expected[:12]
    first = found[0]
    assert (first["project"], first["cost_usd"], first["key"]) == ("search", "0.000001", traffic.keys[1].name)


def test_filters_narrow(cast: SimpleNamespace, traffic: SimpleNamespace) -> None:
    alice = signed_in(cast.alice)
    one = Call.objects.order_by("?").first()
    assert one is not None
    for filters, expected in (
        ({"project": "support"}, 30),
        ({"key": str(traffic.keys[1].pk)}, 30),
        ({"route": "chat", "status": "error"}, 6),
        ({"status": "error,ok"}, 60),
        ({"errors": "true"}, 6),
        ({"error_code": "upstream_error"}, 6),
        ({"error_code": "nothing"}, 0),
        ({"model": "small"}, 60),
        ({"from": "2024-05-16T08:30:00Z"}, 28),
        ({"to": "2024-05-16T09:30:00+01:00"}, 32),
        ({"from": "2024-05-16T08:00:00Z", "to": "2024-05-16T08:00:00.000001Z"}, 4),
    ):
        assert len(walk(alice, page_size=11, **filters)) == expected, filters


def test_wrong_filters_are_refused_by_name(cast: SimpleNamespace) -> None:
    alice = signed_in(cast.alice)
    for name, value in (
        ("status", "wonderful"),
        ("key", "7"),
        ("project", "nowhere"),
        ("from", "yesterday"),
        ("from", "2024-05-16T08:00:00"),
        ("from", "0001-01-01T00:00:00+23:59"),
        ("to", "9999-12-31T23:59:59-23:59"),
        ("to", "2026-13-45T00:00:00Z"),
        ("cursor", "%%%"),
        ("cursor", "bm90IGEgY3Vyc29y"),
        ("page_size", "0"),
        ("page_size", "9" * 5000),
        ("colour", "red"),
    ):
        answer = alice.get(f"{CALLS}?{urlencode({name: value})}")
        assert answer.status_code == 400 and answer.json()["error"]["param"] == name, (name, answer.json())


def test_tenants_see_their_own_calls(cast: SimpleNamespace, traffic: SimpleNamespace) -> None:
    bob = signed_in(cast.bob)
    assert {call["project"] for call in walk(bob)} == {"support"}
    foreign = Call.objects.filter(project_id=cast.search.pk).first()
    own = Call.objects.filter(project_id=cast.support.pk).first()
    assert foreign is not None and own is not None
    assert bob.get(f"{CALLS}{own.pk}/").status_code == 200
    assert bob.get(f"{CALLS}{foreign.pk}/").status_code == 404
    assert bob.get(f"{CALLS}not-an-id/").status_code == 404
    assert bob.get(f"{CALLS}?project=search").status_code == 400
    assert walk(bob, key=str(traffic.keys[1].pk)) == []
    assert signed_in(cast.rita).get(CALLS).status_code == 403
    assert Client().get(CALLS).status_code == 401
    assert {call["project"] for call in walk(bearer(issue(cast.search, "read").secret))} == {"search"}
    everywhere = bearer(issue(cast.search, "read", "organisation").secret)
    assert len(walk(everywhere)) == 60
    for method in ("post", "put", "patch", "delete"):
        assert getattr(signed_in(cast.alice), method)(f"{CALLS}{own.pk}/").status_code in (403, 405)
    with pytest.raises(NotFound):
        call_story(foreign.pk, project_ids={cast.support.pk})


def test_what_calls_refer_to_may_be_gone(cast: SimpleNamespace, traffic: SimpleNamespace) -> None:
    call = Call.objects.filter(project_id=cast.support.pk).first()
    assert call is not None
    Call.objects.filter(pk=call.pk).update(
        key_id=uuid4(),
        charges=[{"window": 999, "held": 5, "cost": 3, "overrun": 0}, {"budget": str(uuid4()), "cost": 3}],
    )
    Journal.objects.all().delete()
    told = signed_in(cast.bob).get(f"{CALLS}{call.pk}/").json()
    assert told["key"] is None and [charge["budget_id"] for charge in told["charges"]] == [None, None]
    assert call_story(call.pk).journal is None


def test_the_list_costs_the_same_however_deep(
    cast: SimpleNamespace, traffic: SimpleNamespace, django_assert_max_num_queries: Any
) -> None:
    alice = signed_in(cast.alice)
    url = f"{CALLS}?page_size=20"
    for _ in range(3):
        with django_assert_max_num_queries(8):
            url = alice.get(url).json()["next"]


def test_pages_stay_whole_while_calls_arrive(cast: SimpleNamespace, traffic: SimpleNamespace) -> None:
    expected = list(Call.objects.order_by("-started_at", "-id").values_list("pk", flat=True))
    found, cursor = [], None
    while True:
        page = calls_page(filters=CallFilters(), cursor=cursor, page_size=9)
        found += [call.pk for call in page.calls]
        if not (cursor := page.next_cursor):
            break
        newest = Call.objects.order_by("-started_at").first()
        assert newest is not None
        newest.pk, newest.started_at = uuid4(), newest.started_at + timedelta(seconds=1)
        newest.save(force_insert=True)
    assert found == expected


def test_overview_counts_only_what_may_be_seen(cast: SimpleNamespace, traffic: SimpleNamespace) -> None:
    whole = {"start": START, "end": START + timedelta(hours=1)}
    everything = overview(project_ids=None, **whole)
    assert (everything.granularity, everything.calls, everything.errors, everything.spend_nano) == (
        60,
        60,
        6,
        60_000,
    )
    assert everything.error_rate == 0.1 and everything.fallback_rate == 0.0
    assert [(code.code, code.calls) for code in everything.error_codes] == [("upstream_error", 6)]
    assert len(everything.series) == 60 and sum(point.calls for point in everything.series) == 60
    support = overview(project_ids={cast.support.pk}, **whole)
    assert (support.calls, support.errors) == (30, 6)
    assert overview(project_ids=set(), **whole).calls == 0
    assert overview(project_ids=None, route="chat", **whole).calls == 30
    for granularity in (3600, 86400):
        assert overview(project_ids=None, granularity=granularity, **whole).calls == 60
    nothing = overview(project_ids=None, start=START - timedelta(hours=1), end=START)
    assert (nothing.calls, nothing.error_rate, nothing.fallback_rate, nothing.total.p50) == (
        0,
        None,
        None,
        None,
    )


def test_errands_are_counted_apart_and_say_nothing_about_speed(tmp_path: Path, db: None) -> None:
    """Reads of what a provider keeps are fast, or fail for reasons of their own; models are neither."""
    writer = JournalWriter(tmp_path)
    at = int(START.timestamp() * 1e9)

    def ended(endpoint: str, model: str, status: str, took: int, cost: int = 0) -> Ended:
        tried = [Attempt(n=1, model=model, provider="sim", status=200, total_us=took)]
        return Ended(
            n=0, at=at, attempt=0, cost=cost,
            origin=origin(started=at, endpoint=endpoint),
            outcome=outcome(status=status, http=200, model=model, attempts=tried, total_us=took, upstream_us=took, ttft_us=None, cost=cost),
        )  # fmt: skip

    for _ in range(9):
        writer.append(ended("responses.retrieve", "", "ok", 5))
    writer.append(ended("files.retrieve", "", "error", 5))
    writer.append(ended("batches.usage", "", "ok", 5, cost=700))
    writer.append(ended("chat.completions", "small", "ok", 1_000_000, cost=50))
    writer.append(ended("chat.completions", "", "refused", 5))
    Ingester(tmp_path).run_once()
    for granularity in (60, 3600, 86400):
        told = overview(
            start=START, end=START + timedelta(hours=1), project_ids=None, granularity=granularity
        )
        assert (told.calls, told.errors, told.refused, told.errands, told.errands_failed) == (2, 0, 1, 11, 1)
        assert told.spend_nano == 750 == sum(point.spend_nano for point in told.series)
        assert told.total.calls == 1 and told.total.p50 is not None and told.total.p50 > 900_000
        assert told.overhead.calls == 1


def test_every_endpoint_is_known_as_model_work_or_as_an_errand() -> None:
    assert {endpoint.name for endpoint in ORDINARY.values()} == MODEL_WORK


def test_overview_widens_to_whole_buckets_and_refuses_nonsense(db: None) -> None:
    told = overview(start=START + timedelta(seconds=30), end=START + timedelta(seconds=90), project_ids=None)
    assert (told.start, told.end, len(told.series)) == (START, START + timedelta(minutes=2), 2)
    for days, granularity in ((0.05, Rollup.MINUTE), (1, Rollup.HOUR), (30, Rollup.DAY)):
        assert (
            overview(start=START, end=START + timedelta(days=days), project_ids=None).granularity
            == granularity
        )
    for wrong in (
        {"end": START},
        {"end": START + timedelta(hours=1), "granularity": 7},
        {"end": START + timedelta(days=30), "granularity": 60},
    ):
        with pytest.raises(InvalidRequest):
            overview(start=START, project_ids=None, **wrong)


def test_overview_takes_few_queries_over_any_traffic(
    traffic: SimpleNamespace, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(3):
        overview(start=START, end=START + timedelta(days=30), project_ids=None)
    with django_assert_num_queries(3):
        overview(start=START, end=START + timedelta(days=30), project_ids=None, series=False)


def test_jobs_are_asked_for_by_finance_of_the_whole_organisation(
    cast: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_services, "send", lambda *_: None)
    body = {"kind": "rebuild", "day": "2024-05-16", "reason": "an invoice"}
    alice = signed_in(cast.alice)
    clients = {
        status: [signed_in(getattr(cast, name)) for name in names]
        for status, names in ((403, ("bob", "carla", "dan", "rita", "charlie")),)
    }
    for client in clients[403]:
        with no_event():
            assert client.post(JOBS, body, content_type="application/json").status_code == 403
        assert client.get(JOBS).status_code == 403
    with one_event("usage.rebuild_requested"):
        answer = alice.post(JOBS, body, content_type="application/json")
    assert answer.status_code == 202 and answer.json()["state"] == "queued"
    assert alice.get(f"{JOBS}{answer.json()['id']}/").json()["arguments"] == {"day": "2024-05-16"}
    with no_event():
        assert alice.post(JOBS, body, content_type="application/json").status_code == 409
        for wrong in ({"day": "soon"}, {"day": "2999-01-01"}, {"kind": "magic"}, {"colour": "red"}):
            answer = alice.post(JOBS, body | wrong, content_type="application/json")
            assert answer.status_code == 400 and answer.json()["error"]["param"] in wrong, answer.json()


@pytest.mark.any_engine
def test_the_admin_shows_and_changes_nothing(cast: SimpleNamespace, traffic: SimpleNamespace) -> None:
    alice, bob = signed_in(cast.alice), signed_in(cast.bob)
    call = traffic.calls[0]
    Job.objects.create(kind="rebuild", requested_by="somebody")
    for url in (
        "/admin/usage/call/",
        f"/admin/usage/call/{call}/change/",
        "/admin/usage/journal/",
        f"/admin/usage/journal/{traffic.journal_id}/change/",
        "/admin/usage/job/",
        f"/admin/usage/job/{Job.objects.get().pk}/change/",
    ):
        assert alice.get(url).status_code == 200, url
        with no_event():
            assert alice.post(url, {"status": "ok"}).status_code in (200, 302, 403, 405)
            assert alice.post(url.replace("change/", "delete/")).status_code in (200, 302, 403, 405)
        if "/call/" not in url:
            assert bob.get(url).status_code in (403, 404), url
    assert Call.objects.count() == 60 and Job.objects.count() == 1 and Journal.objects.count() == 1
    listed = bob.get("/admin/usage/call/").content.decode()
    assert "chat" in listed and str(Call.objects.filter(project_id=cast.search.pk).first().pk) not in listed  # type: ignore[union-attr]
