"""Jobs that outlive their workers, figures recomputed under traffic, calls past their retention."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import FloatField, IntegerField, Value
from django.db.models.functions import Cast
from django.utils import timezone

from llmops.audit.models import Event
from llmops.base.models import LiveVersion
from llmops.core.errors import Conflict, InvalidRequest
from llmops.core.histogram import GAMMA, bucket_of
from llmops.usage import rebuild, services
from llmops.usage.ingest.loop import Ingester
from llmops.usage.models import AttributionRollup, Call, Job, LatencyRollup, RetentionMark, Rollup
from llmops.usage.services import jobs as job_services
from tests.cast import COMMAND, in_threads, no_event, one_event
from tests.installation import Installation
from tests.usage.journals import Scribe
from tests.usage.reckoning import assert_latencies, assert_rollups, stored_rollups

DAY = date(2024, 5, 16)
MIDNIGHT = datetime(2024, 5, 16, tzinfo=UTC)
#: A few hours around the steps at which workers come and go here; that a whole day is added up is one test's.
BUSY: dict[str, Any] = {"since": MIDNIGHT + timedelta(hours=4), "hours": 4}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs handed to workers; the broker is not part of what is tested here."""
    found: list[str] = []
    monkeypatch.setattr(job_services, "send", lambda task, job: found.append(f"{task} {job}"))
    return found


def scribe_of(directory: Path, calls: int = 250, *, since: datetime = MIDNIGHT, hours: float = 24) -> Scribe:
    scribe = Scribe.at(directory)
    scribe.traffic(calls, since=since.timestamp(), seconds=hours * 3600 - 1)
    return scribe


def asked(day: date = DAY) -> Job:
    return services.request_rebuild(COMMAND, day, enqueue=False)


def finished(job: Job) -> Job:
    assert services.run_job(job.pk) is not None
    job.refresh_from_db()
    return job


def spoil() -> None:
    """Rollups as no ingester leaves them: too much, too little, missing, and from nowhere."""
    minutes = Rollup.objects.filter(granularity=60, bucket__date=DAY).order_by("pk")
    first, second, third = minutes[0], minutes[1], minutes[2]
    Rollup.objects.filter(pk=first.pk).update(calls=first.calls + 3, cost_nano=0)
    second.delete()
    Rollup.objects.create(
        **{name: getattr(third, name) for name in Rollup.DIMENSIONS} | {"feature": "nowhere"}, calls=9
    )
    Rollup.objects.filter(granularity=3600, bucket__date=DAY).delete()
    Rollup.objects.filter(granularity=86400, bucket__date=DAY).update(output_tokens=1)
    LatencyRollup.objects.filter(granularity=60, bucket__date=DAY, metric="ttft").delete()
    LatencyRollup.objects.filter(granularity=86400, bucket__date=DAY).update(calls=77)
    named = AttributionRollup.objects.filter(bucket__date=DAY, granularity=86400)
    named.filter(kind="tag").update(cost_nano=5)
    named.filter(kind="user", value="0123456789abcdef").delete()
    AttributionRollup.objects.filter(
        granularity=AttributionRollup.MONTH,
        value="vip",
        project_id__in=set(named.values_list("project_id", flat=True)),
    ).delete()
    stranger = uuid4()
    for granularity, bucket in ((86400, MIDNIGHT), (AttributionRollup.MONTH, MIDNIGHT.replace(day=1))):
        AttributionRollup.objects.create(
            granularity=granularity,
            bucket=bucket,
            kind="user",
            project_id=stranger,
            value="nobody",
            calls=1,
        )


def test_what_ingest_adds_up_a_rebuild_finds_right(tmp_path: Path, db: None) -> None:
    """Two ways to the same figures: added call by call, and counted from the table of calls by SQL."""
    scribe = scribe_of(tmp_path)
    Ingester(tmp_path).run_once()
    job = finished(asked())
    assert (job.state, job.done, job.total) == (Job.DONE, rebuild.STEPS, rebuild.STEPS)
    assert job.result["differences"] == [] and job.result["rows"] == 0
    assert job.message.startswith("Nothing differed: 250 calls, ")
    assert_rollups(scribe.written)


