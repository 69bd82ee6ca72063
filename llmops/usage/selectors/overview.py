"""The figures of the Overview page, from rollups alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import Case, FloatField, Q, QuerySet, Sum, When
from django.db.models.functions import Cast

from llmops.core.errors import InvalidRequest
from llmops.core.histogram import quantile, value_of
from llmops.usage.models import Call, LatencyRollup, RetentionMark, Rollup
from llmops.usage.selectors.spans import cover
from llmops.usage.work import MODEL_WORK

#: Statuses that count as failures of the provider or of ours; refusals and hang-ups are counted apart.
ERRORS = (Call.ERROR, Call.INTERRUPTED, Call.UNKNOWN)
GRANULARITIES = (Rollup.MINUTE, Rollup.HOUR, Rollup.DAY)
_MOST_POINTS = 1500
#: What errands are not counted in: what a batch cost is spent all the same.
_COUNTS = frozenset({"calls", "streamed", "attempts", "retries", "fallback_calls", "cache_hits"})
_OF_ERRANDS = tuple(name for name in Rollup.SUMS if name not in _COUNTS)
#: What a model works for; all other calls are errands.
WORK = Q(endpoint__in=sorted(MODEL_WORK)) | ~Q(model="")


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Microseconds, within 1 %; None where there were no calls to measure."""

    p50: int | None = None
    p95: int | None = None
    p99: int | None = None
    calls: int = 0


@dataclass(frozen=True, slots=True)
class CodeCount:
    """How many calls ended with an error code; ``status`` is one of ``Call.STATUSES``."""

    code: str
    status: str
    calls: int


@dataclass(frozen=True, slots=True)
class TokenSums:
    """``input`` includes cached and cache-write tokens, ``output`` includes reasoning tokens."""

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0


@dataclass(slots=True)
class Point:
    """One bucket of the series, from ``at`` on. Durations microseconds, spend nanodollars."""

    at: datetime
    calls: int = 0
    errors: int = 0
    refused: int = 0
    spend_nano: int = 0
    p50_us: int | None = None
    p95_us: int | None = None
    ttft_p50_us: int | None = None
    ttft_p95_us: int | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    """Sums over ``start <= started < end``, which are the asked bounds widened to whole buckets.

    ``errors`` counts calls that failed, broke off or whose outcome is unknown; ``refused`` those the console refused.
    Calls that no model works for (files, lists, kept answers) are errands, counted apart: all other counts are without them.
    Latency is that of answered calls, ``overhead`` the console's own part of it. Rates are 0..1, None without calls;
    ``fallback_rate`` is the share of calls that went upstream and were answered (or last tried) by a fallback.
    """

    start: datetime
    end: datetime
    granularity: int
    calls: int
    errors: int
    refused: int
    client_closed: int
    error_codes: list[CodeCount]
    by_status: dict[str, int]
    spend_nano: int
    overrun_nano: int
    total: Percentiles
    ttft: Percentiles
    overhead: Percentiles
    fallback_calls: int
    fallback_rate: float | None
    error_rate: float | None
    attempts: int
    retries: int
    streamed: int
    tokens: TokenSums
    errands: int = 0
    errands_failed: int = 0
    series: list[Point] = field(default_factory=list)


