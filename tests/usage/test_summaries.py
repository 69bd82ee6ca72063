"""Summaries of rollups: whatever is booked, made or half made when, pages tell what the calls themselves add up to."""

from __future__ import annotations

import importlib
import tempfile
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from llmops.dashboards import breakdown
from llmops.usage import rebuild, services, summaries
from llmops.usage.ingest.loop import Ingester
from llmops.usage.models import ORGANISATION, Call, Rollup, StaleSummary, Summary
from llmops.usage.selectors import Overview, overview
from llmops.usage.selectors.overview import ERRORS
from llmops.usage.work import is_model_work
from tests.cast import COMMAND, in_threads
from tests.trying import tries
from tests.usage.journals import Scribe
from tests.usage.reckoning import assert_close, nearest_rank

MIDNIGHT = datetime(2024, 5, 16, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PROJECTS, KEYS = [uuid4(), uuid4(), uuid4()], [uuid4(), uuid4()]


def book(calls: int, *, since: datetime, length: timedelta = HOUR, seed: int = 7) -> None:
    with tempfile.TemporaryDirectory() as directory:
        scribe = Scribe.at(Path(directory), projects=PROJECTS, keys=KEYS)
        scribe.random.seed(seed)
        scribe.traffic(calls, since=since.timestamp(), seconds=length.total_seconds() - 1)
        scribe.writer.close()
        Ingester(Path(directory)).run_once()


def renew() -> int:
    return services.renew_summaries(most_seconds=60)


def rebuild_hour(at: datetime) -> None:
    """What a rebuild of the day does to this hour, and to the day."""
    for number in (*range(5 * at.hour, 5 * at.hour + 5), rebuild.STEPS - 2):
        with transaction.atomic():
            rebuild.step(at.date(), number, {})


def calls_of(
    start: datetime, end: datetime, project_ids: set[UUID] | None, **exact: str | None
) -> list[Call]:
    found = Call.objects.filter(started_at__gte=start, started_at__lt=end)
    if project_ids is not None:
        found = found.filter(project_id__in=project_ids)
    return list(found.filter(**{name: value for name, value in exact.items() if value is not None}))


def assert_tells(told: Overview, calls: list[Call]) -> None:
    """Every figure is that of these calls, counted one by one."""
    assert told.calls == len(calls)
    assert told.by_status == Counter(call.status for call in calls)
    assert {(one.code, one.status): one.calls for one in told.error_codes} == Counter(
        (call.error_code, call.status) for call in calls if call.error_code
    )
    for name, of in (
        ("spend_nano", "cost_nano"),
        ("overrun_nano", "overrun_nano"),
        ("attempts", "attempt_count"),
        ("retries", "retry_count"),
    ):
        assert getattr(told, name) == sum(getattr(call, of) for call in calls), name
    assert told.tokens.input == sum(call.input_tokens for call in calls)
    assert told.fallback_calls == sum(call.fallback_count > 0 for call in calls)
    answered = [call for call in calls if call.status == "ok" and call.attempt_count]
    for percentiles, values in (
        (told.total, [call.total_us for call in answered]),
        (told.ttft, [call.ttft_us for call in calls if call.ttft_us is not None]),
        (
            told.overhead,
            [call.total_us - call.upstream_us for call in answered if call.upstream_us is not None],
        ),
    ):
        assert percentiles.calls == len(values)
        for q, value in ((0.5, percentiles.p50), (0.95, percentiles.p95), (0.99, percentiles.p99)):
            if values:
                assert_close(value, nearest_rank(sorted(values), q))
            else:
                assert value is None
    step = timedelta(seconds=told.granularity)
    for point in told.series:
        inside = [call for call in calls if point.at <= call.started_at < point.at + step]
        assert (point.calls, point.spend_nano) == (len(inside), sum(call.cost_nano for call in inside))
        assert point.errors == sum(call.status in ERRORS for call in inside)
        took = sorted(call.total_us for call in inside if call.status == "ok" and call.attempt_count)
        for q, value in ((0.5, point.p50_us), (0.95, point.p95_us)):
            if took:
                assert_close(value, nearest_rank(took, q))
            else:
                assert value is None


def assert_groups(where: dict[str, Any], calls: list[Call]) -> None:
    for dimension, told in zip(("route", "model"), breakdown.by_route_and_model(**where), strict=True):
        groups = {group.name: group for group in told}
        assert {name: group.calls for name, group in groups.items()} == Counter(
            getattr(call, dimension) for call in calls
        )
        for name, group in groups.items():
            inside = [call for call in calls if getattr(call, dimension) == name]
            assert group.cost_nano == sum(call.cost_nano for call in inside)
            assert group.failed == sum(call.status in ERRORS for call in inside)
            took = sorted(call.total_us for call in inside if call.status == "ok" and call.attempt_count)
            if took:
                assert_close(round(group.p95_us or 0), nearest_rank(took, 0.95))


def assert_right(start: datetime, end: datetime, granularity: int, project_ids: set[UUID] | None) -> None:
    told = overview(start=start, end=end, project_ids=project_ids, granularity=granularity)
    calls = calls_of(told.start, told.end, project_ids)
    assert all(is_model_work(call.endpoint, call.model) for call in calls)
    assert_tells(told, calls)
    where = {
        "start": told.start,
        "end": told.end,
        "granularity": told.granularity,
        "project_ids": project_ids,
    }
    assert_tells(overview(series=False, **where), calls)
    assert_groups(where, calls)


def assert_made_of_rollups() -> None:
    """Every summary is there, and says what its rollups add up to."""
    assert not StaleSummary.objects.exists()
    buckets = set(Rollup.objects.values_list("granularity", "bucket"))
    whole = Summary.objects.filter(project_id=ORGANISATION, dimension="")
    assert {*whole.values_list("granularity", "bucket")} >= buckets
    for granularity, at in buckets:
        stored = {
            (row.project_id, row.dimension, row.value): summaries.read(
                row.counts, [("total", row.total), ("ttft", row.ttft), ("overhead", row.overhead)]
            )
            for row in Summary.objects.filter(granularity=granularity, bucket=at)
        }
        assert stored == summaries._summaries({"granularity": granularity, "bucket": at})


class _Undo(Exception):
    pass


#: (what, hour it is about, size)
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["book", "book", "renew", "renew some", "rebuild", "forget", "recheck"]),
        st.integers(0, 71),
        st.integers(1, 25),
    ),
    min_size=2,
    max_size=6,
)
_RANGES = st.lists(
    st.tuples(
        st.integers(0, 70),
        st.integers(1, 72),
        st.sampled_from([3600, 86400]),
        st.sampled_from([None, set(PROJECTS[:1]), set(PROJECTS[:2])]),
    ),
    min_size=1,
    max_size=2,
)


