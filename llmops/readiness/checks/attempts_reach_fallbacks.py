"""Attempts suffice to reach every fallback."""

from __future__ import annotations

from llmops.readiness.facts import live_routes
from llmops.readiness.finding import ERRORS, Check, Finding, every


def look() -> Finding:
    routes = live_routes()
    return every(
        routes,
        [one.slug for one in routes if one.attempts < len(one.models)],
        "routes",
        "give up before their last fallback",
    )


CHECK = Check(
    "attempts-reach-fallbacks",
    ERRORS,
    "Attempts suffice to reach every fallback",
    fix="Raise the route's attempts to the number of its models, or take fallbacks out.",
    link="providers.route",
    look=look,
)
