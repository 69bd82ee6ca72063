"""Hard budgets that refuse calls."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from llmops.alerts.figures import Figures
from llmops.alerts.kinds.base import Asked, Finding, Kind, usd
from llmops.budgets.selectors import active_budgets, gauges, recent_crossings


def _look(asked: Asked, figures: Figures) -> Iterator[Finding]:
    """Refusals of the last day under a limit that was not raised since, as long as little is left."""
    wanted = None if asked.scope.project_id is None else [asked.scope.project_id]
    known = {gauge.budget_id: gauge for gauge in gauges(wanted, figures.now)}
    hard = [budget.pk for budget in active_budgets() if budget.pk in known and budget.hard]
    for crossing in recent_crossings(hard, figures.now - timedelta(days=1)) if hard else ():
        gauge = known[crossing.window.budget_id]
        if not crossing.refusing or not gauge.next_to_nothing_left:
            continue
        yield Finding(
            subject=f"budget:{gauge.slug}",
            title=f"A hard budget refuses calls: {gauge.slug}",
            says=f"{usd(gauge.settled_nano / 1e9)} of {usd(gauge.limit_nano / 1e9)} are spent"
            + (f"; it resets at {gauge.resets_at:%Y-%m-%d %H:%M} UTC." if gauge.resets_at else "."),
            value=1.0,
            bound=1.0,
            project_id=gauge.project_id,
            facts={"page": "admin:budgets_budget_change", "object": str(gauge.budget_id), "error": "insufficient_quota"},
        )  # fmt: skip


KIND = Kind(
    name="budget_exhausted",
    title="A hard budget refuses calls",
    says="Hard budgets that refused a call within the last day and have next to nothing left.",
    look=_look,
    runbook="budget-exhausted",
    narrows=("project",),
)
