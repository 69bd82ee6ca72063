"""Summaries of rollups: how they are made, and what they are made of.

``Summed`` is what calls add up to, whoever's and whenever. Workers make the summaries of buckets that ``StaleSummary`` names:
they remember its rows, add up the rollups, and replace the summary only if all of those rows are still there to be removed.
What was booked before they looked is then in it; what was booked later left rows of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import add
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from django.db import connection, transaction
from django.db.models import (
    Aggregate,
    Case,
    DateTimeField,
    Expression,
    IntegerField,
    Model,
    Q,
    QuerySet,
    TextField,
    When,
)

from llmops.base.compiled import CompiledQuery, Parameter
from llmops.core.sketches import decode, encode, sketch_of
from llmops.usage.models import ORGANISATION, LatencyRollup, Rollup, StaleSummary, Summary
from llmops.usage.work import MODEL_WORK

#: What a model works for; all other calls are errands.
WORK = Q(endpoint__in=sorted(MODEL_WORK)) | ~Q(model="")
METRICS = (LatencyRollup.TOTAL, LatencyRollup.TTFT, LatencyRollup.OVERHEAD)
#: Summaries that were made when there were fewer sums end before the newer ones, which are 0 there.
_WIDTH = len(Rollup.SUMS)
_SINCE = [0] * _WIDTH
_INTEGERS = msgspec.json.Decoder(list[int])
_COUNTS = msgspec.json.Decoder(list[tuple[str, str, bool, list[int]]])


class _Pairs(Aggregate):
    """``bucket:calls,...`` of all rows in one text, which is read many times as fast as a row for each."""

    function = "string_agg"
    template = "%(function)s(%(expressions)s, ',')"
    arg_joiner = " || ':' || "
    output_field = TextField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, function="group_concat", **context)


class _Sums(Expression):
    """The sums of these columns as one JSON array of integers: forty of the ORM's own take much longer to put into SQL than the
    database takes to answer them."""

    contains_aggregate = True
    output_field = TextField()

    def __init__(self, model: type[Model], names: Sequence[str]) -> None:
        super().__init__()
        table = model._meta.db_table
        self._sums = ", ".join(f"SUM({table}.{name})" for name in names)

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        function = "json_array(%s)" if connection.vendor == "sqlite" else "json_build_array(%s)::text"
        return function % self._sums, ()

    def get_group_by_cols(self) -> list[Any]:
        return []


class Bucket(NamedTuple):
    granularity: int
    at: datetime


@dataclass(slots=True)
class Summed:
    """``counts`` is (status, error code, whether a model worked) -> sums in the order of ``Rollup.SUMS``; ``sketches``,
    metric -> sketch (``core.sketches``)."""

    counts: dict[tuple[str, str, bool], list[int]] = field(default_factory=dict)
    sketches: dict[str, int] = field(default_factory=dict)

    def count(self, key: tuple[str, str, bool], sums: Iterable[int]) -> None:
        known = self.counts.get(key)
        self.counts[key] = list(sums) if known is None else list(map(add, known, sums))

    def measure(self, metric: str, sketch: int) -> None:
        self.sketches[metric] = self.sketches.get(metric, 0) + sketch

    def add(self, other: Summed) -> None:
        for key, sums in other.counts.items():
            self.count(key, sums)
        for metric, sketch in other.sketches.items():
            self.measure(metric, sketch)


def add_up(
    rollups: QuerySet[Rollup],
    latencies: QuerySet[LatencyRollup] | None,
    by: tuple[str, ...],
    *,
    wanted: Collection[str] = Rollup.SUMS,
) -> dict[tuple[Any, ...], Summed]:
    """What rollups add up to, by columns that both tables have (or that rollups have, without ``latencies``); sums that are
    not ``wanted`` are 0. Two queries."""
    names = [name for name in Rollup.SUMS if name in wanted]
    measured = () if latencies is None else _measured(latencies, by)
    return _gather(_counted(rollups, by, names), measured, names)


def _counted(rollups: QuerySet[Rollup], by: Iterable[str], names: Sequence[str]) -> Any:
    return (
        rollups.order_by()
        .annotate(work=Case(When(WORK, then=True), default=False))
        .values_list(*by, "status", "error_code", "work")
        .annotate(sums=_Sums(Rollup, names))
    )


def _measured(latencies: QuerySet[LatencyRollup], by: Iterable[str]) -> Any:
    return latencies.order_by().values_list(*by, "metric").annotate(pairs=_Pairs("log_bucket", "calls"))


def _gather(
    counted: Iterable[Any], measured: Iterable[Any], names: Sequence[str] = Rollup.SUMS
) -> dict[tuple[Any, ...], Summed]:
    found: dict[tuple[Any, ...], Summed] = defaultdict(Summed)
    for *place, status, code, work, sums in counted:
        counts = _INTEGERS.decode(sums)
        if len(names) < _WIDTH:
            told = dict(zip(names, counts, strict=True))
            counts = [told.get(name, 0) for name in Rollup.SUMS]
        found[tuple(place)].count((status, code, bool(work)), counts)
    for *place, metric, pairs in measured:
        numbers = [int(number) for number in pairs.replace(":", ",").split(",")]
        found[tuple(place)].measure(metric, sketch_of(zip(numbers[::2], numbers[1::2], strict=True)))
    return found


def read(counts: str, sketches: Iterable[tuple[str, bytes]]) -> Summed:
    """What a summary says; ``sketches`` are (metric, as it is stored)."""
    return Summed(
        {
            (status, code, work): sums if len(sums) == _WIDTH else sums + _SINCE[len(sums) :]
            for status, code, work, sums in _COUNTS.decode(counts)
        },
        {metric: decode(stored) for metric, stored in sketches if stored},
    )


def mark(buckets: Collection[Bucket]) -> None:
    """Note, in the caller's transaction, that the rollups of these buckets are not what they were."""
    if not buckets:
        return
    table = StaleSummary._meta.db_table
    with connection.cursor() as cursor:
        marks = ", ".join(["(%s, %s)"] * len(buckets))
        cursor.execute(
            f"INSERT INTO {table} (granularity, bucket) VALUES {marks}",  # noqa: S608 - names of our own
            [
                value
                for bucket in buckets
                for value in (bucket.granularity, connection.ops.adapt_datetimefield_value(bucket.at))
            ],
        )