def overview(
    *,
    start: datetime,
    end: datetime,
    project_ids: Collection[UUID] | None,
    granularity: int | None = None,
    route: str | None = None,
    model: str | None = None,
    series: bool = True,
) -> Overview:
    """Figures of the calls that started in the range, in these projects (None: in all). Two queries, and two for the
    series, which may be left out.

    ``granularity`` is 60, 3600 or 86400 seconds; left out, it follows from the length of the range. Minutes that are
    not kept any longer are answered by the hour. Raises ``InvalidRequest`` for an empty range or one that has too many buckets.
    """
    granularity = _granularity(start, end, granularity)
    if granularity == Rollup.MINUTE and _minutes_are_gone(start):
        granularity = Rollup.HOUR
    start, end = _floor(start, granularity), _ceil(end, granularity)
    if (end - start) / timedelta(seconds=granularity) > _MOST_POINTS:
        raise InvalidRequest(
            f"granularity: {granularity} s gives more than {_MOST_POINTS} points for this range. Choose a coarser one.",
            param="granularity",
        )
    conditions: dict[str, Any] = {}
    if project_ids is not None:
        conditions["project_id__in"] = list(project_ids)
    conditions |= {name: value for name, value in (("route", route), ("model", model)) if value is not None}
    whole = cover(start, end, granularity)
    errands: dict[str, int] = defaultdict(int)
    sums, statuses, codes = _counts(Rollup.objects.filter(whole, **conditions), errands)
    latency = _latency(LatencyRollup.objects.filter(whole, **conditions))
    points: dict[datetime, Point] = {}
    if series:
        points = _empty_series(start, end, granularity)
        conditions |= {"granularity": granularity, "bucket__gte": start, "bucket__lt": end}
        _count_points(Rollup.objects.filter(**conditions), points)
        _time_points(LatencyRollup.objects.filter(**conditions), points)
    calls, refused = sums["calls"], statuses.get(Call.REFUSED, 0)
    errors = sum(statuses.get(status, 0) for status in ERRORS)
    return Overview(
        start=start,
        end=end,
        granularity=granularity,
        calls=calls,
        errors=errors,
        refused=refused,
        client_closed=statuses.get(Call.CLIENT_CLOSED, 0),
        error_codes=codes,
        by_status=statuses,
        spend_nano=sums["cost_nano"],
        overrun_nano=sums["overrun_nano"],
        total=latency[LatencyRollup.TOTAL],
        ttft=latency[LatencyRollup.TTFT],
        overhead=latency[LatencyRollup.OVERHEAD],
        fallback_calls=sums["fallback_calls"],
        fallback_rate=sums["fallback_calls"] / (calls - refused) if calls > refused else None,
        error_rate=errors / calls if calls else None,
        attempts=sums["attempts"],
        retries=sums["retries"],
        streamed=sums["streamed"],
        tokens=TokenSums(
            input=sums["input_tokens"],
            cached_input=sums["cached_input_tokens"],
            cache_write=sums["cache_write_tokens"],
            output=sums["output_tokens"],
            reasoning=sums["reasoning_tokens"],
        ),
        errands=sum(errands.values()),
        errands_failed=sum(errands[status] for status in ERRORS),
        series=list(points.values()),
    )


def _granularity(start: datetime, end: datetime, asked: int | None) -> int:
    if end <= start:
        raise InvalidRequest("end: the range is empty, because it ends before it begins.", param="end")
    if asked is None:
        length = end - start
        if length <= timedelta(hours=2):
            return Rollup.MINUTE
        return Rollup.HOUR if length <= timedelta(days=7) else Rollup.DAY
    if asked not in GRANULARITIES:
        raise InvalidRequest("granularity: choose 60, 3600 or 86400 seconds.", param="granularity")
    return asked


def _minutes_are_gone(start: datetime) -> bool:
    # They are kept for a day at least, which spares the usual page a query.
    if start > datetime.now(tz=UTC) - timedelta(days=1):
        return False
    since = RetentionMark.objects.filter(pk=1).values_list("minutes_since", flat=True).first()
    return since is not None and start < since


def _floor(at: datetime, granularity: int) -> datetime:
    seconds = int(at.timestamp()) // granularity * granularity
    return datetime.fromtimestamp(seconds, tz=UTC)


def _ceil(at: datetime, granularity: int) -> datetime:
    floor = _floor(at, granularity)
    return floor if floor == at else floor + timedelta(seconds=granularity)


def _empty_series(start: datetime, end: datetime, granularity: int) -> dict[datetime, Point]:
    step, points = timedelta(seconds=granularity), {}
    while start < end:
        points[start] = Point(at=start)
        start += step
    return points


def _counts(
    rollups: QuerySet[Rollup], errands: dict[str, int]
) -> tuple[dict[str, int], dict[str, int], list[CodeCount]]:
    sums: dict[str, int] = dict.fromkeys(Rollup.SUMS, 0)
    statuses: dict[str, int] = defaultdict(int)
    codes: dict[tuple[str, str], int] = defaultdict(int)
    grouped: Any = (
        rollups.order_by()
        .annotate(work=Case(When(WORK, then=True), default=False))
        .values("status", "error_code", "work")
        .annotate(**{f"sum_{name}": Sum(name) for name in Rollup.SUMS})
    )
    for row in grouped:
        calls, status = row["sum_calls"], row["status"]
        for name in Rollup.SUMS if row["work"] else _OF_ERRANDS:
            sums[name] += row[f"sum_{name}"]
        if not row["work"]:
            errands[status] += calls
            continue
        statuses[status] += calls
        if row["error_code"]:
            codes[row["error_code"], status] += calls
    counted = [CodeCount(code, status, calls) for (code, status), calls in codes.items()]
    return sums, dict(statuses), sorted(counted, key=lambda one: (-one.calls, one.code, one.status))


