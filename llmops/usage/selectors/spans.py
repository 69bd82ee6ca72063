"""A range of time as few buckets of rollups: whole days, whole hours, and the finer ones at its edges."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from llmops.usage.models import Rollup
from llmops.usage.summaries import Bucket


class Stretch(NamedTuple):
    """The buckets of ``granularity`` seconds in ``[start, end)``, which are whole ones."""

    granularity: int
    start: datetime
    end: datetime

    def buckets(self) -> Iterator[Bucket]:
        at, step = self.start, timedelta(seconds=self.granularity)
        while at < self.end:
            yield Bucket(self.granularity, at)
            at += step


def cover(start: datetime, end: datetime, granularity: int) -> list[Stretch]:
    """The buckets that hold exactly ``start <= bucket < end``, each moment once, the coarsest there are.

    Both ends lie on whole buckets of ``granularity`` seconds. For sums over a range: one row of a day stands for 24 of its
    hours. Rollups of every level are sums of the same calls.
    """
    found: list[Stretch] = []
    spans = [(start, end)]
    for coarse in (Rollup.DAY, Rollup.HOUR):
        if coarse <= granularity:
            break
        left: list[tuple[datetime, datetime]] = []
        for first, last in spans:
            inner, outer = ceil(first, coarse), floor(last, coarse)
            if inner >= outer:
                left.append((first, last))
                continue
            found.append(Stretch(coarse, inner, outer))
            left += [(first, inner), (outer, last)]
        spans = [(first, last) for first, last in left if first < last]
    return found + [Stretch(granularity, first, last) for first, last in spans]


def floor(at: datetime, granularity: int) -> datetime:
    return datetime.fromtimestamp(int(at.timestamp()) // granularity * granularity, tz=UTC)


def ceil(at: datetime, granularity: int) -> datetime:
    found = floor(at, granularity)
    return found if found == at else found + timedelta(seconds=granularity)