def mark_made(granularity: int, start: datetime, end: datetime) -> None:
    """Note that the summaries there are of buckets in ``[start, end)`` are to be made anew."""
    made = Summary.objects.filter(
        granularity=granularity,
        bucket__gte=start,
        bucket__lt=end,
        project_id=ORGANISATION,
        dimension=Summary.WHOLE,
    )
    mark([Bucket(granularity, at) for at in made.values_list("bucket", flat=True)])


def stale(most: int) -> Iterator[tuple[Bucket, list[int]]]:
    """Buckets that are behind, newest first, with what was noted of them."""
    found: dict[Bucket, list[int]] = defaultdict(list)
    rows = StaleSummary.objects.order_by("-bucket", "granularity").values_list("granularity", "bucket", "pk")
    for granularity, at, pk in rows[:most]:
        found[Bucket(granularity, at)].append(pk)
    yield from found.items()


def make(bucket: Bucket, notes: Collection[int]) -> bool:
    """Make the summary of a bucket anew; False when somebody else did since ``notes`` were read.

    Not to be called in a transaction that began before they were: it would look at rollups of then.
    """
    where = {"granularity": bucket.granularity, "bucket": bucket.at}
    rows = [
        Summary(
            **where,
            project_id=project,
            dimension=dimension,
            value=value,
            counts=msgspec.json.encode(
                [(*key, sums) for key, sums in sorted(summed.counts.items())]
            ).decode(),
            **{metric: encode(summed.sketches.get(metric, 0)) for metric in METRICS},
        )
        for (project, dimension, value), summed in _summaries(where).items()
    ]
    with transaction.atomic():
        # First, so that a second one waits here and then finds them gone.
        if StaleSummary.objects.filter(pk__in=notes).delete()[0] != len(notes):
            transaction.set_rollback(True)
            return False
        Summary.objects.filter(**where).delete()
        Summary.objects.bulk_create(rows, batch_size=500)
    return True


_IN_BUCKET = {
    "granularity": Parameter("granularity", IntegerField()),
    "bucket": Parameter("bucket", DateTimeField()),
}
_BUCKET_COUNTED = CompiledQuery(
    lambda: _counted(Rollup.objects.filter(**_IN_BUCKET), ("project_id", "route", "model"), Rollup.SUMS)
)
_BUCKET_MEASURED = CompiledQuery(
    lambda: _measured(LatencyRollup.objects.filter(**_IN_BUCKET), ("project_id", "route", "model"))
)
_BUCKET_BY_FEATURE = CompiledQuery(
    lambda: _counted(Rollup.objects.filter(**_IN_BUCKET), ("project_id", "feature"), Rollup.SUMS)
)


def _summaries(bucket: dict[str, Any]) -> dict[tuple[UUID, str, str], Summed]:
    found: dict[tuple[UUID, str, str], Summed] = defaultdict(Summed)
    # The organisation's are there even if nothing was called: they say that the summary was made, and that it knows of features.
    found[ORGANISATION, Summary.WHOLE, ""] = Summed()
    found[ORGANISATION, Summary.FEATURE, ""] = Summed()
    added_up = _gather(_BUCKET_COUNTED.rows(**bucket), _BUCKET_MEASURED.rows(**bucket))
    for (project, route, model), summed in added_up.items():
        for whose in (ORGANISATION, project):
            found[whose, Summary.WHOLE, ""].add(summed)
            found[whose, Summary.ROUTE, route].add(summed)
            found[whose, Summary.MODEL, model].add(summed)
    by_feature = _gather(_BUCKET_BY_FEATURE.rows(**bucket), ())
    for (project, feature), summed in by_feature.items():
        for whose in (ORGANISATION, project):
            found[whose, Summary.FEATURE, feature].add(summed)
    return found
