"""Recomputing a day's rollups from its calls, in steps short enough to hold up the ingester only for moments.

A step recomputes the minutes of a quarter of an hour from calls, then an hour from its minutes, at last the day from its
hours, its figures by end user and tag from its calls; it replaces only what differs. Summaries of all these are made anew
by workers, right or wrong. Each runs alone under ``ROLLUPS_LOCK``, so what it leaves is exact at that moment,
and what is booked later adds to it. A step that is run again changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Any

from django.db.models import (
    Case,
    Count,
    DateTimeField,
    F,
    FloatField,
    IntegerField,
    Model,
    Q,
    QuerySet,
    Sum,
    Value,
    When,
)
from django.db.models.functions import Cast, Ceil, Coalesce, Ln, TruncMinute

from llmops.base.compiled import CompiledQuery, Parameter
from llmops.core.histogram import GAMMA
from llmops.core.money import format_usd
from llmops.usage import attributions, summaries
from llmops.usage.ingest import write
from llmops.usage.ingest.rows import CACHED, FAILED, WAITED
from llmops.usage.models import Call, LatencyRollup, PromptRollup, Rollup
from llmops.usage.signals import BIT, SIGNALS

_QUARTERS = 4
_PER_HOUR = _QUARTERS + 1
#: All hours with their quarters, the day, and its figures by end user and tag.
STEPS = 24 * _PER_HOUR + 2
_MOST_DIFFERENCES = 50
_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)

_ANSWERED = Q(status=Call.OK, attempt_count__gt=0) & summaries.WORK
_TIMED = _ANSWERED & Q(upstream_us__isnull=False)


def _signal_counts(which: Q) -> dict[str, Any]:
    return {name: Count(Case(When(which & Q(**{f"at_{name}__gt": 0}), then=Value(1)))) for name in SIGNALS}


_CALL_SUMS = {
    "calls": Count("pk"),
    "streamed": Count("pk", filter=Q(streamed=True)),
    "attempts": Sum("attempt_count"),
    "retries": Sum("retry_count"),
    "fallback_calls": Count("pk", filter=Q(fallback_count__gt=0)),
    "input_tokens": Sum("input_tokens"),
    "cached_input_tokens": Sum("cached_input_tokens"),
    "cache_write_tokens": Sum("cache_write_tokens"),
    "output_tokens": Sum("output_tokens"),
    "reasoning_tokens": Sum("reasoning_tokens"),
    "audio_input_tokens": Sum("audio_input_tokens"),
    "image_input_tokens": Sum("image_input_tokens"),
    "audio_output_tokens": Sum("audio_output_tokens"),
    "image_output_tokens": Sum("image_output_tokens"),
    "characters": Sum("characters"),
    "seconds": Sum("seconds"),
    "images": Sum("images"),
    "cost_nano": Sum("cost_nano"),
    "overrun_nano": Sum("overrun_nano"),
    "cache_hits": Count("pk", filter=Q(cache__in=sorted(CACHED))),
    "saved_nano": Sum("saved_nano"),
    "busy_us": Sum("total_us", filter=summaries.WORK, default=0),
    "timed_calls": Count("pk", filter=_TIMED),
    "timed_us": Sum("total_us", filter=_TIMED, default=0),
    "upstream_us": Sum("upstream_us", filter=_TIMED, default=0),
    "queue_us": Sum("queue_us", filter=_TIMED, default=0),
    "queued_calls": Count("pk", filter=summaries.WORK & Q(queue_us__gte=WAITED)),
    **_signal_counts(summaries.WORK),
}
_PROMPT_SUMS = {
    "calls": Count("pk"),
    "failed": Count("pk", filter=Q(status__in=sorted(FAILED))),
    "refused": Count("pk", filter=Q(status=Call.REFUSED)),
    "input_tokens": Sum("input_tokens"),
    "output_tokens": Sum("output_tokens"),
    "cost_nano": Sum("cost_nano"),
    **_signal_counts(summaries.WORK),
}
_BY = [name for name in Rollup.DIMENSIONS if name not in ("granularity", "bucket")]
_LATENCY_BY = [name for name in write.LATENCY_DIMENSIONS if name not in ("granularity", "bucket")]
_PROMPT_BY = [name for name in PromptRollup.DIMENSIONS if name not in ("granularity", "bucket")]
_BITS: dict[str, Any] = {f"at_{name}": F("signals").bitand(bit) for name, bit in BIT.items()}

Key = tuple[Any, ...]
Table = dict[Key, tuple[int, ...]]


def step(day: date, number: int, result: dict[str, Any]) -> dict[str, Any]:
    """Do step ``number`` (from 0) for ``day``, in the caller's transaction; ``result`` with what it found added.

    ``result`` holds ``calls`` and ``cost_nano`` as counted from calls, ``rows`` corrected, and ``differences`` in words.
    """
    midnight = datetime.combine(day, time(), tzinfo=UTC)
    hour, part = divmod(number, _PER_HOUR)
    found = {"calls": 0, "cost_nano": 0, "rows": 0, "differences": [], **result}
    if number == STEPS - 1:
        attributions.recompute(midnight, found, replace=_replace)
        attributions.recompute_outcomes(midnight, found)
        return found
    if number == STEPS - 2:
        _level(midnight, midnight + 24 * _HOUR, Rollup.HOUR, Rollup.DAY, found)
        return found
    start = midnight + hour * _HOUR
    if part == _QUARTERS:
        _level(start, start + _HOUR, Rollup.MINUTE, Rollup.HOUR, found)
        return found
    start += part * 15 * _MINUTE
    _minutes(start, start + 15 * _MINUTE, found)
    return found


def summary(result: Mapping[str, Any]) -> str:
    """The outcome in a sentence."""
    calls, spend = result.get("calls", 0), format_usd(result.get("cost_nano", 0))
    rows = result.get("rows", 0)
    counted = f"{calls:,} calls, {spend} USD"
    return f"Nothing differed: {counted}." if not rows else f"{rows:,} rows were corrected: {counted}."


def _minutes(start: datetime, end: datetime, found: dict[str, Any]) -> None:
    between = {"start": start, "end": end}
    computed: Table = {}
    # Most quarters of a quiet day have none.
    if Call.objects.filter(started_at__gte=start, started_at__lt=end).exists():
        computed = _table(_CALLS.rows(**between), Rollup.SUMS)
    found["calls"] += sum(sums[0] for sums in computed.values())
    found["cost_nano"] += sum(sums[Rollup.SUMS.index("cost_nano")] for sums in computed.values())
    _replace_counts(Rollup.MINUTE, start, end, computed, found)
    # Without calls there is nothing by prompt and nothing measured either.
    prompted: Table = {}
    measured: Table = {}
    if computed:
        prompted = _table(_CALLS_BY_PROMPT.rows(**between), PromptRollup.SUMS)
        for query in _CALLS_MEASURED:
            measured |= _table(query.rows(**between), ("calls",))
    _replace_prompts(Rollup.MINUTE, start, end, prompted, found)
    _replace_latencies(Rollup.MINUTE, start, end, measured, found)
    summaries.mark_made(Rollup.MINUTE, start, end)


def _level(start: datetime, end: datetime, fine: int, coarse: int, found: dict[str, Any]) -> None:
    """Make the one ``coarse`` bucket from ``start`` on the sum of its ``fine`` ones."""

    def summed(model: type[Model], sums: Sequence[str]) -> Table:
        rows = _SUMMED[model].rows(granularity=fine, start=start, end=end)
        return {(start, *key): added for key, added in _table(rows, sums).items()}

    _replace_counts(coarse, start, start + _MINUTE, summed(Rollup, Rollup.SUMS), found)
    _replace_prompts(coarse, start, start + _MINUTE, summed(PromptRollup, PromptRollup.SUMS), found)
    _replace_latencies(coarse, start, start + _MINUTE, summed(LatencyRollup, ("calls",)), found)
    summaries.mark([summaries.Bucket(coarse, start)])


def _table(rows: Iterable[tuple[Any, ...]], sums: Sequence[str]) -> Table:
    """Rows that end with these sums, by what comes before them."""
    return {row[: -len(sums)]: row[-len(sums) :] for row in rows}


_START, _END = Parameter("start", DateTimeField()), Parameter("end", DateTimeField())


def _by_minute() -> QuerySet[Call, Any]:
    return (
        Call.objects.filter(started_at__gte=_START, started_at__lt=_END)
        .order_by()
        .annotate(minute=TruncMinute("started_at", tzinfo=UTC), **_BITS)
    )


def _counted() -> Any:
    return _adding(_by_minute().values_list("minute", *_BY), _CALL_SUMS, Rollup.SUMS)


def _counted_by_prompt() -> Any:
    named = _by_minute().exclude(prompt_name="").annotate(version=Coalesce("prompt_version", 0))
    by = ("minute", *_PROMPT_BY[:-1], "version")
    return _adding(named.values_list(*by), _PROMPT_SUMS, PromptRollup.SUMS)


def _measured(metric: str, micros: Any, which: Q) -> Any:
    return (
        _by_minute()
        .filter(which)
        .annotate(us=micros, named=Value(metric))
        .annotate(log_bucket=_log_bucket())
        .values_list("minute", "project_id", "route", "model", "named", "log_bucket")
        .annotate(sum_calls=Count("pk"))
    )


def _between(model: type[Model]) -> QuerySet[Any, Any]:
    granularity = Parameter("granularity", IntegerField())
    return model._base_manager.filter(granularity=granularity, bucket__gte=_START, bucket__lt=_END)


def _stored(model: type[Model], by: Sequence[str], sums: Sequence[str]) -> Any:
    return _between(model).order_by().values_list("pk", "bucket", *by, *sums)


def _summed(model: type[Model], by: Sequence[str], sums: Sequence[str]) -> Any:
    grouped = _between(model).order_by().values_list(*by)
    return _adding(grouped, {name: Sum(name) for name in sums}, sums)


def _adding(grouped: QuerySet[Any, Any], sums: Mapping[str, Any], names: Sequence[str]) -> Any:
    return grouped.annotate(**{f"sum_{name}": sums[name] for name in names})


_CALLS, _CALLS_BY_PROMPT = CompiledQuery(_counted), CompiledQuery(_counted_by_prompt)
_TOLD = Q(ttft_us__isnull=False) & ~Q(status=Call.UNKNOWN) & summaries.WORK
_CALLS_MEASURED = [
    CompiledQuery(partial(_measured, metric, micros, which))
    for metric, micros, which in (
        (LatencyRollup.TOTAL, F("total_us"), _ANSWERED),
        (LatencyRollup.TTFT, F("ttft_us"), _TOLD),
        (LatencyRollup.OVERHEAD, F("total_us") - F("upstream_us"), _TIMED),
    )
]
_TABLES: list[tuple[type[Model], Sequence[str], Sequence[str]]] = [
    (Rollup, _BY, Rollup.SUMS),
    (PromptRollup, _PROMPT_BY, PromptRollup.SUMS),
    (LatencyRollup, _LATENCY_BY, ("calls",)),
]
_STORED = {table[0]: CompiledQuery(partial(_stored, *table)) for table in _TABLES}
_SUMMED = {table[0]: CompiledQuery(partial(_summed, *table)) for table in _TABLES}


def _replace_counts(
    granularity: int, start: datetime, end: datetime, computed: Table, found: dict[str, Any]
) -> None:
    def words(bucket: datetime, before: tuple[int, ...], after: tuple[int, ...]) -> str:
        cost = Rollup.SUMS.index("cost_nano")
        return (
            f"{_when(granularity, bucket)}: rows of {before[0]:,} calls and {format_usd(before[cost])} USD became "
            f"{after[0]:,} and {format_usd(after[cost])}"
        )

    stored = _STORED[Rollup].rows(granularity=granularity, start=start, end=end)
    add = _replace(Rollup, stored, Rollup.SUMS, computed, found, words)
    write.add_rollups(
        {(granularity, int(key[0].timestamp()), *key[1:]): list(sums) for key, sums in add.items()}
    )


def _replace_prompts(
    granularity: int, start: datetime, end: datetime, computed: Table, found: dict[str, Any]
) -> None:
    def words(bucket: datetime, before: tuple[int, ...], after: tuple[int, ...]) -> str:
        return f"{_when(granularity, bucket)}: figures by prompt of {before[0]:,} calls became those of {after[0]:,}"

    stored = _STORED[PromptRollup].rows(granularity=granularity, start=start, end=end)
    add = _replace(PromptRollup, stored, PromptRollup.SUMS, computed, found, words)
    write.add_prompts(
        {(granularity, int(key[0].timestamp()), *key[1:]): list(sums) for key, sums in add.items()}
    )


def _replace_latencies(
    granularity: int, start: datetime, end: datetime, computed: Table, found: dict[str, Any]
) -> None:
    def words(bucket: datetime, before: tuple[int, ...], after: tuple[int, ...]) -> str:
        return f"{_when(granularity, bucket)}: {before[0]:,} measured durations became {after[0]:,}"

    stored = _STORED[LatencyRollup].rows(granularity=granularity, start=start, end=end)
    add = _replace(LatencyRollup, stored, ("calls",), computed, found, words)
    write.add_latencies(
        {(granularity, int(key[0].timestamp()), *key[1:]): sums[0] for key, sums in add.items()}
    )


def _replace(
    model: type[Model],
    stored: Iterable[tuple[Any, ...]],
    sums: Sequence[str],
    computed: Table,
    found: dict[str, Any],
    words: Callable[[datetime, tuple[int, ...], tuple[int, ...]], str],
) -> Table:
    """Delete the stored rows (primary key, dimensions from the bucket on, sums) that are not as computed; the computed ones that
    now are missing."""
    missing, wrong, touched = dict(computed), [], set()
    off: dict[datetime, tuple[list[int], list[int]]] = {}
    for pk, *values in stored:
        key, have = tuple(values[: -len(sums)]), tuple(values[-len(sums) :])
        if missing.get(key) == have:
            del missing[key]
            continue
        wrong.append(pk)
        touched.add(key)
        _note(off, key[0], 0, have)
    for key, should in missing.items():
        touched.add(key)
        _note(off, key[0], 1, should)
    for first in range(0, len(wrong), 500):
        model._base_manager.filter(pk__in=wrong[first : first + 500]).delete()
    found["rows"] += len(touched)
    for bucket, (before, after) in sorted(off.items()):
        if len(found["differences"]) < _MOST_DIFFERENCES:
            found["differences"].append(words(bucket, tuple(before), tuple(after)))
    return missing


def _note(
    off: dict[datetime, tuple[list[int], list[int]]], bucket: datetime, side: int, sums: tuple[int, ...]
) -> None:
    """Add the sums of a row that was wrong (side 0) or is right instead (side 1) to those of its bucket."""
    amounts = off.setdefault(bucket, ([0] * len(sums), [0] * len(sums)))[side]
    for index, value in enumerate(sums):
        amounts[index] += value


def _log_bucket() -> Any:
    """``core.histogram.bucket_of`` of the annotation ``us``, as SQL."""
    logarithm = Ln(Cast("us", FloatField())) / Value(math.log(GAMMA))
    return Case(
        When(us__lte=1, then=Value(0)),
        default=Cast(Ceil(logarithm), IntegerField()),
        output_field=IntegerField(),
    )


def _when(granularity: int, bucket: datetime) -> str:
    shape = {Rollup.MINUTE: "%Y-%m-%d %H:%M", Rollup.HOUR: "%Y-%m-%d %H h", Rollup.DAY: "%Y-%m-%d"}
    return f"{bucket:{shape[granularity]}}"
