"""Output tokens for each call that are far from those of the last week's hours."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from statistics import median

from llmops.alerts.figures import Figures, Measured
from llmops.alerts.kinds.base import EASE, MIN_CALLS, Asked, Finding, Kind, Setting, narrowing, place
from llmops.usage.models import Rollup
from llmops.usage.selectors.spans import floor

#: Makes the median of absolute deviations an estimate of the standard deviation of normal data (Rousseeuw and Croux 1993).
_MAD_SCALE = 1.4826
#: Hours that a route must have had enough calls in before anything can be called unusual; and how little of the median counts as
#: scatter, for routes whose answers are all alike.
FEWEST_HOURS, LEAST_SCATTER = 12, 0.05
_DAYS_BACK = 7 * 86_400


def score(value: float, history: list[float]) -> float | None:
    """How many robust standard deviations ``value`` lies from the median of ``history``; None of too little. Iglewicz and Hoaglin
    (1993), *How to Detect and Handle Outliers*, call what is beyond 3.5 an outlier."""
    if len(history) < FEWEST_HOURS:
        return None
    middle = median(history)
    scatter = _MAD_SCALE * median(abs(one - middle) for one in history)
    return abs(value - middle) / max(scatter, LEAST_SCATTER * middle, 1e-9)


def _per_call(measured: Measured) -> float:
    return measured.total("output_tokens") / max(1, measured.answered)


def _look(asked: Asked, figures: Figures) -> Iterator[Finding]:
    bound, fewest = asked.settings["deviations"], asked.settings["min_calls"]
    histories: dict[str, list[tuple[datetime, Measured]]] = {}
    for (route, at), measured in figures.by_bucket(_DAYS_BACK, asked.scope).items():
        histories.setdefault(route, []).append((at, measured))
    this_hour = floor(figures.now, Rollup.HOUR) - timedelta(hours=1)
    for route, measured in sorted(figures.by_route(3600, asked.scope).items()):
        if measured.answered < fewest:
            continue
        usual = [
            _per_call(one)
            for at, one in histories.get(route, [])
            if at < this_hour and one.answered >= fewest
        ]
        value = _per_call(measured)
        found = score(value, usual)
        if found is None or found < bound * EASE:
            continue
        subject, words = place(asked.scope, route)
        yield Finding(
            subject=subject,
            title=f"Answers are of unusual length: {words}",
            says=f"{value:,.0f} output tokens for each call in the last hour, usually {median(usual):,.0f}: {found:.1f} deviations "
            f"from the last week's hours, in {measured.answered:,} calls.",
            value=found,
            bound=bound,
            holds=found >= bound,
            calls=measured.answered,
            project_id=asked.scope.project_id,
            facts=narrowing(asked.scope, route),
        )


KIND = Kind(
    name="output_anomaly",
    title="Answers are of unusual length",
    says="Output tokens for each call of a route in the last hour, against the hours of the last week.",
    look=_look,
    runbook="silent-regression",
    settings=(Setting("deviations", "From", 5, "x", 1, 100), MIN_CALLS),
    narrows=("project", "route", "model", "feature"),
    every_s=60,
)
