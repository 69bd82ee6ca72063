"""The ledger keeps up with the data planes."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from llmops.readiness.finding import MONITORING, Check, Finding, every
from llmops.usage.models import Journal


def look() -> Finding:
    opened = list(Journal.objects.filter(state=Journal.OPEN))
    late = timezone.now() - timedelta(minutes=5)
    bad = [
        f"{one.host}: {one.problem or 'no sign of life'}"
        for one in opened
        if one.problem or one.seen_at < late
    ]
    return every(opened, bad, "open journals", "are not read")


CHECK = Check(
    "ledger-follows",
    MONITORING,
    "The ledger keeps up with the data planes",
    fix="Look at the ingester; see the runbook for a journal backlog.",
    link="dashboards:jobs",
    look=look,
)
