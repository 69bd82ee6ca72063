"""Services tell what calls brought."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from llmops.readiness.finding import TESTING, Check, Finding, lacking, met
from llmops.usage.models import CallOutcome


def look() -> Finding:
    since = timezone.now() - timedelta(days=30)
    found = CallOutcome.objects.filter(call_started_at__gt=since).exists()
    return met("Within the last month.") if found else lacking("Nothing was told within a month.")


CHECK = Check(
    "outcomes-told",
    TESTING,
    "Services tell what calls brought",
    fix="Report outcomes of calls to /api/v1, so that changes are judged by what they bring.",
    link="dashboards:spend",
    look=look,
)
