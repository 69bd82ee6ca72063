"""What calls of several places add up to at once: bucket by bucket what the calls themselves say, with summaries and without."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from llmops.core.sketches import calls_in
from llmops.usage import services
from llmops.usage.ingest.loop import Ingester
from llmops.usage.models import Call, Rollup, StaleSummary, Summary
from llmops.usage.selectors.places import Place, Wanted, by_place
from llmops.usage.selectors.spans import Stretch
from llmops.usage.summaries import Bucket, Summed
from tests.usage.journals import Scribe

pytestmark = pytest.mark.django_db
MIDNIGHT = datetime(2024, 5, 16, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PROJECTS = [uuid4(), uuid4()]
AT = {name: Rollup.SUMS.index(name) for name in ("calls", "cost_nano")}


def book(calls: int, *, since: datetime, length: timedelta, seed: int = 7) -> None:
    with tempfile.TemporaryDirectory() as directory:
        scribe = Scribe.at(Path(directory), projects=PROJECTS, keys=[uuid4()])
        scribe.random.seed(seed)
        scribe.traffic(calls, since=since.timestamp(), seconds=length.total_seconds() - 1)
        scribe.writer.close()
        Ingester(Path(directory)).run_once()


def buckets(granularity: int, start: datetime, end: datetime) -> frozenset[Bucket]:
    return frozenset(Stretch(granularity, start, end).buckets())


def told(summed: Summed) -> tuple[int, int, int]:
    calls, cost = (sum(sums[AT[name]] for sums in summed.counts.values()) for name in AT)
    return calls, cost, calls_in(summed.sketches.get("total", 0))


def reckoned(calls: list[Call], place: Place, bucket: Bucket, *, timed: bool) -> tuple[int, int, int]:
    end = bucket.at + timedelta(seconds=bucket.granularity)
    wanted: dict[str, Any] = {**place.narrowed()}
    if place.project_id is not None:
        wanted["project_id"] = place.project_id
    rows = [
        call
        for call in calls
        if bucket.at <= call.started_at < end
        and all(getattr(call, name) == value for name, value in wanted.items())
    ]
    answered = [call for call in rows if call.status == "ok" and call.attempt_count]
    return len(rows), sum(call.cost_nano for call in rows), len(answered) if timed else 0


def test_each_bucket_is_what_its_calls_add_up_to_whatever_is_summed_up_yet() -> None:
    book(120, since=MIDNIGHT, length=2 * DAY)
    feature = Call.objects.exclude(feature="").values_list("feature", flat=True)[0]
    route = Call.objects.exclude(route="").values_list("route", flat=True)[0]
    # Windows that overlap, as those of objectives do: days, the hours of the last one, some minutes.
    wide = (
        buckets(86_400, MIDNIGHT, MIDNIGHT + 2 * DAY)
        | buckets(3_600, MIDNIGHT + DAY, MIDNIGHT + 2 * DAY)
        | buckets(60, MIDNIGHT + DAY, MIDNIGHT + DAY + HOUR)
    )
    timed = frozenset({"total"})
    asked = {
        Place(): Wanted(wide),
        Place(PROJECTS[0]): Wanted(wide),
        Place(route=route): Wanted(wide, timed),
        Place(PROJECTS[1], route=route): Wanted(wide, timed),
        Place(feature=feature): Wanted(wide),
        Place(PROJECTS[0], feature=feature): Wanted(buckets(3_600, MIDNIGHT, MIDNIGHT + 2 * DAY)),
        Place(route=route, feature=feature): Wanted(wide),
        Place(feature="no such feature"): Wanted(wide),
    }

    def check() -> None:
        calls = list(Call.objects.all())
        for place, found in by_place(asked).items():
            for bucket in asked[place].buckets:
                expected = reckoned(calls, place, bucket, timed=bool(asked[place].metrics))
                assert told(found.get(bucket, Summed())) == expected, (place, bucket)

    check()
    services.renew_summaries(most_seconds=60)
    check()
    # The last day and hour are behind again, as while calls are booked.
    book(10, since=MIDNIGHT + DAY, length=HOUR, seed=8)
    assert StaleSummary.objects.exists()
    check()
    services.renew_summaries(most_seconds=60)
    check()
    # Summaries of before know of no features.
    Summary.objects.filter(dimension=Summary.FEATURE).delete()
    check()


@pytest.mark.any_engine
def test_queries_do_not_grow_with_places_and_spare_the_rollups() -> None:
    book(60, since=MIDNIGHT, length=DAY)
    services.renew_summaries(most_seconds=60)
    there = Rollup.objects.filter(granularity=86_400).values_list("granularity", "bucket").distinct()
    wanted = Wanted(frozenset(Bucket(*row) for row in there))
    places = [Place(), *(Place(one) for one in PROJECTS), *(Place(route=f"r{n}") for n in range(20))]
    for some in (places[:1], places):
        with CaptureQueriesContext(connection) as seen:
            by_place(dict.fromkeys(some, wanted))
        assert len(seen) == 2 and not any("rollup" in query["sql"] for query in seen)
    with CaptureQueriesContext(connection) as seen:
        by_place({Place(feature=name): wanted for name in "abc"})
    assert len(seen) == 2
