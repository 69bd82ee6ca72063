"""What the on-call dashboards count, bounded by their range of time: from summaries where these tell it, else from rollups.

A summary knows a bucket of time whole, by route, by model, or by feature. Of a service key, or of two of these together, only
``Rollup`` tells. Of keys and features durations are not kept, since sketches are made by project, route and model alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import BigIntegerField, Q, QuerySet, Sum
from django.db.models.functions import Cast

from llmops.usage.models import LatencyRollup, OutcomeRollup, PromptRollup, RetentionMark, Rollup
from llmops.usage.selectors.calls import NONE_GIVEN
from llmops.usage.selectors.spans import Stretch, cover
from llmops.usage.selectors.summaries import pieces
from llmops.usage.summaries import METRICS, WORK, Summed, add_up

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Narrowed:
    """Which calls count. ``project_ids`` is what the reader may see (None: everything); the others narrow where they are given,
    ``NONE_GIVEN`` to calls without one."""

    project_ids: Collection[UUID] | None = None
    key_id: UUID | None = None
    route: str = ""
    model: str = ""
    feature: str = ""

    @property
    def timed(self) -> bool:
        """Whether durations are kept of just these calls."""
        return self.key_id is None and not self.feature

    def exact(self, *without: str) -> dict[str, Any]:
        """Conditions on columns of rollups, but for those on the columns ``without``."""
        found: dict[str, Any] = {}
        if self.project_ids is not None:
            found["project_id__in"] = list(self.project_ids)
        if self.key_id is not None:
            found["key_id"] = self.key_id
        for name in ("route", "model", "feature"):
            if value := getattr(self, name):
                found[name] = "" if value == NONE_GIVEN else value
        return {name: value for name, value in found.items() if name not in without}


def by_bucket(
    narrowed: Narrowed,
    start: datetime,
    end: datetime,
    granularity: int,
    *,
    metrics: Collection[str] = METRICS,
    sums: Collection[str] = Rollup.SUMS,
) -> dict[datetime, Summed]:
    """What the calls of each whole bucket in ``[start, end)`` add up to, with sketches of ``metrics``; every bucket is there.

    Sums other than ``sums`` may be 0, and errands (calls that no model worked for) left out.
    """
    whole = Stretch(granularity, start, end)
    found = {at: Summed() for _, at in whole.buckets()}
    if narrowed.project_ids is not None and not narrowed.project_ids:
        return found
    if narrowed.key_id is None and sum(map(bool, (narrowed.route, narrowed.model, narrowed.feature))) < 2:
        exact = narrowed.exact()
        for piece in pieces(
            [whole],
            project_ids=narrowed.project_ids,
            metrics=metrics,
            route=exact.get("route"),
            model=exact.get("model"),
            feature=exact.get("feature"),
            sums=sums,
        ):
            found[_floor(piece.bucket.at, start, granularity)].add(piece.summed)
        return found
    where = {"granularity": granularity, "bucket__gte": start, "bucket__lt": end}
    latencies = LatencyRollup.objects.none()
    if narrowed.timed and metrics:
        latencies = LatencyRollup.objects.filter(**where, **narrowed.exact(), metric__in=list(metrics))
    rollups = Rollup.objects.filter(WORK, **where, **narrowed.exact())
    summed = add_up(rollups, latencies, ("bucket",), wanted=sums)
    for (at,), one in summed.items():
        found[at].add(one)
    return found


def _floor(at: datetime, start: datetime, granularity: int) -> datetime:
    """The bucket of a series that holds ``at``: a day that is not summed up yet comes by the hour."""
    step = timedelta(seconds=granularity)
    return start + (at - start) // step * step


@dataclass(slots=True)
class Counted:
    """What calls of one group add up to; ``sums`` by the names in ``Rollup.SUMS``. Errands are not in it."""

    sums: dict[str, int]

    def __getitem__(self, name: str) -> int:
        return self.sums.get(name, 0)


def counted_by(
    narrowed: Narrowed,
    start: datetime,
    end: datetime,
    granularity: int,
    by: Sequence[str],
    sums: Sequence[str],
) -> dict[tuple[Any, ...], Counted]:
    """Sums of the calls that a model worked for, by columns of ``Rollup`` (``route``, ``error_code`` ...). One query."""
    rows = _rollups(Rollup.objects.filter(WORK), narrowed, start, end, granularity)
    if rows is None:
        return {}
    return _grouped(rows, by, sums)


def prompts_by(
    narrowed: Narrowed, start: datetime, end: datetime, granularity: int
) -> dict[tuple[str, int], Counted]:
    """By (name, version) of the prompt that calls named; sums of ``PromptRollup``. One query."""
    rows = _rollups(PromptRollup.objects.all(), narrowed, start, end, granularity)
    if rows is None:
        return {}
    found: dict[Any, Counted] = _grouped(rows, ("prompt_name", "prompt_version"), PromptRollup.SUMS)
    return found


def outcomes_of(
    narrowed: Narrowed, start: datetime, end: datetime, by: str
) -> dict[tuple[str, str], tuple[int, int]]:
    """(value of ``by``, kind) -> (outcomes, what they brought in nanodollars), by whole days. One query."""
    if narrowed.project_ids is not None and not narrowed.project_ids:
        return {}
    first = start.replace(hour=0, minute=0, second=0, microsecond=0)
    rows = OutcomeRollup.objects.filter(bucket__gte=first, bucket__lt=end, **narrowed.exact())
    grouped: Any = rows.order_by().values_list(by, "kind").annotate(Sum("outcomes"), Sum("value_nano"))
    return {(value, kind): (int(count), int(worth)) for value, kind, count, worth in grouped if count}


def busiest_minutes(narrowed: Narrowed, start: datetime, end: datetime) -> dict[UUID, tuple[int, int, int]]:
    """Key -> the most calls, tokens and microseconds of work that one minute of the range had. One query."""
    rows = Rollup.objects.filter(
        granularity=Rollup.MINUTE, bucket__gte=start, bucket__lt=end, **narrowed.exact()
    )
    grouped: Any = (
        rows.exclude(status="refused")
        .order_by()
        .values("key_id", "bucket")
        .annotate(Sum("calls"), Sum("input_tokens"), Sum("output_tokens"), Sum("busy_us"))
        .values_list("key_id", "calls__sum", "input_tokens__sum", "output_tokens__sum", "busy_us__sum")
    )
    most: dict[UUID, list[int]] = defaultdict(lambda: [0, 0, 0])
    for key, calls, into, out, busy in grouped:
        for place, value in enumerate((calls, into + out, busy)):
            most[key][place] = max(most[key][place], int(value))
    return {key: (calls, tokens, busy) for key, (calls, tokens, busy) in most.items()}


def minutes_since() -> datetime | None:
    """From when on rollups by minute are there; None: since ever."""
    return RetentionMark.objects.filter(pk=1).values_list("minutes_since", flat=True).first()


def _rollups(
    table: QuerySet[Any], narrowed: Narrowed, start: datetime, end: datetime, granularity: int
) -> QuerySet[Any] | None:
    if narrowed.project_ids is not None and not narrowed.project_ids:
        return None
    where = Q(pk__in=())
    for length, first, last in cover(start, end, granularity):
        where |= Q(granularity=length, bucket__gte=first, bucket__lt=last)
    return table.filter(where, **narrowed.exact())


def _grouped(rows: QuerySet[Any], by: Sequence[str], sums: Sequence[str]) -> dict[tuple[Any, ...], Counted]:
    adding = {f"sum_{name}": Cast(Sum(name), BigIntegerField()) for name in sums}
    width = len(by)
    return {
        tuple(row[:width]): Counted(dict(zip(sums, row[width:], strict=True)))
        for row in rows.order_by().values_list(*by).annotate(**adding)
    }
