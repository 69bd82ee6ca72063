"""The figures of the Overview page, from summaries and rollups alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from llmops.core.errors import InvalidRequest
from llmops.core.sketches import calls_in, quantiles
from llmops.usage.models import Call, LatencyRollup, RetentionMark, Rollup
from llmops.usage.selectors.spans import Stretch, ceil, cover, floor
from llmops.usage.selectors.summaries import Piece, pieces
from llmops.usage.signals import SIGNALS
from llmops.usage.summaries import METRICS, Summed

#: Statuses that count as failures of the provider or of ours; refusals and hang-ups are counted apart.
ERRORS = (Call.ERROR, Call.INTERRUPTED, Call.UNKNOWN)
GRANULARITIES = (Rollup.MINUTE, Rollup.HOUR, Rollup.DAY)
_MOST_POINTS = 1500
#: What errands are not counted in: what a batch cost is spent all the same.
_COUNTS = frozenset({"calls", "streamed", "attempts", "retries", "fallback_calls", "cache_hits"})
_OF_ERRANDS = tuple(name for name in Rollup.SUMS if name not in _COUNTS)
_AT_CALLS, _AT_COST = Rollup.SUMS.index("calls"), Rollup.SUMS.index("cost_nano")


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
    #: signal of quality (``usage.signals``) -> calls whose answers gave it
    signals: dict[str, int] = field(default_factory=dict)
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
    """Figures of the calls that started in the range, in these projects (None: in all), with or without their series.

    ``granularity`` is 60, 3600 or 86400 seconds; left out, it follows from the length of the range. Minutes that are
    not kept any longer are answered by the hour. Raises ``InvalidRequest`` for an empty range or one that has too many buckets.
    """
    granularity = _granularity(start, end, granularity)
    if granularity == Rollup.MINUTE and _minutes_are_gone(start):
        granularity = Rollup.HOUR
    start, end = floor(start, granularity), ceil(end, granularity)
    if (end - start) / timedelta(seconds=granularity) > _MOST_POINTS:
        raise InvalidRequest(
            f"granularity: {granularity} s gives more than {_MOST_POINTS} points for this range. Choose a coarser one.",
            param="granularity",
        )
    whole = [Stretch(granularity, start, end)] if series else cover(start, end, granularity)
    found = pieces(whole, project_ids=project_ids, route=route, model=model)
    together = Summed()
    for piece in found:
        together.add(piece.summed)
    errands: dict[str, int] = defaultdict(int)
    sums, statuses, codes = _counts(together, errands)
    latency = {metric: _percentiles(together.sketches.get(metric, 0)) for metric in METRICS}
    points = _series(found, start, end, granularity) if series else []
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
        signals={name: sums[name] for name in SIGNALS},
        series=points,
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


def _series(found: list[Piece], start: datetime, end: datetime, granularity: int) -> list[Point]:
    by_bucket: dict[datetime, Summed] = {at: Summed() for _, at in Stretch(granularity, start, end).buckets()}
    for piece in found:
        by_bucket[floor(piece.bucket.at, granularity)].add(piece.summed)
    return [_point(at, summed) for at, summed in by_bucket.items()]


def _point(at: datetime, summed: Summed) -> Point:
    point = Point(at)
    for (status, _, work), sums in summed.counts.items():
        point.spend_nano += sums[_AT_COST]
        if not work:
            continue
        calls = sums[_AT_CALLS]
        point.calls += calls
        if status in ERRORS:
            point.errors += calls
        elif status == Call.REFUSED:
            point.refused += calls
    quick = (0.5, 0.95)
    point.p50_us, point.p95_us = _whole(quantiles(summed.sketches.get(LatencyRollup.TOTAL, 0), quick))
    point.ttft_p50_us, point.ttft_p95_us = _whole(
        quantiles(summed.sketches.get(LatencyRollup.TTFT, 0), quick)
    )
    return point


def _counts(
    together: Summed, errands: dict[str, int]
) -> tuple[dict[str, int], dict[str, int], list[CodeCount]]:
    sums: dict[str, int] = dict.fromkeys(Rollup.SUMS, 0)
    statuses: dict[str, int] = defaultdict(int)
    codes: dict[tuple[str, str], int] = defaultdict(int)
    for (status, code, work), added in together.counts.items():
        named = dict(zip(Rollup.SUMS, added, strict=True))
        calls = named["calls"]
        for name in Rollup.SUMS if work else _OF_ERRANDS:
            sums[name] += named[name]
        if not work:
            errands[status] += calls
            continue
        statuses[status] += calls
        if code:
            codes[code, status] += calls
    counted = [CodeCount(code, status, calls) for (code, status), calls in codes.items()]
    return sums, dict(statuses), sorted(counted, key=lambda one: (-one.calls, one.code, one.status))


def _percentiles(sketch: int) -> Percentiles:
    p50, p95, p99 = _whole(quantiles(sketch, (0.5, 0.95, 0.99)))
    return Percentiles(p50=p50, p95=p95, p99=p99, calls=calls_in(sketch))


def _whole(values: list[float | None]) -> list[int | None]:
    return [None if value is None else round(value) for value in values]
