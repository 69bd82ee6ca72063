"""Where nothing answers, callers still get something."""

from __future__ import annotations

from llmops.providers.rules import NO_LAST_RESORT
from llmops.readiness.facts import live_routes
from llmops.readiness.finding import ERRORS, Check, Finding, lacking, listed, met, nothing


def look() -> Finding:
    routes = live_routes()
    if not routes:
        return nothing("No route is configured.")
    having = [one.slug for one in routes if one.last_resort != NO_LAST_RESORT]
    return met(f"{listed(having)} have a last resort.") if having else lacking("No route has a last resort.")


CHECK = Check(
    "last-resort",
    ERRORS,
    "Where nothing answers, callers still get something",
    fix="Choose a fixed or an earlier answer as the last resort of a route that people wait for.",
    link="providers.route",
    look=look,
)
