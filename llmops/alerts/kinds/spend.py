"""What is spent within a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmops.alerts.figures import Figures, Measured
from llmops.alerts.kinds.base import EASE, Asked, Finding, Kind, Setting, narrowing, place, usd


def _figure(measured: Measured, settings: Mapping[str, float]) -> tuple[float, bool] | None:
    value = measured.total("cost_nano") / 1e9
    return value, value >= settings["usd"]


def _look(asked: Asked, figures: Figures) -> Iterator[Finding]:
    bound, seconds = asked.settings["usd"], int(asked.settings["window_s"])
    measured = figures.over(seconds, asked.scope)
    value, holds = _figure(measured, asked.settings) or (0.0, False)
    if value < bound * EASE:
        return
    subject, words = place(asked.scope)
    yield Finding(
        subject=subject,
        title=f"Spend is high: {words}",
        says=f"{usd(value)} in the last {seconds // 60} min (bound {usd(bound)}), in {measured.calls:,} calls.",
        value=value,
        bound=bound,
        holds=holds,
        calls=measured.calls,
        project_id=asked.scope.project_id,
        facts=narrowing(asked.scope),
    )


KIND = Kind(
    name="spend",
    title="Spend is high",
    says="What all calls of a place together cost within a time.",
    look=_look,
    runbook="spend",
    settings=(Setting("usd", "From", 100, "USD", 0.000001), Setting("window_s", "Looks back", 3600, "s", 60, 86_400)),
    narrows=("project", "route", "model", "feature"),
    measure=_figure,
)  # fmt: skip
