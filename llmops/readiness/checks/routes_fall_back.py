"""Every route has somewhere else to go."""

from __future__ import annotations

from llmops.readiness.facts import live_routes
from llmops.readiness.finding import ERRORS, Check, Finding, every


def look() -> Finding:
    routes = live_routes()
    return every(
        routes, [one.slug for one in routes if len(one.models) < 2], "routes", "lead to one model only"
    )


CHECK = Check(
    "routes-fall-back",
    ERRORS,
    "Every route has somewhere else to go",
    fix="Add a fallback to the route, so that a model that fails does not fail its callers.",
    link="providers.route",
    look=look,
)