def _count_points(rollups: QuerySet[Rollup], points: dict[datetime, Point]) -> None:
    grouped = (
        rollups.order_by()
        .annotate(work=Case(When(WORK, then=True), default=False))
        .values_list("bucket", "status", "work")
        .annotate(Sum("calls"), Sum("cost_nano"))
    )
    for bucket, status, work, calls, cost in grouped:
        point = points[bucket]
        point.spend_nano += cost
        if not work:
            continue
        point.calls += calls
        if status in ERRORS:
            point.errors += calls
        elif status == Call.REFUSED:
            point.refused += calls


def _latency(rollups: QuerySet[LatencyRollup]) -> dict[str, Percentiles]:
    whole: dict[str, list[tuple[int, int]]] = defaultdict(list)
    grouped = rollups.order_by().values_list("metric", "log_bucket").annotate(Sum("calls"))
    for metric, log_bucket, calls in grouped:
        whole[metric].append((log_bucket, calls))
    return {
        metric: _percentiles(whole[metric])
        for metric in (LatencyRollup.TOTAL, LatencyRollup.TTFT, LatencyRollup.OVERHEAD)
    }


#: Nearest rank (``core.histogram.quantile``) where the rows are: the first logarithmic bucket up to which there are at least
#: so many of a hundred. The sketches themselves would be tens of thousands of rows. Counts are summed as doubles, which are
#: exact up to 2**53 and several times as fast as PostgreSQL's sums of big integers; one order serves both sums.
_RANKS = """
SELECT bucket, metric, min(CASE WHEN upto * 100 >= n * 50 THEN log_bucket END),
       min(CASE WHEN upto * 100 >= n * 95 THEN log_bucket END)
FROM (SELECT bucket, metric, log_bucket,
             sum(calls) OVER (PARTITION BY bucket, metric ORDER BY log_bucket ROWS UNBOUNDED PRECEDING) AS upto,
             sum(calls) OVER (PARTITION BY bucket, metric ORDER BY log_bucket
                              ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS n
      FROM ({sketches}) AS sketches (bucket, metric, log_bucket, calls)) AS ranks
GROUP BY bucket, metric
"""


def _time_points(rollups: QuerySet[LatencyRollup], points: dict[datetime, Point]) -> None:
    sketches = (
        rollups.filter(metric__in=(LatencyRollup.TOTAL, LatencyRollup.TTFT))
        .order_by()
        .values_list("bucket", "metric", "log_bucket")
        .annotate(calls__sum=Cast(Sum("calls"), FloatField()))
    )
    try:
        query, parameters = sketches.query.sql_with_params()
    except EmptyResultSet:
        return
    statement = _RANKS.format(sketches=query)
    if connection.vendor == "sqlite":
        # It has no names for the columns of a subquery; they go by those of the query within.
        statement = statement.replace(
            ") AS sketches (bucket, metric, log_bucket, calls)", ") AS sketches"
        ).replace("sum(calls)", 'sum("calls__sum")')
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows = cursor.fetchall()
    for bucket, metric, middle, late in rows:
        point = points[_moment(bucket)]
        p50, p95 = round(value_of(middle)), round(value_of(late))
        if metric == LatencyRollup.TOTAL:
            point.p50_us, point.p95_us = p50, p95
        else:
            point.ttft_p50_us, point.ttft_p95_us = p50, p95


def _moment(bucket: datetime) -> datetime:
    # SQLite tells it in UTC, without saying so.
    return bucket if bucket.tzinfo else bucket.replace(tzinfo=UTC)


def _percentiles(counts: list[tuple[int, int]]) -> Percentiles:
    return Percentiles(
        p50=_rounded(counts, 0.5),
        p95=_rounded(counts, 0.95),
        p99=_rounded(counts, 0.99),
        calls=sum(calls for _, calls in counts),
    )


def _rounded(counts: list[tuple[int, int]], q: float) -> int | None:
    value = quantile(counts, q)
    return None if value is None else round(value)
