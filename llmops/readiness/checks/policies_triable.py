"""Policies can be tried on real calls."""

from __future__ import annotations

from llmops.readiness.facts import active_projects
from llmops.readiness.finding import TESTING, Check, Finding, lacking, listed, met


def look() -> Finding:
    found = [one.slug for one in active_projects() if one.keep_texts_percent]
    return met(f"{listed(found)}.") if found else lacking("No project keeps texts.")


CHECK = Check(
    "policies-triable",
    TESTING,
    "Policies can be tried on real calls",
    fix="Keep a share of the texts of a project, redacted and sealed.",
    link="access.project",
    look=look,
)
