"""What calls of several places add up to at once, each bucket of time for itself: for objectives, whose windows overlap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from llmops.usage.models import ORGANISATION, LatencyRollup, Rollup, Summary
from llmops.usage.selectors.summaries import FEW_DAYS, joined, made_of, up_to_date, within
from llmops.usage.summaries import Bucket, Summed, add_up, read

_HOUR = timedelta(hours=1)
_NARROWING = (Summary.ROUTE, Summary.MODEL, Summary.FEATURE)


@dataclass(frozen=True, slots=True)
class Place:
    """Calls of a project, a route, a model, a feature. Empty and None do not narrow."""

    project_id: UUID | None = None
    route: str = ""
    model: str = ""
    feature: str = ""

    def narrowed(self) -> dict[str, str]:
        return {name: value for name in _NARROWING if (value := getattr(self, name))}

    def summary(self) -> tuple[UUID, str, str] | None:
        """Project, dimension and value of its summaries; None where only rollups tell of it."""
        narrowed = self.narrowed()
        if len(narrowed) > 1:
            return None
        dimension, value = next(iter(narrowed.items()), (Summary.WHOLE, ""))
        return self.project_id or ORGANISATION, dimension, value


@dataclass(frozen=True, slots=True)
class Wanted:
    """Buckets, and the metrics whose sketches are wanted; of a feature there are none."""

    buckets: frozenset[Bucket]
    metrics: frozenset[str] = frozenset()


def by_place(
    asked: Mapping[Place, Wanted], *, sums: Collection[str] = Rollup.SUMS
) -> dict[Place, dict[Bucket, Summed]]:
    """What the calls of each place add up to in each of its buckets; one without any may be missing. Sums other than ``sums`` may
    be 0.

    Places of which the same is wanted are read together, whatever they are: one query, and two more where summaries are behind.
    """
    found: dict[Place, dict[Bucket, Summed]] = {place: {} for place in asked}
    known: dict[tuple[frozenset[Bucket], str], set[Bucket]] = {}
    for group, wanted in _alike(asked):
        _read(group, wanted, sums, known, found)
    return found


def _alike(asked: Mapping[Place, Wanted]) -> Iterator[tuple[list[Place], Wanted]]:
    """Places that one set of queries serves: of which the same is wanted, and of which the same tables tell."""
    groups: dict[tuple[Wanted, str, bool], list[Place]] = defaultdict(list)
    for place, wanted in asked.items():
        groups[wanted, made_of(place.narrowed()), place.summary() is None].append(place)
    for (wanted, _, _), places in groups.items():
        yield places, wanted


def _read(
    places: Collection[Place],
    wanted: Wanted,
    sums: Collection[str],
    known: dict[tuple[frozenset[Bucket], str], set[Bucket]],
    found: dict[Place, dict[Bucket, Summed]],
) -> None:
    by_summaries = {summary: place for place in places if (summary := place.summary())}
    told_by = made_of({name for place in places for name in place.narrowed()})
    clean: set[Bucket] = set()
    parts: dict[Bucket, list[Bucket]] = {}
    if by_summaries:
        clean = _up_to_date(wanted.buckets, told_by, known)
        # A day that is not over is put together from its hours, most of which are.
        days = [one for one in wanted.buckets - clean if one.granularity == Rollup.DAY]
        if 0 < len(days) <= FEW_DAYS:
            parts = {day: [Bucket(Rollup.HOUR, day.at + n * _HOUR) for n in range(24)] for day in days}
            clean = clean | _up_to_date(frozenset().union(*parts.values()), told_by, known)
    needed = wanted.buckets.difference(parts).union(*parts.values())
    read_now: dict[Place, dict[Bucket, Summed]] = {place: {} for place in places}
    _from_summaries(by_summaries, needed & clean, wanted.metrics, read_now)
    _from_rollups(places, needed - clean, wanted.metrics, sums, read_now)
    for place, buckets in read_now.items():
        for day, hours in parts.items():
            whole = Summed()
            for hour in hours:
                if hour in buckets:
                    whole.add(buckets[hour])
            buckets[day] = whole
        found[place] = {bucket: summed for bucket, summed in buckets.items() if bucket in wanted.buckets}


def _up_to_date(
    buckets: frozenset[Bucket], told_by: str, known: dict[tuple[frozenset[Bucket], str], set[Bucket]]
) -> set[Bucket]:
    if (buckets, told_by) not in known:
        known[buckets, told_by] = up_to_date(joined(sorted(buckets)), told_by)
    return known[buckets, told_by]


def _from_summaries(
    places: Mapping[tuple[UUID, str, str], Place],
    buckets: Collection[Bucket],
    metrics: Collection[str],
    found: dict[Place, dict[Bucket, Summed]],
) -> None:
    if not places or not buckets:
        return
    rows: Any = Summary.objects.filter(
        within(joined(sorted(buckets))),
        project_id__in=sorted({project for project, _, _ in places}),
        dimension__in=sorted({dimension for _, dimension, _ in places}),
        value__in=sorted({value for _, _, value in places}),
    ).order_by()
    names = sorted(metrics)
    for granularity, at, project, dimension, value, counts, *sketches in rows.values_list(
        "granularity", "bucket", "project_id", "dimension", "value", "counts", *names
    ):
        place = places.get((project, dimension, value))
        bucket = Bucket(granularity, at)
        if place is not None and bucket in buckets:
            found[place][bucket] = read(counts, zip(names, sketches, strict=True))


def _from_rollups(
    places: Collection[Place],
    buckets: Collection[Bucket],
    metrics: Collection[str],
    sums: Collection[str],
    found: dict[Place, dict[Bucket, Summed]],
) -> None:
    if not buckets:
        return
    columns = [
        name
        for name in ("project_id", *_NARROWING)
        if any(getattr(place, name) not in (None, "") for place in places)
    ]
    narrowing: dict[str, Any] = {}
    for name in columns:
        values = {getattr(place, name) for place in places}
        if None not in values and "" not in values:
            narrowing[f"{name}__in"] = sorted(values)
    where = within(joined(sorted(buckets)))
    latencies = None
    if metrics and Summary.FEATURE not in columns:
        latencies = LatencyRollup.objects.filter(where, metric__in=sorted(metrics), **narrowing)
    rows = add_up(
        Rollup.objects.filter(where, **narrowing),
        latencies,
        ("granularity", "bucket", *columns),
        wanted=sums,
    )
    for (granularity, at, *row), summed in rows.items():
        bucket = Bucket(granularity, at)
        if bucket not in buckets:
            continue
        told = dict(zip(columns, row, strict=True))
        for place in places:
            if _holds(place, told):
                found[place].setdefault(bucket, Summed()).add(summed)


def _holds(place: Place, told: Mapping[str, Any]) -> bool:
    return all(wanted in (None, "", told[name]) for name in told for wanted in (getattr(place, name),))