def test_a_rebuild_mends_the_day_and_touches_no_other(tmp_path: Path, db: None) -> None:
    before = scribe_of(tmp_path, 40, since=MIDNIGHT - timedelta(hours=2), hours=2)
    after = scribe_of(tmp_path, 40, since=MIDNIGHT + timedelta(days=1), hours=2)
    scribe = scribe_of(tmp_path, since=MIDNIGHT + timedelta(hours=20), hours=4)
    Ingester(tmp_path).run_once()
    written = before.written + scribe.written + after.written
    spoil()
    Rollup.objects.filter(granularity=60, bucket__gte=MIDNIGHT + timedelta(days=1)).update(streamed=-1)
    untouched = {key: sums for key, sums in stored_rollups().items() if key[1].date() != DAY}
    job = finished(asked())
    assert job.result["rows"] > 5 and "rows were corrected: 250 calls" in job.message
    assert any("2024-05-16 " in line and " became " in line for line in job.result["differences"])
    assert {key: sums for key, sums in stored_rollups().items() if key[1].date() != DAY} == untouched
    Rollup.objects.filter(granularity=60, bucket__gte=MIDNIGHT + timedelta(days=1)).delete()
    finished(asked(DAY + timedelta(days=1)))
    assert_rollups(written)
    assert_latencies(written)


@pytest.mark.parametrize("edge", range(0, 1400, 100))
def test_sql_sorts_durations_into_the_same_buckets(db: None, edge: int) -> None:
    """Around every boundary of a hundred buckets, on both sides of it."""
    values = sorted(
        {max(0, round(GAMMA**exponent) + step) for exponent in range(edge, edge + 100) for step in (-1, 0, 1)}
    )
    assert values[-1] < 2**63
    LiveVersion.objects.all().delete()
    LiveVersion.objects.bulk_create(LiveVersion(name=f"v{value}", number=value) for value in values)
    expression = rebuild._log_bucket()
    rows = (
        LiveVersion.objects.annotate(us=Cast("number", FloatField()) + Value(0.0))
        .annotate(found=Cast(expression, IntegerField()))
        .values_list("number", "found")
    )
    assert dict(rows) == {value: bucket_of(value) for value in values}


def test_asking_leaves_one_event_and_a_job_that_says_who(db: None, sent: list[str]) -> None:
    with one_event("usage.rebuild_requested") as seen:
        job = services.request_rebuild(COMMAND, DAY, reason="an invoice differs")
    assert sent == [f"usage.run_job {job.pk}"]
    assert (seen.event.object_id, seen.event.reason) == (str(job.pk), "an invoice differs")
    assert (job.requested_by, job.state, job.total) == (COMMAND.name, Job.QUEUED, rebuild.STEPS)
    with no_event(), pytest.raises(Conflict) as conflict:
        services.request_rebuild(COMMAND, DAY)
    assert conflict.value.param == "day"
    services.request_rebuild(COMMAND, DAY - timedelta(days=1))


def test_impossible_days_are_refused(db: None) -> None:
    tomorrow = timezone.now().date() + timedelta(days=1)
    RetentionMark.objects.create(calls_since=MIDNIGHT)
    for day, reason in ((tomorrow, "not begun"), (DAY - timedelta(days=1), "retention")):
        with no_event(), pytest.raises(InvalidRequest, match=reason) as refusal:
            asked(day)
        assert refusal.value.param == "day"
    asked(DAY)


def test_retention_in_the_middle_of_a_rebuild_ends_it(tmp_path: Path, db: None) -> None:
    scribe_of(tmp_path)
    Ingester(tmp_path).run_once()
    figures = stored_rollups()

    def told(job: Job) -> None:
        if job.done == 40:
            services.apply_retention(COMMAND, days=1, now=MIDNIGHT + timedelta(days=2, hours=5))

    job = asked()
    services.run_job(job.pk, told=told)
    job.refresh_from_db()
    assert job.state == Job.FAILED and "retention" in job.message and job.done == 40
    assert Call.objects.count() == 0
    assert stored_rollups() == figures, "what the calls were counted into stays"


class Killed(BaseException):
    """The worker is gone between two steps."""


