"""Every project has a hard budget."""

from __future__ import annotations

from llmops.budgets.models import Budget
from llmops.readiness.facts import active_projects
from llmops.readiness.finding import COST, Check, Finding, every


def look() -> Finding:
    projects = active_projects()
    bounded = set(
        Budget.objects.filter(archived_at=None, hard=True, scope_kind="project").values_list(
            "project_id", flat=True
        )
    )
    return every(
        projects, [one.slug for one in projects if one.pk not in bounded], "projects", "may spend without end"
    )


CHECK = Check(
    "projects-bounded",
    COST,
    "Every project has a hard budget",
    fix="Make a hard budget for the project.",
    link="budgets.budget",
    look=look,
)
