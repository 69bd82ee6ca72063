"""Somebody answers for every project."""

from __future__ import annotations

from llmops.readiness.facts import active_projects
from llmops.readiness.finding import COST, Check, Finding, every


def look() -> Finding:
    projects = active_projects()
    return every(
        projects,
        [one.slug for one in projects if not (one.owner and one.cost_center)],
        "projects",
        "have no owner or no cost centre",
    )


CHECK = Check(
    "projects-owned",
    COST,
    "Somebody answers for every project",
    fix="Name an owner and a cost centre on the project's page.",
    link="access.project",
    look=look,
)
