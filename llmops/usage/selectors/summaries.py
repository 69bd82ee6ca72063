"""What calls of a range of time add up to, bucket by bucket: from summaries where they are up to date, else from rollups.

So that it is right while calls are booked and while summaries are still being made, and takes a few rows a bucket otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, Q

from llmops.usage.models import ORGANISATION, LatencyRollup, Rollup, StaleSummary, Summary
from llmops.usage.selectors.spans import Stretch
from llmops.usage.summaries import METRICS, Bucket, Summed, add_up, read

_DAY = timedelta(days=1)
#: So many days without a summary are put together from those of their hours; the day that is not over, as a rule.
FEW_DAYS = 2
#: More ranges than this are asked for as one.
_MOST_RANGES = 40


@dataclass(frozen=True, slots=True)
class Piece:
    """``value`` is that of ``dimension``, both empty where none was asked for. Pieces of one bucket and value may be several."""

    bucket: Bucket
    dimension: str
    value: str
    summed: Summed


def pieces(
    stretches: Collection[Stretch],
    *,
    project_ids: Collection[UUID] | None,
    by: Collection[str] = (),
    metrics: Collection[str] = METRICS,
    route: str | None = None,
    model: str | None = None,
    feature: str | None = None,
    sums: Collection[str] = Rollup.SUMS,
) -> list[Piece]:
    """What the calls in ``stretches`` add up to in these projects (None: in all), as a whole or ``by`` route, model or feature
    (each for itself), with sketches of ``metrics``, of which those of features are empty. Sums other than ``sums`` may be 0.

    A day may come in pieces of its hours. Two queries, two more where summaries are behind, and one for a day that is.
    """
    given = ((Summary.ROUTE, route), (Summary.MODEL, model), (Summary.FEATURE, feature))
    narrowed = {name: value for name, value in given if value is not None}
    if project_ids is not None and not project_ids:
        return []
    dimensions = by or [next(iter(narrowed), Summary.WHOLE)]
    stretches, clean = _state(stretches, made_of(dimensions))
    if len(narrowed) > (not by):
        # Of a route and a model together only rollups tell.
        clean = set()
    found = _from_summaries(stretches, clean, project_ids, dimensions, metrics, narrowed)
    behind = [bucket for stretch in stretches for bucket in stretch.buckets() if bucket not in clean]
    return found + _from_rollups(behind, project_ids, by, metrics, narrowed, sums)


def made_of(dimensions: Collection[str]) -> str:
    """The dimension of the row that says whether a bucket's summary tells of all these."""
    return Summary.FEATURE if Summary.FEATURE in dimensions else Summary.WHOLE


def _state(stretches: Collection[Stretch], told_by: str) -> tuple[list[Stretch], set[Bucket]]:
    """The stretches, with days that are behind given by the hour, and their buckets of which summaries are up to date."""
    clean = up_to_date(stretches, told_by)
    found: list[Stretch] = []
    split: list[Stretch] = []
    for stretch in stretches:
        days = []
        if stretch.granularity == Rollup.DAY:
            days = [day.at for day in stretch.buckets() if day not in clean]
        if not 0 < len(days) <= FEW_DAYS:
            found.append(stretch)
            continue
        split += [Stretch(Rollup.HOUR, day, day + _DAY) for day in days]
        edges = [stretch.start, *(edge for day in days for edge in (day, day + _DAY)), stretch.end]
        found += [
            Stretch(Rollup.DAY, first, last)
            for first, last in zip(edges[::2], edges[1::2], strict=True)
            if first < last
        ]
    return (found + split, clean | up_to_date(split, told_by)) if split else (found, clean)


def up_to_date(stretches: Collection[Stretch], told_by: str) -> set[Bucket]:
    """One query, so that what is told here was so at one moment. Whoever reads summaries afterwards finds none that is older."""
    behind = StaleSummary.objects.filter(granularity=OuterRef("granularity"), bucket=OuterRef("bucket"))
    made = Summary.objects.filter(
        within(stretches), ~Exists(behind), project_id=ORGANISATION, dimension=told_by, value=""
    )
    return {Bucket(*row) for row in made.order_by().values_list("granularity", "bucket")}


def _from_summaries(
    stretches: Collection[Stretch],
    clean: set[Bucket],
    project_ids: Collection[UUID] | None,
    dimensions: Collection[str],
    metrics: Collection[str],
    narrowed: dict[str, str],
) -> list[Piece]:
    if not clean:
        return []
    conditions: dict[str, Any] = {
        "project_id__in": [ORGANISATION] if project_ids is None else list(project_ids),
        "dimension__in": list(dimensions),
    }
    if narrowed:
        conditions["value__in"] = list(narrowed.values())
    rows: Any = Summary.objects.filter(within(stretches), **conditions).order_by()
    return [
        Piece(
            bucket,
            "" if narrowed else dimension,
            "" if narrowed else value,
            read(counts, zip(metrics, sketches, strict=True)),
        )
        for granularity, at, dimension, value, counts, *sketches in rows.values_list(
            "granularity", "bucket", "dimension", "value", "counts", *metrics
        )
        if (bucket := Bucket(granularity, at)) in clean
    ]


def _from_rollups(
    behind: list[Bucket],
    project_ids: Collection[UUID] | None,
    by: Collection[str],
    metrics: Collection[str],
    narrowed: dict[str, str],
    sums: Collection[str],
) -> list[Piece]:
    if not behind:
        return []
    wanted, where = set(behind), within(joined(behind))
    conditions: dict[str, Any] = dict(narrowed)
    if project_ids is not None:
        conditions["project_id__in"] = list(project_ids)
    rollups = Rollup.objects.filter(where, **conditions)
    latencies = None
    if metrics and Summary.FEATURE not in (*by, *narrowed):
        latencies = LatencyRollup.objects.filter(where, metric__in=list(metrics), **conditions)
    found = []
    for (granularity, at, *values), summed in add_up(
        rollups, latencies, ("granularity", "bucket", *by), wanted=sums
    ).items():
        if (bucket := Bucket(granularity, at)) in wanted:
            found += [
                Piece(bucket, dimension, value, summed)
                for dimension, value in (zip(by, values, strict=True) if by else [("", "")])
            ]
    return found


def joined(buckets: Iterable[Bucket]) -> list[Stretch]:
    """Stretches that hold these buckets, in their order; where they would be too many, others between them as well."""
    found: list[Stretch] = []
    length, step = 0, timedelta()
    begun = end = datetime.min.replace(tzinfo=UTC)
    for granularity, at in buckets:
        if granularity == length and at == end:
            end += step
            continue
        if length:
            found.append(Stretch(length, begun, end))
        length, step, begun = granularity, timedelta(seconds=granularity), at
        end = at + step
    if length:
        found.append(Stretch(length, begun, end))
    if len(found) <= _MOST_RANGES:
        return found
    return [
        Stretch(granularity, min(one.start for one in same), max(one.end for one in same))
        for granularity in sorted({one.granularity for one in found})
        if (same := [one for one in found if one.granularity == granularity])
    ]


def within(stretches: Collection[Stretch]) -> Q:
    found = Q(pk__in=())
    for granularity, start, end in stretches:
        found |= Q(granularity=granularity, bucket__gte=start, bucket__lt=end)
    return found
