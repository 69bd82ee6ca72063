"""Recomputing a day's rollups from its calls, in steps short enough to hold up the ingester only for moments.

A step recomputes the minutes of a quarter of an hour from calls, then an hour from its minutes, at last the day from its
hours, its figures by end user and tag from its calls; it replaces only what differs. Summaries of all these are made anew
by workers, right or wrong. Each runs alone under ``ROLLUPS_LOCK``, so what it leaves is exact at that moment,
and what is booked later adds to it. A step that is run again changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.db.models import Case, Count, F, FloatField, IntegerField, Q, QuerySet, Sum, Value, When
from django.db.models.functions import Cast, Ceil, Coalesce, Ln, TruncMinute

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
    calls = Call.objects.filter(started_at__gte=start, started_at__lt=end).order_by()
    per_minute = calls.annotate(bucket=TruncMinute("started_at", tzinfo=UTC), **_BITS)
    computed: Table = {}
    # Most quarters of a quiet day have none, and a question for forty sums takes much longer to put than this one.
    if calls.exists():
        computed = {
            (row["bucket"], *(row[name] for name in _BY)): tuple(row[f"sum_{name}"] for name in Rollup.SUMS)
            for row in _rows(
                per_minute.values("bucket", *_BY).annotate(
                    **{f"sum_{name}": expression for name, expression in _CALL_SUMS.items()}
                )
            )
        }
    found["calls"] += sum(sums[0] for sums in computed.values())
    found["cost_nano"] += sum(sums[Rollup.SUMS.index("cost_nano")] for sums in computed.values())
    _replace_counts(Rollup.MINUTE, start, end, computed, found)
    # Without calls there is nothing by prompt and nothing measured either.
    _replace_prompts(Rollup.MINUTE, start, end, _prompted(per_minute) if computed else {}, found)
    _replace_latencies(Rollup.MINUTE, start, end, _measured(per_minute) if computed else {}, found)
    summaries.mark_made(Rollup.MINUTE, start, end)


def _prompted(per_minute: QuerySet[Call, Any]) -> Table:
    named = per_minute.exclude(prompt_name="").annotate(version=Coalesce("prompt_version", 0))
    by_prompt = [*_PROMPT_BY[:-1], "version"]
    return {
        (row["bucket"], *(row[name] for name in by_prompt)): tuple(
            row[f"sum_{name}"] for name in PromptRollup.SUMS
        )
        for row in _rows(
            named.values("bucket", *by_prompt).annotate(
                **{f"sum_{name}": expression for name, expression in _PROMPT_SUMS.items()}
            )
        )
    }


def _measured(per_minute: QuerySet[Call, Any]) -> Table:
    measured: Table = {}
    for metric, micros, which in (
        (LatencyRollup.TOTAL, F("total_us"), _ANSWERED),
        (
            LatencyRollup.TTFT,
            F("ttft_us"),
            Q(ttft_us__isnull=False) & ~Q(status=Call.UNKNOWN) & summaries.WORK,
        ),
        (LatencyRollup.OVERHEAD, F("total_us") - F("upstream_us"), _ANSWERED & Q(upstream_us__isnull=False)),
    ):
        grouped = (
            per_minute.filter(which)
            .annotate(us=micros)
            .annotate(log_bucket=_log_bucket())
            .values("bucket", "project_id", "route", "model", "log_bucket")
            .annotate(sum_calls=Count("pk"))
        )
        for row in _rows(grouped):
            key = (row["bucket"], row["project_id"], row["route"], row["model"], metric, row["log_bucket"])
            measured[key] = (row["sum_calls"],)
    return measured


def _level(start: datetime, end: datetime, fine: int, coarse: int, found: dict[str, Any]) -> None:
    """Make the one ``coarse`` bucket from ``start`` on the sum of its ``fine`` ones."""
    conditions = {"granularity": fine, "bucket__gte": start, "bucket__lt": end}
    fines = Rollup.objects.filter(**conditions).order_by()
    _replace_counts(coarse, start, start + _MINUTE, _summed(fines, start, _BY, Rollup.SUMS), found)
    versions = PromptRollup.objects.filter(**conditions).order_by()
    prompted = _summed(versions, start, _PROMPT_BY, PromptRollup.SUMS)
    _replace_prompts(coarse, start, start + _MINUTE, prompted, found)
    measures = LatencyRollup.objects.filter(**conditions).order_by()
    measured = _summed(measures, start, _LATENCY_BY, ("calls",))
    _replace_latencies(coarse, start, start + _MINUTE, measured, found)
    summaries.mark([summaries.Bucket(coarse, start)])


def _summed(fines: QuerySet[Any], start: datetime, names: list[str], sums: tuple[str, ...]) -> Table:
    """The sums of rows by their dimensions, as rows of the bucket ``start``."""
    if not fines.exists():
        return {}
    grouped = fines.values(*names).annotate(**{f"sum_{name}": Sum(name) for name in sums})
    return {
        (start, *(row[name] for name in names)): tuple(row[f"sum_{name}"] for name in sums)
        for row in _rows(grouped)
    }


def _replace_counts(
    granularity: int, start: datetime, end: datetime, computed: Table, found: dict[str, Any]
) -> None:
    def words(bucket: datetime, before: tuple[int, ...], after: tuple[int, ...]) -> str:
        cost = Rollup.SUMS.index("cost_nano")
        return (
            f"{_when(granularity, bucket)}: rows of {before[0]:,} calls and {format_usd(before[cost])} USD became "
            f"{after[0]:,} and {format_usd(after[cost])}"
        )

    stored = Rollup.objects.filter(granularity=granularity, bucket__gte=start, bucket__lt=end)
    add = _replace(stored, ["bucket", *_BY], Rollup.SUMS, computed, found, granularity, words)
    write.add_rollups(
        {(granularity, int(key[0].timestamp()), *key[1:]): list(sums) for key, sums in add.items()}
    )


def _replace_prompts(
    granularity: int, start: datetime, end: datetime, computed: Table, found: dict[str, Any]
) -> None:
    def words(bucket: datetime, before: tuple[int, ...], after: tuple[int, ...]) -> str:
        return f"{_when(granularity, bucket)}: figures by prompt of {before[0]:,} calls became those of {after[0]:,}"

    stored = PromptRollup.objects.filter(granularity=granularity, bucket__gte=start, bucket__lt=end)
    add = _replace(stored, ["bucket", *_PROMPT_BY], PromptRollup.SUMS, computed, found, granularity, words)
    write.add_prompts(
        {(granularity, int(key[0].timestamp()), *key[1:]): list(sums) for key, sums in add.items()}
    )


def _replace_latencies(
    granularity: int, start: datetime, end: datetime, computed: Table, found: dict[str, Any]
) -> None:
    def words(bucket: datetime, before: tuple[int, ...], after: tuple[int, ...]) -> str:
        return f"{_when(granularity, bucket)}: {before[0]:,} measured durations became {after[0]:,}"

    stored = LatencyRollup.objects.filter(granularity=granularity, bucket__gte=start, bucket__lt=end)
    add = _replace(stored, ["bucket", *_LATENCY_BY], ("calls",), computed, found, granularity, words)
    write.add_latencies(
        {(granularity, int(key[0].timestamp()), *key[1:]): sums[0] for key, sums in add.items()}
    )


def _replace(
    stored: QuerySet[Any],
    names: list[str],
    sums: tuple[str, ...],
    computed: Table,
    found: dict[str, Any],
    granularity: int,
    words: Callable[[datetime, tuple[int, ...], tuple[int, ...]], str],
) -> Table:
    """Delete the stored rows that are not as computed; the computed ones that now are missing."""
    missing, wrong, touched = dict(computed), [], set()
    off: dict[datetime, tuple[list[int], list[int]]] = {}
    for pk, *values in stored.order_by().values_list("pk", *names, *sums):
        key, have = tuple(values[: len(names)]), tuple(values[len(names) :])
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
        stored.model._base_manager.filter(pk__in=wrong[first : first + 500]).delete()
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


def _rows(queryset: Any) -> Iterable[dict[str, Any]]:
    return queryset.iterator(chunk_size=2000)
