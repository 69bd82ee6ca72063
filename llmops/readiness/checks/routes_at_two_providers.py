"""A provider that is down takes no route with it."""

from __future__ import annotations

from llmops.readiness.facts import live_routes
from llmops.readiness.finding import ERRORS, Check, Finding, every


def look() -> Finding:
    routes = live_routes()
    return every(
        routes, [one.slug for one in routes if len(one.providers) < 2], "routes", "lead to one provider only"
    )


CHECK = Check(
    "routes-at-two-providers",
    ERRORS,
    "A provider that is down takes no route with it",
    fix="Give the route a fallback at another provider.",
    link="providers.route",
    look=look,
)
