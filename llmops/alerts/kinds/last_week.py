"""A figure that is far from what it was at the same time a week ago."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

from llmops.alerts.figures import TOTAL, Figures, Measured
from llmops.alerts.kinds.base import EASE, MIN_CALLS, Asked, Finding, Kind, Setting, narrowing, place, times

_WEEK = timedelta(days=7)


def _p95(measured: Measured) -> float | None:
    return measured.quantile_us(TOTAL, 0.95)


def _per_call(name: str) -> Callable[[Measured], float | None]:
    return lambda measured: measured.total(name) / measured.upstream if measured.upstream else None


#: What is compared, in the order in which it is told. Each is a figure of a call, so that hours of any length compare.
_COMPARED: tuple[tuple[str, str, Callable[[Measured], float | None]], ...] = (
    ("cost", "What a call costs", _per_call("cost_nano")),
    ("latency", "p95 of how long answers take", _p95),
    ("input", "Input tokens for each call", _per_call("input_tokens")),
)


def _look(asked: Asked, figures: Figures) -> Iterator[Finding]:
    """The hour that is not over and the one before it, against the same two hours a week ago."""
    bound, fewest = asked.settings["times"], asked.settings["min_calls"]
    now, before = (figures.over(3600, asked.scope, ago=ago) for ago in (timedelta(seconds=0), _WEEK))
    subject, words = place(asked.scope)
    if now.upstream < fewest or before.upstream < fewest:
        return
    for name, title, of in _COMPARED:
        here, there = of(now), of(before)
        if not here or not there or here / there < bound * EASE:
            continue
        yield Finding(
            subject=f"{subject}:{name}",
            title=f"Not as last week: {title[0].lower()}{title[1:]}, {words}",
            says=f"{title} is {times(here / there)} of what it was at the same time a week ago, in {now.upstream:,} calls "
            f"({before.upstream:,} then).",
            value=here / there,
            bound=bound,
            holds=here / there >= bound,
            calls=now.upstream,
            project_id=asked.scope.project_id,
            facts=narrowing(asked.scope),
        )


KIND = Kind(
    name="last_week",
    title="Not as last week",
    says="Cost, duration or input of a call, against those of the same hours a week ago.",
    look=_look,
    runbook="silent-regression",
    settings=(Setting("times", "From", 2, "x", 1.05, 1000), MIN_CALLS),
    narrows=("project", "route", "model", "feature"),
    every_s=60,
)
