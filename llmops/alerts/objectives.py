"""How the calls of a window count for an objective."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from uuid import UUID

from llmops.alerts.burn import Count
from llmops.alerts.figures import TOTAL, TTFT, Bucket, Figures, Measured, Scope
from llmops.alerts.models import Slo

_METRICS = {Slo.LATENCY: TOTAL, Slo.TTFT: TTFT}


def scope_of(slo: Slo) -> Scope:
    return Scope(project_id=slo.project_id, route=slo.route, feature=slo.feature)


def counted(
    slos: Collection[Slo], windows: Collection[int], figures: Figures
) -> dict[UUID, dict[int, Count]]:
    """Calls that count for each objective in the last so many seconds, and those that missed it: by its key and window, all
    objectives read together. Refusals and hang-ups do not count."""
    buckets = {
        fine: {seconds: figures.buckets(seconds, fine=fine) for seconds in windows} for fine in (False, True)
    }
    asked: dict[Scope, set[Bucket]] = defaultdict(set)
    metrics: dict[Scope, set[str]] = defaultdict(set)
    for slo in slos:
        asked[scope_of(slo)].update(*buckets[_by_slices(slo)].values())
        if metric := _METRICS.get(slo.objective):
            metrics[scope_of(slo)].add(metric)
    measured = figures.in_buckets(asked, metrics)
    found: dict[UUID, dict[int, Count]] = {}
    for slo in slos:
        each = {bucket: _count(slo, one) for bucket, one in measured[scope_of(slo)].items()}
        found[slo.pk] = {
            seconds: _sum(each[bucket] for bucket in those if bucket in each)
            for seconds, those in buckets[_by_slices(slo)].items()
        }
    return found


def _by_slices(slo: Slo) -> bool:
    """Rollups keep what calls cost together, not each: all calls of a slice of time whose mean cost is too high missed it."""
    return slo.objective == Slo.COST


def _count(slo: Slo, measured: Measured) -> Count:
    if slo.objective == Slo.COST:
        calls = measured.upstream
        return Count(calls if measured.total("cost_nano") > slo.threshold * calls else 0, calls)
    if slo.objective == Slo.AVAILABILITY:
        return Count(measured.faults, measured.served)
    if slo.objective == Slo.SCHEMA:
        broken = measured.contract_broken
        return Count(broken, broken + measured.answered)
    metric = _METRICS[slo.objective]
    timed = measured.timed(metric)
    return Count(timed - measured.within(metric, slo.threshold), timed)


def _sum(counts: Iterable[Count]) -> Count:
    bad = valid = 0
    for one in counts:
        bad += one.bad
        valid += one.valid
    return Count(bad, valid)


def words(slo: Slo) -> str:
    """Such as ``99.9 % of calls of route chat do not fail over 30 days``."""
    what = {
        Slo.AVAILABILITY: "do not fail",
        Slo.LATENCY: f"end within {slo.threshold / 1e6:g} s",
        Slo.TTFT: f"begin to be answered within {slo.threshold / 1e6:g} s",
        Slo.COST: f"cost at most ${slo.threshold / 1e9:g} on average",
        Slo.SCHEMA: "are answered as their contract says",
    }[slo.objective]
    where = [
        f"{name} {value}"
        for name, value in (
            ("route", slo.route),
            ("feature", slo.feature),
            ("project", slo.project.slug if slo.project else ""),
        )
        if value
    ]
    return (
        f"{slo.target_ppm / 10_000:g} % of {'calls of ' + ', '.join(where) if where else 'all calls'} {what}"
    )
