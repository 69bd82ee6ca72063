"""No breaker has been open for an hour."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from llmops.providers.models.health import OpenBreaker
from llmops.readiness.finding import ERRORS, Check, Finding, none_of


def look() -> Finding:
    since = timezone.now() - timedelta(hours=1)
    found = OpenBreaker.objects.filter(since__lt=since).values_list("route", "model")
    return none_of(
        [f"{model} for {route}" for route, model in found.distinct()[:20]],
        "are left alone since more than an hour",
        "No breaker is open that long.",
    )


CHECK = Check(
    "breakers-closed",
    ERRORS,
    "No breaker has been open for an hour",
    fix="Look why the target fails; take it out of the route, or close its breaker once it works.",
    link="providers.route",
    look=look,
)
