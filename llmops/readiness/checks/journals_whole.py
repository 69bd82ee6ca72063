"""No journal was lost."""

from __future__ import annotations

from llmops.readiness.finding import MONITORING, Check, Finding, none_of
from llmops.usage.models import Journal


def look() -> Finding:
    found = Journal.objects.filter(state=Journal.LOST).values_list("host", flat=True)
    return none_of(sorted(set(found)), "lost a journal", "None was.")


CHECK = Check(
    "journals-whole",
    MONITORING,
    "No journal was lost",
    fix="Bring the disk back, or explain the lease on the budget's page.",
    link="budgets.budget",
    look=look,
)
