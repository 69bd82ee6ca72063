"""What the database must hold after journals are booked, reckoned from what was written, without the code under test."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from llmops.usage.models import AttributionRollup, Call, LatencyRollup, PromptRollup, Rollup
from llmops.usage.records import Ended, Media, Outcome

Sums = dict[str, int]


def finals(written: Iterable[Ended]) -> list[tuple[Ended, list[Ended]]]:
    """(last record of a call, all its records), in the order in which calls ended."""
    by_call: dict[str, list[Ended]] = defaultdict(list)
    found = []
    for ended in written:
        by_call[ended.origin.call].append(ended)
        if ended.outcome is not None:
            found.append((ended, by_call[ended.origin.call]))
    return found


def expected_rollups(written: Sequence[Ended]) -> dict[tuple[Any, ...], Counter[str]]:
    """(granularity, bucket, project, key, endpoint, route, model, feature, status, code) -> sums."""
    table: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for last, records in finals(written):
        origin, outcome = last.origin, last.outcome
        assert outcome is not None
        attempts = max(record.attempt for record in records)
        sums = Counter(
            calls=1,
            streamed=int(origin.streamed),
            attempts=max(attempts, len(outcome.attempts)),
            retries=outcome.retries,
            fallback_calls=int(outcome.fallbacks > 0),
            input_tokens=outcome.tokens.input,
            cached_input_tokens=outcome.tokens.cached,
            cache_write_tokens=outcome.tokens.cache_write,
            output_tokens=outcome.tokens.output,
            reasoning_tokens=outcome.tokens.reasoning,
            **media_of(outcome.tokens.media or Media()),
            cost_nano=sum(record.cost for record in records),
            overrun_nano=sum(max((one.overrun for one in record.charges), default=0) for record in records),
            cache_hits=int(outcome.cache in ("hit", "joined", "stale")),
            saved_nano=outcome.saved,
            **timing_of(outcome, attempts),
            **signals_of(outcome),
        )
        seconds = origin.started // 10**9
        for granularity in (60, 3600, 86400):
            bucket = datetime.fromtimestamp(seconds // granularity * granularity, tz=UTC)
            key = (
                granularity,
                bucket,
                UUID(origin.project),
                UUID(origin.key),
                origin.endpoint,
                origin.route,
                outcome.model,
                origin.feature,
                outcome.status,
                outcome.code,
            )
            table[key].update(sums)
    return table


def timing_of(outcome: Outcome, attempts: int) -> dict[str, int]:
    timed = outcome.status == "ok" and attempts > 0 and outcome.upstream_us is not None
    return {
        "busy_us": outcome.total_us,
        "timed_calls": int(timed),
        "timed_us": outcome.total_us if timed else 0,
        "upstream_us": (outcome.upstream_us or 0) if timed else 0,
        "queue_us": outcome.queue_us if timed else 0,
        "queued_calls": int(outcome.queue_us >= 1000),
    }


def signals_of(outcome: Outcome) -> dict[str, int]:
    """What is to be counted of the quality of an answer, from the record alone."""
    checks = {verdict.check for verdict in outcome.verdicts}
    actions = {verdict.action for verdict in outcome.verdicts}
    cut_off = outcome.finish in ("length", "max_output_tokens")
    found = {
        "truncated": (cut_off or "truncation" in checks) and not (cut_off and outcome.capped),
        "filtered": outcome.finish == "content_filter"
        or outcome.code in ("content_filter", "upstream_filtered")
        or "content_filter" in checks,
        "declined": "refusal" in checks,
        "schema_failed": "schema" in checks,
        "lazy": "lazy" in checks,
        "repaired": "retry" in actions and outcome.status == "ok",
        "flagged": "allow" in actions,
        "redacted": "redact" in actions,
        "blocked": bool(actions & {"block", "require_approval"}),
        "capped": cut_off and outcome.capped,
    }
    return {name: int(seen) for name, seen in found.items()}


def expected_prompts(written: Sequence[Ended]) -> dict[tuple[Any, ...], Counter[str]]:
    """(granularity, bucket, project, key, route, model, feature, prompt, version) -> sums, of calls that name a prompt."""
    table: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for last, records in finals(written):
        origin, outcome = last.origin, last.outcome
        assert outcome is not None
        if not origin.prompt_name:
            continue
        sums = Counter(
            calls=1,
            failed=int(outcome.status in ("error", "interrupted", "unknown")),
            refused=int(outcome.status == "refused"),
            input_tokens=outcome.tokens.input,
            output_tokens=outcome.tokens.output,
            cost_nano=sum(record.cost for record in records),
            **signals_of(outcome),
        )
        seconds = origin.started // 10**9
        whose = (UUID(origin.project), UUID(origin.key), origin.route, outcome.model, origin.feature)
        for granularity in (60, 3600, 86400):
            bucket = datetime.fromtimestamp(seconds // granularity * granularity, tz=UTC)
            key = (granularity, bucket, *whose, origin.prompt_name, origin.prompt_version)
            table[key].update(sums)
    return table


def assert_prompts(written: Sequence[Ended]) -> None:
    stored = {
        tuple(getattr(row, name) for name in PromptRollup.DIMENSIONS): Counter(
            {name: getattr(row, name) for name in PromptRollup.SUMS}
        )
        for row in PromptRollup.objects.all()
    }
    expected = expected_prompts(written)
    assert stored.keys() == expected.keys(), stored.keys() ^ expected.keys()
    for key, sums in expected.items():
        assert +stored[key] == +sums, key


def expected_attributions(written: Sequence[Ended]) -> dict[tuple[Any, ...], Counter[str]]:
    """(granularity, bucket, kind, project, end user or tag) -> sums; the empty value counts a call once."""
    table: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for last, records in finals(written):
        origin, outcome = last.origin, last.outcome
        assert outcome is not None
        sums = Counter(
            calls=1,
            refused=int(outcome.status == "refused"),
            input_tokens=outcome.tokens.input,
            output_tokens=outcome.tokens.output,
            cost_nano=sum(record.cost for record in records),
            saved_nano=outcome.saved,
        )
        day = datetime.fromtimestamp(origin.started // 10**9 // 86400 * 86400, tz=UTC)
        users = {origin.user, ""} if origin.user else set()
        tags = {tag for tag in origin.tags if tag}
        for kind, values in (("user", users), ("tag", {*tags, ""} if tags else set())):
            for value in values:
                for granularity, bucket in ((86400, day), (31 * 86400, day.replace(day=1))):
                    table[granularity, bucket, kind, UUID(origin.project), value].update(sums)
    return table


def assert_attributions(written: Sequence[Ended]) -> None:
    stored = {
        tuple(getattr(row, name) for name in AttributionRollup.DIMENSIONS): Counter(
            {name: getattr(row, name) for name in AttributionRollup.SUMS}
        )
        for row in AttributionRollup.objects.all()
    }
    expected = expected_attributions(written)
    assert stored.keys() == expected.keys(), stored.keys() ^ expected.keys()
    for key, sums in expected.items():
        assert +stored[key] == +sums, key


def media_of(media: Media) -> dict[str, int]:
    return {
        "audio_input_tokens": media.audio_input,
        "image_input_tokens": media.image_input,
        "audio_output_tokens": media.audio_output,
        "image_output_tokens": media.image_output,
        "characters": media.characters,
        "seconds": media.seconds,
        "images": media.images,
    }


def stored_rollups() -> dict[tuple[Any, ...], Counter[str]]:
    return {
        tuple(getattr(row, name) for name in Rollup.DIMENSIONS): Counter(
            {name: getattr(row, name) for name in Rollup.SUMS}
        )
        for row in Rollup.objects.all()
    }


def assert_rollups(written: Sequence[Ended]) -> None:
    expected, stored = expected_rollups(written), stored_rollups()
    assert stored.keys() == expected.keys()
    for key, sums in expected.items():
        assert +stored[key] == +sums, key
    assert_attributions(written)
    assert_prompts(written)


def assert_calls(written: Sequence[Ended]) -> None:
    """Each call is there once, at the sum of what its attempts cost."""
    expected = {UUID(last.origin.call): sum(one.cost for one in records) for last, records in finals(written)}
    assert dict(Call.objects.values_list("pk", "cost_nano")) == expected


def measured(written: Sequence[Ended], metric: str) -> list[int]:
    values = []
    for last, records in finals(written):
        outcome = last.outcome
        assert outcome is not None
        answered = outcome.status == "ok" and max(record.attempt for record in records) > 0
        if metric == "ttft" and outcome.ttft_us is not None:
            values.append(outcome.ttft_us)
        elif metric == "total" and answered:
            values.append(outcome.total_us)
        elif metric == "overhead" and answered and outcome.upstream_us is not None:
            values.append(outcome.total_us - outcome.upstream_us)
    return sorted(values)


def nearest_rank(values: Sequence[int], q: float) -> int:
    return values[max(1, math.ceil(q * len(values))) - 1]


def assert_close(told: int | None, exact: int) -> None:
    """Within 1 %, or within the one microsecond below which the sketch does not tell durations apart."""
    assert told is not None
    assert abs(told - exact) <= max(1, 0.01 * exact + 0.5), (told, exact)


def assert_latencies(written: Sequence[Ended]) -> None:
    """Every level of the sketches counts what was measured."""
    for metric in ("total", "ttft", "overhead"):
        expected = len(measured(written, metric))
        for granularity in (60, 3600, 86400):
            rows = LatencyRollup.objects.filter(metric=metric, granularity=granularity)
            assert sum(rows.values_list("calls", flat=True)) == expected, (metric, granularity)