def test_another_worker_goes_on_where_one_died(tmp_path: Path, db: None, sent: list[str]) -> None:
    scribe = scribe_of(tmp_path, **BUSY)
    Ingester(tmp_path).run_once()
    spoil()
    job = asked()

    def dies(at: int) -> Any:
        def told(job: Job) -> None:
            if job.done == at:
                raise Killed

        return told

    with pytest.raises(Killed):
        services.run_job(job.pk, told=dies(30))
    assert services.run_job(job.pk) is None, "its worker was seen a moment ago"
    assert services.resume_jobs() == [] and sent == []
    now = timezone.now()
    assert services.resume_jobs(now + job_services.SILENCE + timedelta(seconds=5)) == [job.pk]
    assert sent == [f"usage.run_job {job.pk}"]
    steps: list[int] = []
    Job.objects.filter(pk=job.pk).update(heartbeat_at=now - 2 * job_services.SILENCE)
    services.run_job(job.pk, told=lambda job: steps.append(job.done))
    job.refresh_from_db()
    assert steps == list(range(31, rebuild.STEPS + 1))
    assert job.state == Job.DONE and job.result["calls"] == 250
    assert_rollups(scribe.written)
    assert services.run_job(job.pk) is None, "what is done is done"


def test_a_worker_that_wakes_up_late_changes_nothing(tmp_path: Path, db: None) -> None:
    scribe_of(tmp_path, 20, **BUSY)
    Ingester(tmp_path).run_once()
    job = asked()
    taken: list[Any] = []

    def told(late: Job) -> None:
        if late.done == 10:
            Job.objects.filter(pk=job.pk).update(heartbeat_at=timezone.now() - 2 * job_services.SILENCE)
            taken.append(services.run_job(job.pk))

    assert services.run_job(job.pk, told=told) is None
    job.refresh_from_db()
    assert taken[0].state == Job.DONE and job.state == Job.DONE and job.done == rebuild.STEPS
    assert job.result["calls"] == 20


def test_a_job_nobody_began_is_handed_out_again(db: None, sent: list[str]) -> None:
    job = services.request_rebuild(COMMAND, DAY)
    sent.clear()
    now = timezone.now()
    assert services.resume_jobs(now) == []
    assert services.resume_jobs(now + timedelta(minutes=1)) == [job.pk]
    assert sent == [f"usage.run_job {job.pk}"]


def test_a_job_that_kills_its_workers_is_given_up(db: None) -> None:
    job = asked()

    def dies(job: Job) -> None:
        raise Killed

    for _ in range(job_services._MOST_TRIES):
        Job.objects.filter(pk=job.pk).update(heartbeat_at=timezone.now() - 2 * job_services.SILENCE)
        with pytest.raises(Killed), pytest.MonkeyPatch.context() as patch:
            patch.setattr(rebuild, "step", lambda *_: dies(job))
            services.run_job(job.pk)
    Job.objects.filter(pk=job.pk).update(heartbeat_at=timezone.now() - 2 * job_services.SILENCE)
    assert services.run_job(job.pk) is None
    job.refresh_from_db()
    assert job.state == Job.FAILED and "Given up" in job.message


def test_a_fault_ends_the_job_with_a_sentence(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: Any) -> Any:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(rebuild, "step", fault)
    job = finished(asked())
    assert job.state == Job.FAILED and "ZeroDivisionError" in job.message and job.finished_at


def test_one_of_many_workers_gets_the_job(tmp_path: Path, transactional_db: None) -> None:
    scribe = scribe_of(tmp_path, 60, **BUSY)
    Ingester(tmp_path).run_once()
    job = asked()
    results = in_threads(*[lambda: services.run_job(job.pk)] * 4)
    assert sorted(result is not None for result in results) == [False, False, False, True], results
    assert_rollups(scribe.written)


def test_traffic_during_a_rebuild_is_counted_once(tmp_path: Path, transactional_db: None) -> None:
    """An ingester books calls of the very day, while it is spoilt and recomputed, again and again."""
    scribe = scribe_of(tmp_path, 100, **BUSY)
    Ingester(tmp_path).run_once()
    spoil()
    stop = threading.Event()

    def write_and_book() -> None:
        ingester = Ingester(tmp_path, batch=9)
        while not stop.is_set():
            scribe.traffic(5, since=MIDNIGHT.timestamp(), seconds=86399)
            ingester.run_once()
        connection.close()

    thread = threading.Thread(target=write_and_book)
    thread.start()
    try:
        job = finished(asked())
    finally:
        stop.set()
        thread.join(60)
    Ingester(tmp_path).run_once()
    assert job.state == Job.DONE and job.result["rows"] > 0, job.message
    assert len(scribe.written) > 110
    assert_rollups(scribe.written)
    assert_latencies(scribe.written)


