"""Failures that pass are tried again."""

from __future__ import annotations

from llmops.readiness.facts import live_routes
from llmops.readiness.finding import ERRORS, Check, Finding, every


def look() -> Finding:
    routes = live_routes()
    return every(routes, [one.slug for one in routes if one.attempts < 2], "routes", "make one attempt only")


CHECK = Check(
    "routes-retry",
    ERRORS,
    "Failures that pass are tried again",
    fix="Set the route's attempts to 2 or more.",
    link="providers.route",
    look=look,
)
