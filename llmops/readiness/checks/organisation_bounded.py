"""The organisation has a budget."""

from __future__ import annotations

from llmops.budgets.models import Budget
from llmops.readiness.finding import COST, Check, Finding, lacking, listed, met


def look() -> Finding:
    found = Budget.objects.filter(archived_at=None, scope_kind="organisation").values_list("slug", flat=True)
    return met(f"{listed(list(found))}.") if found else lacking("No budget covers everything.")


CHECK = Check(
    "organisation-bounded",
    COST,
    "The organisation has a budget",
    fix="Make a budget for the whole organisation, hard or soft.",
    link="budgets.budget",
    look=look,
)
