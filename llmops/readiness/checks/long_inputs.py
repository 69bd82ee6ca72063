"""Inputs that are too long are dealt with."""

from __future__ import annotations

from llmops.providers.rules import REFUSE
from llmops.readiness.facts import live_routes
from llmops.readiness.finding import ERRORS, Check, Finding, lacking, listed, met, nothing


def look() -> Finding:
    routes = live_routes()
    if not routes:
        return nothing("No route is configured.")
    having = [one.slug for one in routes if one.context_strategy != REFUSE]
    return (
        met(f"{listed(having)} make room.")
        if having
        else lacking("Every route refuses an input that is too long.")
    )


CHECK = Check(
    "long-inputs",
    ERRORS,
    "Inputs that are too long are dealt with",
    fix="Choose what a route does when the input is too long: leave out or summarise the oldest turns, or take a larger model.",
    link="providers.route",
    look=look,
)
