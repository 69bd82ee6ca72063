"""Budgets that will not last for their period."""

from __future__ import annotations

from collections.abc import Iterator

from llmops.alerts.figures import Figures
from llmops.alerts.kinds.base import EASE, Asked, Finding, Kind, Setting, percent, usd
from llmops.budgets.selectors import gauges

#: So much of the period must have gone by before its pace says anything.
_FIRST_SHARE = 0.1


def _look(asked: Asked, figures: Figures) -> Iterator[Finding]:
    """What was settled, at the pace of the period until now. The Spend page's own forecast knows of weekends; a budget that runs
    out within its day or week is told of here all the same."""
    bound = asked.settings["percent"]
    wanted = None if asked.scope.project_id is None else [asked.scope.project_id]
    for gauge in gauges(wanted, figures.now):
        if gauge.resets_at is None or not gauge.limit_nano:
            continue
        whole = (gauge.resets_at - gauge.starts_at).total_seconds()
        gone = (figures.now - gauge.starts_at).total_seconds() / whole
        if gone < _FIRST_SHARE:
            continue
        expected = gauge.settled_nano / gone
        value = 100.0 * expected / gauge.limit_nano
        if value < bound * EASE:
            continue
        yield Finding(
            subject=f"budget:{gauge.slug}",
            title=f"A budget will not last: {gauge.slug}",
            says=f"{usd(gauge.settled_nano / 1e9)} of {usd(gauge.limit_nano / 1e9)} are spent after {percent(100 * gone)} of its "
            f"period; at this pace it ends at {usd(expected / 1e9)}.",
            value=value,
            bound=bound,
            holds=value >= bound,
            project_id=gauge.project_id,
            facts={"page": "admin:budgets_budget_change", "object": str(gauge.budget_id)},
        )


KIND = Kind(
    name="spend_forecast",
    title="A budget will not last",
    says="What a budget's period will have cost at its end, at its pace until now, against its limit.",
    look=_look,
    runbook="spend",
    settings=(Setting("percent", "From", 110, "%", 1, 10_000),),
    narrows=("project",),
    every_s=60,
)
