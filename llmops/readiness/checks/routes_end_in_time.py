"""No call waits longer than three minutes."""

from __future__ import annotations

from llmops.readiness.facts import live_routes
from llmops.readiness.finding import ERRORS, Check, Finding, every


def look() -> Finding:
    routes = live_routes()
    return every(
        routes, [one.slug for one in routes if one.total_timeout_ms > 180_000], "routes", "may take longer"
    )


CHECK = Check(
    "routes-end-in-time",
    ERRORS,
    "No call waits longer than three minutes",
    fix="Lower the route's total time-out to what its callers wait for.",
    link="providers.route",
    look=look,
)
