"""A range of time as few buckets of rollups: whole days, whole hours, and the finer ones at its edges."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.db.models import Q

from llmops.usage.models import Rollup


def cover(start: datetime, end: datetime, granularity: int) -> Q:
    """The buckets that hold exactly ``start <= bucket < end``, each moment once, the coarsest there are.

    Both ends lie on whole buckets of ``granularity`` seconds. For sums over a range: one row of a day stands for 24 of its
    hours. Rollups of every level are sums of the same calls.
    """
    found = Q(pk__in=())
    spans = [(start, end)]
    for coarse in (Rollup.DAY, Rollup.HOUR):
        if coarse <= granularity:
            break
        left: list[tuple[datetime, datetime]] = []
        for first, last in spans:
            inner, outer = _ceil(first, coarse), _floor(last, coarse)
            if inner >= outer:
                left.append((first, last))
                continue
            found |= _between(coarse, inner, outer)
            left += [(first, inner), (outer, last)]
        spans = [(first, last) for first, last in left if first < last]
    for first, last in spans:
        found |= _between(granularity, first, last)
    return found


def _between(granularity: int, start: datetime, end: datetime) -> Q:
    return Q(granularity=granularity, bucket__gte=start, bucket__lt=end)


def _floor(at: datetime, granularity: int) -> datetime:
    return datetime.fromtimestamp(int(at.timestamp()) // granularity * granularity, tz=UTC)


def _ceil(at: datetime, granularity: int) -> datetime:
    floor = _floor(at, granularity)
    return floor if floor == at else floor + timedelta(seconds=granularity)
