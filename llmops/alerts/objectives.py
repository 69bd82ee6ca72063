"""How the calls of a window count for an objective."""

from __future__ import annotations

from llmops.alerts.burn import Count
from llmops.alerts.figures import TOTAL, TTFT, Figures, Scope
from llmops.alerts.models import Slo


def scope_of(slo: Slo) -> Scope:
    return Scope(project_id=slo.project_id, route=slo.route, feature=slo.feature)


def counted(slo: Slo, seconds: int, figures: Figures) -> Count:
    """Calls that count for it in the last ``seconds``, and those that missed it. Refusals and hang-ups do not count."""
    scope = scope_of(slo)
    if slo.objective == Slo.COST:
        return _by_slices(slo, seconds, figures)
    measured = figures.over(seconds, scope)
    if slo.objective == Slo.AVAILABILITY:
        return Count(measured.faults, measured.served)
    if slo.objective == Slo.SCHEMA:
        broken = measured.contract_broken
        return Count(broken, broken + measured.answered)
    metric = TOTAL if slo.objective == Slo.LATENCY else TTFT
    timed = measured.timed(metric)
    return Count(timed - measured.within(metric, slo.threshold), timed)


def _by_slices(slo: Slo, seconds: int, figures: Figures) -> Count:
    """Rollups keep what calls cost together, not each: all calls of a bucket of time whose mean cost is too high missed it."""
    bad = valid = 0
    for measured in figures.slices(seconds, scope_of(slo)):
        calls = measured.upstream
        valid += calls
        if calls and measured.total("cost_nano") > slo.threshold * calls:
            bad += calls
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
