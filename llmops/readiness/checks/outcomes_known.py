"""What became of every call of the last week is known."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Sum
from django.utils import timezone

from llmops.readiness.finding import ERRORS, Check, Finding, lacking, met
from llmops.usage.models import Rollup


def look() -> Finding:
    since = timezone.now() - timedelta(days=7)
    found = (
        Rollup.objects.filter(granularity=86_400, bucket__gte=since, status="unknown").aggregate(
            n=Sum("calls")
        )["n"]
        or 0
    )
    return lacking(f"{found} calls of unknown outcome.") if found else met("No call of unknown outcome.")


CHECK = Check(
    "outcomes-known",
    ERRORS,
    "What became of every call of the last week is known",
    fix="Correct the cost of calls of unknown outcome, and find out why processes died.",
    link="dashboards:calls",
    look=look,
)
