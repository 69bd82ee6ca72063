"""What was written is what is booked: every record once, every sum right, whatever the ingesters go through."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from django.utils import timezone

from llmops.budgets import services as budgets
from llmops.budgets.models import Budget, Lease, Window
from llmops.core.verdicts import Finding, Verdict
from llmops.providers.models import Credential, Provider
from llmops.usage import journal
from llmops.usage.ingest.follower import Follower
from llmops.usage.ingest.loop import Ingester
from llmops.usage.ingest.rows import COLUMNS
from llmops.usage.models import Call, Journal, Rollup
from llmops.usage.records import Attempt, CredentialSeen, Media, Outcome, Tokens
from llmops.usage.selectors import overview
from llmops.usage.signals import SIGNALS
from tests.cast import COMMAND, in_threads, issue
from tests.usage.journals import Scribe, origin, outcome
from tests.usage.reckoning import (
    assert_calls,
    assert_close,
    assert_latencies,
    assert_rollups,
    measured,
    nearest_rank,
)


def leased(budget: Budget, journal_id: Any, amount: int) -> int:
    window = budgets.open_window(budget_id=budget.pk, at=timezone.now()).window_id
    budgets.lease(window_id=window, journal_id=journal_id, need=0, want=amount, lease_seconds=3600)
    return window


def budget_of(limit: int, **known: Any) -> Budget:
    values = {"slug": f"b-{uuid4()}", "scope_kind": "organisation", "limit_nano": limit}
    return budgets.create_budget(COMMAND, **(values | known))


def stands(window: int, *, settled: int, leased: int = 0, overrun: int = 0, unattributed: int = 0) -> None:
    row = Window.objects.get(pk=window)
    assert (row.settled_nano, row.leased_nano, row.overrun_nano, row.unattributed_nano) == (
        settled,
        leased,
        overrun,
        unattributed,
    )


def test_every_column_of_a_call_is_written() -> None:
    assert set(COLUMNS) == {field.column for field in Call._meta.concrete_fields}


def test_rollups_are_what_the_calls_add_up_to(tmp_path: Path, db: None) -> None:
    scribe = Scribe.at(tmp_path)
    at = datetime(2026, 11, 20, 23, 40, tzinfo=UTC)
    scribe.traffic(600, since=at.timestamp(), seconds=3000)
    Ingester(tmp_path, batch=97).run_once()
    assert_calls(scribe.written)
    assert_rollups(scribe.written)
    assert_latencies(scribe.written)
    figures = overview(start=at, end=at + timedelta(seconds=3000), project_ids=None)
    for metric, told in (("total", figures.total), ("ttft", figures.ttft), ("overhead", figures.overhead)):
        values = measured(scribe.written, metric)
        assert told.calls == len(values)
        for q, value in ((0.5, told.p50), (0.95, told.p95), (0.99, told.p99)):
            assert_close(value, nearest_rank(values, q))


def test_a_call_is_stored_as_it_was_told(tmp_path: Path, cast: SimpleNamespace) -> None:
    key = issue(cast.support).key
    provider = Provider.objects.create(slug="sim", kind="simulator", base_url="http://localhost/v1")
    credential, refused = (
        Credential.objects.create(provider=provider, name=name, source="env", reference="X")
        for name in ("used", "refused")
    )
    scribe = Scribe.at(tmp_path)
    budget = budget_of(10_000)
    soft = budget_of(5, hard=False)
    window = leased(budget, scribe.writer.journal_id, 5000)
    who = origin(
        started=1_795_000_000_123_456_789,
        project=str(cast.support.pk),
        key=str(key.pk),
        streamed=True,
        request="req-1",
        feature="triage",
        user="alice@example.com",
        session="s",
        tags=["a", "b"],
        prompt="0123456789abcdef",
        prompt_name="triage",
        prompt_version=4,
        bytes_in=77,
    )
    scribe.hold(who, windows={window: 900})
    scribe.end(who, windows={window: (900, 0)}, cost=0)
    scribe.hold(who, attempt=2, windows={window: 1000})
    result = Outcome(
        status="ok",
        http=200,
        model="large",
        model_version=3,
        provider="sim",
        upstream_model="large-2026",
        finish="stop",
        attempts=[
            Attempt(
                n=1,
                model="small",
                provider="sim",
                credential=str(credential.pk),
                status=503,
                code="upstream_error",
            ),
            Attempt(n=2, model="large", provider="sim", credential=str(credential.pk), status=200),
        ],
        tools=["find_order"],
        verdicts=[Verdict("privacy", 3, "before", "personal_data", "redact", [Finding("email", "input", 2)])],
        retries=0,
        fallbacks=1,
        tokens=Tokens(
            input=10,
            cached=4,
            cache_write=1,
            output=20,
            reasoning=5,
            estimated=True,
            media=Media(2, 3, 4, 6, 7, 8, 9),
            tier="priority",
        ),
        cap=64,
        clamped=True,
        cost=1200,
        total_us=5000,
        ttft_us=900,
        upstream_us=4500,
        queue_us=11,
        cache="miss",
        saved=17,
        provider_us=4000,
        provider_request="p-1",
        bytes_out=99,
    )
    scribe.end(who, attempt=2, windows={window: (1000, 1200)}, cost=1200, soft=(str(soft.pk),), result=result)
    seen = {"at": 1_795_000_001_000_000_000, "n": 0}
    scribe.writer.append(
        CredentialSeen(credential=str(refused.pk), status=401, code="invalid_api_key", **seen)
    )
    Ingester(tmp_path).run_once()

    call = Call.objects.get()
    stored = {field.name: getattr(call, field.name) for field in Call._meta.concrete_fields}
    assert stored == {
        "id": call.pk,
        "started_at": datetime(2026, 11, 18, 11, 6, 40, 123456, tzinfo=UTC),
        "journal_id": scribe.writer.journal_id,
        "project_id": cast.support.pk,
        "key_id": key.pk,
        "endpoint": "chat.completions",
        "route": "chat",
        "model": "large",
        "model_version": 3,
        "provider": "sim",
        "upstream_model": "large-2026",
        "revision": 1,
        "status": "ok",
        "http_status": 200,
        "error_code": "",
        "error_message": "",
        "streamed": True,
        "finish_reason": "stop",
        "tools": ["find_order"],
        "attempts": [
            {
                "n": 1,
                "model": "small",
                "provider": "sim",
                "credential": str(credential.pk),
                "status": 503,
                "code": "upstream_error",
            },
            {"n": 2, "model": "large", "provider": "sim", "credential": str(credential.pk), "status": 200},
        ],
        "verdicts": [
            {
                "policy": "privacy",
                "version": 3,
                "stage": "before",
                "check": "personal_data",
                "action": "redact",
                "findings": [{"name": "email", "where": "input", "count": 2}],
            }
        ],
        "signals": 1 << SIGNALS.index("redacted"),
        "attempt_count": 2,
        "retry_count": 0,
        "fallback_count": 1,
        "input_tokens": 10,
        "cached_input_tokens": 4,
        "cache_write_tokens": 1,
        "output_tokens": 20,
        "reasoning_tokens": 5,
        "audio_input_tokens": 2,
        "image_input_tokens": 3,
        "audio_output_tokens": 4,
        "image_output_tokens": 6,
        "characters": 7,
        "seconds": 8,
        "images": 9,
        "service_tier": "priority",
        "usage_estimated": True,
        "output_cap": 64,
        "output_clamped": True,
        "cost_nano": 1200,
        "held_nano": 1900,
        "overrun_nano": 200,
        "cache": "miss",
        "saved_nano": 17,
        "charges": [
            {"window": window, "held": 1900, "cost": 1000, "overrun": 200},
            {"budget": str(soft.pk), "cost": 1200},
        ],
        "total_us": 5000,
        "ttft_us": 900,
        "upstream_us": 4500,
        "queue_us": 11,
        "provider_us": 4000,
        "provider_request_id": "p-1",
        "request_id": "req-1",
        "feature": "triage",
        "user_digest": "ff8d9819fc0e12bf",
        "session": "s",
        "tags": ["a", "b"],
        "prompt_digest": "0123456789abcdef",
        "prompt_name": "triage",
        "prompt_version": 4,
        "request_bytes": 77,
        "response_bytes": 99,
    }
    stands(window, settled=1000, leased=4000, overrun=200)
    assert Window.objects.get(budget=soft).settled_nano == 1200
    for row in (key, credential, refused):
        row.refresh_from_db()
    assert key.last_used_at and credential.last_used_at
    assert (refused.last_failure, refused.last_used_at) == ("401 invalid_api_key", None)


def test_what_callers_send_can_not_stop_a_journal(tmp_path: Path, db: None) -> None:
    scribe = Scribe.at(tmp_path)
    nasty = "\0\u2028'\";--\\u0000 \U0001f600" * 100
    scribe.call(
        feature=nasty,
        route=nasty,
        endpoint=nasty,
        request=nasty,
        user=nasty,
        session=nasty,
        tags=[nasty, ""],
        prompt=nasty,
        bytes_in=2**40,
        revision=2**40,
        result=outcome(
            model=nasty,
            code=nasty,
            message=nasty,
            finish=nasty,
            provider=nasty,
            upstream_model=nasty,
            provider_request=nasty,
            attempts=[Attempt(n=1, model=nasty, provider=nasty, note=nasty)],
            http=10**6,
            retries=10**6,
            fallbacks=-5,
            tokens=Tokens(input=2**60, output=-1, media=Media(audio_input=2**60, seconds=-1), tier="x" * 99),
            total_us=-7,
            ttft_us=2**70,
        ),
    )
    Ingester(tmp_path).run_once()
    call = Call.objects.get()
    assert call.feature.startswith("�") and len(call.feature) == 100 and len(call.user_digest) == 16
    assert (call.input_tokens, call.output_tokens, call.total_us) == (2**31 - 1, 0, 0)
    assert call.attempts[0]["note"].startswith("�") and not Journal.objects.get().problem


def test_projects_keys_and_budgets_may_be_gone(tmp_path: Path, db: None, caplog: Any) -> None:
    scribe = Scribe.at(tmp_path)
    window = leased(budget_of(100), uuid4(), 0)
    scribe.call(windows={window + 77: (5, 5)}, soft=(str(uuid4()),), cost=5)
    Ingester(tmp_path).run_once()
    assert Call.objects.get().cost_nano == 5
    assert "does not exist" in caplog.text and not Journal.objects.get().problem


def test_reading_again_books_nothing_twice(tmp_path: Path, db: None) -> None:
    scribe = Scribe.at(tmp_path)
    window = leased(budget_of(10**12), scribe.writer.journal_id, 10**9)
    for cost in range(1, 40):
        scribe.call(windows={window: (100, cost)}, cost=cost)
    spent = sum(range(1, 40))
    behind = Follower(tmp_path, scribe.writer.journal_id)
    assert behind.step(5) == 5
    for batch in (1, 3, 1000):
        Ingester(tmp_path, batch=batch).run_once()
    while behind.step(10):
        pass
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tmp_path.glob("*.jsonl"):
        shutil.copy(path, copy)
    scribe.writer.close()
    for _ in range(3):
        Ingester(tmp_path).run_once()
        assert_calls(scribe.written)
        assert_rollups(scribe.written)
        stands(window, settled=spent)
        # Even from a backup of its files a closed journal is not booked again; they are removed.
        for path in copy.iterdir():
            shutil.copy(path, tmp_path)
    Ingester(tmp_path).run_once()
    assert not list(tmp_path.glob("*.jsonl"))
    stands(window, settled=spent)
    assert Lease.objects.get(journal_id=scribe.writer.journal_id).state == Lease.CLOSED


def test_two_ingesters_on_one_dead_journal_book_it_once(tmp_path: Path, transactional_db: None) -> None:
    scribe = Scribe.at(tmp_path)
    window = leased(budget_of(10**12), scribe.writer.journal_id, 10**9)
    scribe.traffic(300)
    for _ in range(50):
        scribe.call(windows={window: (10, 7)}, cost=7)
    scribe.hold(origin(), windows={window: 31})
    scribe.writer.close()

    def ingest() -> None:
        Ingester(tmp_path, batch=40).run_once()

    assert in_threads(ingest, ingest, ingest) == [None] * 3
    Ingester(tmp_path).run_once()
    unknown = Call.objects.get(status=Call.UNKNOWN)
    assert unknown.cost_nano == 31
    stands(window, settled=50 * 7 + 31)
    unknown.delete()
    assert_calls(scribe.written)
    assert Journal.objects.get().state == Journal.CLOSED


def test_many_journals_with_many_ingesters_share_rollups_without_loss(
    tmp_path: Path, transactional_db: None
) -> None:
    shared = {"projects": [uuid4()], "keys": [uuid4()]}
    scribes = [Scribe.at(tmp_path, **shared) for _ in range(4)]
    window = leased(budget_of(10**12), uuid4(), 0)
    for scribe in scribes:
        budgets.lease(
            window_id=window, journal_id=scribe.writer.journal_id, need=0, want=10**6, lease_seconds=3600
        )
        scribe.traffic(120)
        for _ in range(10):
            scribe.call(windows={window: (10, 3)}, cost=3)

    def ingest() -> None:
        Ingester(tmp_path, batch=25).run_once()

    assert in_threads(ingest, ingest, ingest) == [None] * 3
    written = [ended for scribe in scribes for ended in scribe.written]
    Ingester(tmp_path).run_once()
    assert_calls(written)
    assert_rollups(written)
    stands(window, settled=4 * 10 * 3, leased=4 * (10**6 - 30))


def test_a_dead_process_is_finished(tmp_path: Path, db: None) -> None:
    scribe = Scribe.at(tmp_path)
    window = leased(budget_of(10_000), scribe.writer.journal_id, 5000)
    between, during, retried, hold_only = (origin() for _ in range(4))
    soft = budget_of(1, hard=False)
    scribe.call(windows={window: (100, 60)}, cost=60)
    scribe.hold(between, windows={window: 100})
    scribe.end(between, windows={window: (100, 70)}, cost=70)
    scribe.hold(during, windows={window: 200}, soft=[str(soft.pk)])
    scribe.hold(retried, windows={window: 300})
    scribe.end(retried, windows={window: (300, 40)}, cost=40)
    scribe.hold(retried, attempt=2, windows={window: 500})
    scribe.hold(hold_only)
    Ingester(tmp_path).run_once()
    stands(window, settled=170, leased=4830)
    assert Call.objects.count() == 1, "calls of a living process wait for their end"
    scribe.writer.close()
    with next(tmp_path.glob("*.jsonl")).open("ab") as file:
        file.write(b'{"t":"end","n":10,"at":17')
    Ingester(tmp_path).run_once()
    calls = {str(call.pk): call for call in Call.objects.filter(status=Call.UNKNOWN)}
    assert {key: call.cost_nano for key, call in calls.items()} == {
        between.call: 70,
        during.call: 200,
        retried.call: 540,
        hold_only.call: 0,
    }
    assert all(call.error_code == "outcome_unknown" and call.error_message for call in calls.values())
    assert calls[retried.call].charges == [{"window": window, "held": 800, "cost": 540, "overrun": 0}]
    stands(window, settled=60 + 70 + 200 + 540)
    assert Window.objects.get(budget=soft).settled_nano == 200
    row = Journal.objects.get()
    assert (row.state, row.problem) == (Journal.CLOSED, "")
    assert [path.name for path in tmp_path.iterdir()] == []
    assert sum(Rollup.objects.filter(granularity=86400).values_list("cost_nano", flat=True)) == 870


def test_segments_go_once_their_calls_have_ended_and_a_new_ingester_remembers_the_rest(
    tmp_path: Path, db: None
) -> None:
    writer = journal.JournalWriter(tmp_path, segment_bytes=3000)
    scribe = Scribe(writer)
    window = leased(budget_of(10**9), writer.journal_id, 10**6)
    first, open_one = origin(), origin()
    scribe.hold(first, windows={window: 10})
    for _ in range(30):
        scribe.call()
    ingester = Ingester(tmp_path, batch=7)
    ingester.run_once()
    numbers = journal.found(tmp_path)[writer.journal_id]
    assert numbers[0] == 0 and len(numbers) > 3, "the open call of segment 0 keeps it"
    scribe.end(first, windows={window: (10, 4)}, cost=4, result=outcome())
    scribe.hold(open_one, windows={window: 9})
    scribe.end(open_one, windows={window: (9, 2)}, cost=2)
    for _ in range(20):
        scribe.call()
    ingester.run_once()
    kept = journal.found(tmp_path)[writer.journal_id]
    assert kept[0] > numbers[-1] - 2
    # Another ingester knows of the attempt that was booked before it came.
    scribe.hold(open_one, attempt=2, windows={window: 9})
    scribe.end(open_one, attempt=2, windows={window: (9, 3)}, cost=3, result=outcome())
    Ingester(tmp_path).run_once()
    assert Call.objects.get(pk=open_one.call).cost_nano == 5
    assert_calls(scribe.written)
    stands(window, settled=9, leased=10**6 - 9)
