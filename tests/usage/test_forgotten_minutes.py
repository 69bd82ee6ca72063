"""Rollups by minute go after a while; hours and days stay exact, and whatever recomputes them is never in the way."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from llmops.usage import services
from llmops.usage.ingest.loop import Ingester
from llmops.usage.models import Job, LatencyRollup, PromptRollup, RetentionMark, Rollup
from llmops.usage.selectors import overview
from tests.cast import COMMAND, no_event, one_event
from tests.usage.journals import Scribe
from tests.usage.reckoning import assert_latencies, assert_rollups, stored_rollups

MIDNIGHT = datetime(2024, 5, 16, tzinfo=UTC)
NOW = MIDNIGHT + timedelta(days=9, hours=5)


def traffic(directory: Path) -> Scribe:
    scribe = Scribe.at(directory)
    scribe.traffic(60, since=MIDNIGHT.timestamp(), seconds=86_000)
    scribe.traffic(20, since=(MIDNIGHT + timedelta(days=3)).timestamp(), seconds=3_000)
    Ingester(directory).run_once()
    return scribe


def older(granularity: int) -> int:
    rows = {"granularity": granularity, "bucket__lt": MIDNIGHT + timedelta(days=2)}
    return sum(table.objects.filter(**rows).count() for table in (Rollup, LatencyRollup, PromptRollup))


def test_minutes_go_and_hours_and_days_stay(tmp_path: Path, db: None) -> None:
    traffic(tmp_path)
    kept = {key: sums for key, sums in stored_rollups().items() if key[0] > 60}
    minutes = older(60)
    with no_event():
        assert services.forget_minutes(COMMAND, days=0, now=NOW) == 0
        assert services.forget_minutes(COMMAND, days=30, now=NOW) == 0
    with one_event("usage.minutes_removed") as seen:
        assert services.forget_minutes(COMMAND, days=7, now=NOW, batch=9, most_seconds=0.0) == 0
        assert services.forget_minutes(COMMAND, days=7, now=NOW, batch=9) == minutes
        assert services.forget_minutes(COMMAND, days=7, now=NOW) == 0
    assert seen.event.after == {"minutes_since": "2024-05-18T00:00:00+00:00", "retention_days": 7}
    assert {key: sums for key, sums in stored_rollups().items() if key[0] > 60} == kept
    assert older(60) == 0
    assert Rollup.objects.filter(granularity=60, bucket__gte=MIDNIGHT + timedelta(days=3)).exists()
    assert RetentionMark.objects.get().calls_since is None


def test_an_hour_whose_minutes_are_gone_is_shown_by_the_hour(tmp_path: Path, db: None) -> None:
    traffic(tmp_path)
    start, end = MIDNIGHT + timedelta(hours=9), MIDNIGHT + timedelta(hours=11)
    before = overview(start=start, end=end, project_ids=None)
    assert before.granularity == 60 and before.calls > 0
    services.forget_minutes(COMMAND, days=7, now=NOW)
    for asked in (None, 60):
        after = overview(start=start, end=end, project_ids=None, granularity=asked)
        assert (after.granularity, after.calls, after.spend_nano) == (3600, before.calls, before.spend_nano)
    recent = MIDNIGHT + timedelta(days=3)
    assert overview(start=recent, end=recent + timedelta(hours=1), project_ids=None).granularity == 60


def test_a_day_that_is_recomputed_keeps_its_minutes_until_it_is_done(tmp_path: Path, db: None) -> None:
    scribe = traffic(tmp_path)
    services.forget_minutes(COMMAND, days=7, now=NOW)
    job = services.request_rebuild(COMMAND, date(2024, 5, 16), enqueue=False)
    tried = []

    def told(job: Job) -> None:
        # Between the minutes of an hour and the hour itself.
        if job.done == 4:
            tried.append(services.forget_minutes(COMMAND, days=7, now=NOW))

    assert services.run_job(job.pk, told=told) is not None
    assert tried == [0]
    assert_rollups(scribe.written)
    assert_latencies(scribe.written)
    assert services.forget_minutes(COMMAND, days=7, now=NOW) > 0
    assert older(60) == 0
