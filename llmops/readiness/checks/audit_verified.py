"""The audit trail was verified within a week."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from llmops.audit.models import Verification
from llmops.readiness.finding import SECURITY, Check, Finding, lacking, met


def look() -> Finding:
    last = Verification.objects.exclude(finished_at=None).order_by("-finished_at").first()
    if last is None:
        return lacking("It was never verified here.")
    day = f"{last.finished_at:%Y-%m-%d}"
    if last.state != Verification.INTACT:
        return lacking(f"The last run, of {day}, did not find it intact.")
    fresh = last.finished_at is not None and last.finished_at > timezone.now() - timedelta(days=7)
    return met(f"Intact on {day}.") if fresh else lacking(f"Last verified on {day}.")


CHECK = Check(
    "audit-verified",
    SECURITY,
    "The audit trail was verified within a week",
    fix="Press Verify on the Audit page, or run manage.py audit verify.",
    link="dashboards:audit",
    look=look,
)