def test_retention_removes_whole_days_and_says_so_once(tmp_path: Path, db: None) -> None:
    now = MIDNIGHT + timedelta(days=3, hours=7)
    scribe_of(tmp_path, 40)
    recent = scribe_of(tmp_path, 30, since=MIDNIGHT + timedelta(days=1))
    Ingester(tmp_path).run_once()
    figures = stored_rollups()
    assert services.apply_retention(COMMAND, days=0, now=now) == 0
    with no_event():
        assert services.apply_retention(COMMAND, days=3, now=now) == 0
    with one_event("usage.calls_removed") as seen:
        assert services.apply_retention(COMMAND, days=2, now=now, batch=7, most_seconds=0.0) == 0
        assert services.apply_retention(COMMAND, days=2, now=now, batch=7) == 40
        assert services.apply_retention(COMMAND, days=2, now=now) == 0
    assert seen.event.after == {"calls_since": "2024-05-17T00:00:00+00:00", "retention_days": 2}
    assert Call.objects.count() == 30 and stored_rollups() == figures
    assert len(recent.written) >= 30
    services.apply_retention(COMMAND, days=1, now=now)
    assert Call.objects.count() == 0 and RetentionMark.objects.get().calls_since.day == 18
    assert Event.objects.filter(action="usage.calls_removed").count() == 2


_WORKER = """
import os, signal, sys, django
django.setup()
from uuid import UUID
from llmops.usage.services import run_job
run_job(UUID(sys.argv[1]), told=lambda job: os.kill(os.getpid(), signal.SIGKILL) if job.done == 60 else None)
"""


def test_kill_9_of_a_worker(installation: Installation) -> None:
    directory = installation.data_dir / "journal"
    scribe = scribe_of(directory, 120)
    scribe.writer.close()
    installation.manage("ingest", "--once")
    asking = (
        "from llmops.usage.services import request_rebuild; from llmops.core.actors import SYSTEM; "
        f"from datetime import date; print(request_rebuild(SYSTEM, date.fromisoformat('{DAY}'), enqueue=False).pk)"
    )
    job = installation.manage("shell", "-v0", "-c", asking).stdout.split()[-1]
    worker = installation.spawn(
        ["python", "-c", _WORKER, job], env={"DJANGO_SETTINGS_MODULE": "console.settings"}
    )
    assert worker.wait() == -9
    state = "SELECT state, done FROM usage_job"
    assert installation.rows(state) == [("running", 60)]
    late = (
        "from django.utils import timezone; from datetime import timedelta; from llmops.usage.models import Job; "
        "from llmops.usage.services import resume_jobs, run_job; "
        "Job.objects.update(heartbeat_at=timezone.now() - timedelta(minutes=5)); "
        "print([run_job(job).message for job in resume_jobs()])"
    )
    assert "Nothing differed: 120 calls" in installation.manage("shell", "-v0", "-c", late).stdout
    assert installation.rows(state) == [("done", rebuild.STEPS)]


def test_the_command_works_at_once_and_refuses_with_sentences(tmp_path: Path, db: None) -> None:
    scribe_of(tmp_path, 30)
    Ingester(tmp_path).run_once()
    spoil()
    out = StringIO()
    with one_event("usage.rebuild_requested"):
        call_command("usage", "rebuild", "--day", str(DAY), "--reason", "to be sure", stdout=out)
    assert "rows were corrected: 30 calls" in out.getvalue() and " became " in out.getvalue()
    for wrong in ("yesterday", "2026-02-30", "2999-01-01"):
        with no_event(), pytest.raises(CommandError, match="day"):
            call_command("usage", "rebuild", "--day", wrong)
    asked()
    with pytest.raises(CommandError, match="already"):
        call_command("usage", "rebuild", "--day", str(DAY))