@tries(40, at_least=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS, ranges=_RANGES)
def test_whatever_happens_in_any_order_pages_tell_what_calls_add_up_to(
    steps: list[tuple[str, int, int]], ranges: list[tuple[int, int, int, set[UUID] | None]], db: None
) -> None:
    with pytest.raises(_Undo), transaction.atomic():
        for number, (what, hour, size) in enumerate(steps):
            at = MIDNIGHT + hour * HOUR
            if what == "book":
                book(size, since=at, seed=number)
            elif what == "renew":
                renew()
            elif what == "renew some":
                for bucket, notes in list(summaries.stale(1000))[: size // 5]:
                    assert summaries.make(bucket, notes)
            elif what == "rebuild":
                rebuild_hour(at)
            elif what == "forget":
                services.forget_minutes(COMMAND, days=1, now=at)
            else:
                services.recheck_summaries(now=at)
            for first, length, granularity, project_ids in ranges:
                start = MIDNIGHT + first * HOUR
                assert_right(start, start + length * HOUR, granularity, project_ids)
        renew()
        assert_made_of_rollups()
        raise _Undo


def test_by_the_minute_too_and_for_a_route_or_a_model(db: None) -> None:
    book(200, since=MIDNIGHT, length=2 * HOUR)
    for again in range(2):
        assert_right(MIDNIGHT, MIDNIGHT + 2 * HOUR, 60, None)
        assert_right(MIDNIGHT + HOUR / 2, MIDNIGHT + HOUR, 60, set(PROJECTS[1:]))
        for exact in (
            {"route": "chat"},
            {"model": "large"},
            {"route": "", "model": "small"},
            {"route": "none"},
        ):
            told = overview(start=MIDNIGHT, end=MIDNIGHT + 2 * HOUR, project_ids=None, **exact)  # type: ignore[arg-type]
            assert_tells(told, calls_of(MIDNIGHT, MIDNIGHT + 2 * HOUR, None, **exact))
        if not again:
            renew()
            book(5, since=MIDNIGHT + HOUR / 3, length=HOUR / 60, seed=9)


def test_an_hour_that_is_recomputed_has_its_summaries_made_anew_whatever_they_said(db: None) -> None:
    book(60, since=MIDNIGHT, length=2 * HOUR)
    renew()
    Summary.objects.update(counts="[]", total=b"")
    Summary.objects.filter(dimension="route", granularity=3600).delete()
    for hour in (MIDNIGHT, MIDNIGHT + HOUR):
        rebuild_hour(hour)
    for granularity in (60, 3600, 86400):
        assert_right(MIDNIGHT, MIDNIGHT + 2 * HOUR, granularity, None)
    renew()
    assert_made_of_rollups()


def test_up_to_date_summaries_spare_pages_the_rollups(db: None) -> None:
    book(150, since=MIDNIGHT, length=3 * DAY)
    renew()
    where = {"start": MIDNIGHT, "end": MIDNIGHT + 3 * DAY, "project_ids": None}
    for granularity in (3600, 86400):
        with CaptureQueriesContext(connection) as seen:
            overview(granularity=granularity, **where)  # type: ignore[arg-type]
        read = [query["sql"] for query in seen if "usage_rollup" in query["sql"] or "latency" in query["sql"]]
        # Hours in which nobody called have no summary; looking them up takes one question to each of the two tables.
        assert len(seen) <= 4 and (granularity == 3600 or not read)
    book(1, since=MIDNIGHT + 5 * HOUR)
    with CaptureQueriesContext(connection) as seen:
        told = overview(granularity=86400, **where)  # type: ignore[arg-type]
    assert told.calls == 151 and len(seen) == 5


def test_summaries_that_were_there_before_the_first_are_made_by_and_by(db: None) -> None:
    """An installation of before: rollups without summaries, and without a note of them."""
    book(80, since=MIDNIGHT, length=2 * DAY)
    StaleSummary.objects.all().delete()
    assert_right(MIDNIGHT, MIDNIGHT + 2 * DAY, 3600, None)
    migration = importlib.import_module("llmops.usage.migrations.0019_summaries")
    with connection.cursor() as cursor:
        cursor.execute(migration._NOTE_ALL)
    hours = Rollup.objects.filter(granularity=3600).values("bucket").distinct().count()
    assert StaleSummary.objects.count() == hours + 2
    assert services.renew_summaries(most_seconds=0.0) == 0
    out = StringIO()
    call_command("usage", "summarise", stdout=out)
    assert out.getvalue() == f"{hours + 2} summaries were made\n"
    assert renew() == 0
    assert_right(MIDNIGHT, MIDNIGHT + 2 * DAY, 3600, None)
    with CaptureQueriesContext(connection) as seen:
        assert (
            overview(start=MIDNIGHT, end=MIDNIGHT + 2 * DAY, project_ids=None, granularity=86400).calls == 80
        )
    assert len(seen) == 2


def test_what_an_ingester_of_before_booked_is_found_within_a_day(db: None) -> None:
    now = MIDNIGHT + 30 * HOUR
    book(10, since=MIDNIGHT + 3 * HOUR)
    renew()
    book(10, since=MIDNIGHT + 3 * HOUR, seed=8)
    StaleSummary.objects.all().delete()
    assert services.recheck_summaries(now=now, days=1) == 2
    assert_right(MIDNIGHT, MIDNIGHT + DAY, 86400, None)
    renew()
    assert_right(MIDNIGHT, MIDNIGHT + DAY, 86400, None)


def test_a_worker_that_dies_half_way_leaves_the_bucket_behind_and_pages_right(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    book(20, since=MIDNIGHT)
    renew()
    book(20, since=MIDNIGHT, seed=8)
    with monkeypatch.context() as patched:
        patched.setattr(summaries.Summary.objects, "bulk_create", lambda *rows, **known: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            renew()
    assert StaleSummary.objects.exists()
    assert_right(MIDNIGHT, MIDNIGHT + DAY, 86400, None)
    renew()
    assert_made_of_rollups()


def test_who_looked_before_others_finished_changes_nothing(db: None) -> None:
    """The slower of two workers saw fewer calls: what it made of them must not replace what the faster one made."""
    book(20, since=MIDNIGHT)
    slow = list(summaries.stale(1000))
    book(20, since=MIDNIGHT, seed=8)
    renew()
    before = list(Summary.objects.order_by("pk").values_list("pk", flat=True))
    assert [summaries.make(bucket, notes) for bucket, notes in slow] == [False] * len(slow)
    assert list(Summary.objects.order_by("pk").values_list("pk", flat=True)) == before
    assert_made_of_rollups()


def test_corrections_reach_pages_as_everything_does(db: None, tmp_path: Path) -> None:
    from tests.usage.test_corrected_calls import correct, unknown_call

    call, *_ = unknown_call(tmp_path)
    start = call.started_at - HOUR
    renew()
    correct(call, call.cost_nano // 2)
    for _ in range(2):
        told = overview(start=start, end=start + 2 * HOUR, project_ids=None)
        assert told.spend_nano == Call.objects.get(pk=call.pk).cost_nano
        renew()


@pytest.mark.django_db(transaction=True)
def test_ingesters_and_workers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Two ingesters book into the same hours while workers make their summaries and a reader looks on: what it is told only grows."""
    rounds, each = 4, 25
    over = threading.Event()
    left = [2]

    def ingest(number: int) -> None:
        try:
            for turn in range(rounds):
                book(each, since=MIDNIGHT, length=3 * HOUR, seed=10 * number + turn)
        finally:
            left[0] -= 1
            if not left[0]:
                over.set()

    def work() -> None:
        # A pause between two turns: asking whether anything is behind is not what is tried here.
        while not over.wait(0.005):
            renew()

    def look() -> list[int]:
        seen = [0]
        while not over.wait(0.005):
            seen.append(
                overview(start=MIDNIGHT, end=MIDNIGHT + DAY, project_ids=None, granularity=3600).calls
            )
        return seen

    results = in_threads(lambda: ingest(1), lambda: ingest(2), work, work, look)
    assert not [one for one in results if isinstance(one, BaseException)], results
    assert results[-1] == sorted(results[-1])
    renew()
    assert_made_of_rollups()
    assert Call.objects.count() == 2 * rounds * each
    assert_right(MIDNIGHT, MIDNIGHT + DAY, 3600, None)
    assert_right(MIDNIGHT, MIDNIGHT + DAY, 86400, set(PROJECTS[:2]))
