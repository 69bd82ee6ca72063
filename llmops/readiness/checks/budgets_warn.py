"""Budgets tell somebody before they end."""

from __future__ import annotations

from llmops.budgets.models import Budget
from llmops.readiness.finding import COST, Check, Finding, every


def look() -> Finding:
    budgets = list(Budget.objects.filter(archived_at=None))
    return every(
        budgets,
        [one.slug for one in budgets if not (one.thresholds and one.notify)],
        "budgets",
        "tell nobody",
    )


CHECK = Check(
    "budgets-warn",
    COST,
    "Budgets tell somebody before they end",
    fix="Give the budget thresholds and addresses to tell.",
    link="budgets.budget",
    look=look,
)
