"""What is critical is told to somebody at once, and arrives."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Q
from django.utils import timezone

from llmops.alerts.burn import CRITICAL
from llmops.alerts.models import Channel, Notification
from llmops.readiness.finding import MONITORING, Check, Finding, lacking, listed, met


def look() -> Finding:
    in_use = Channel.objects.filter(enabled=True, archived_at=None, project=None, after_minutes=0)
    hearing = [one.slug for one in in_use.order_by("slug") if CRITICAL in one.severities]
    if not hearing:
        return lacking("No channel hears of everything that is critical at once.")
    lately = timezone.now() - timedelta(days=7)
    missed = Notification.objects.filter(
        Q(state=Notification.FAILED, created_at__gt=lately) | Q(state=Notification.WAITING, tries__gt=0),
        channel__slug__in=hearing,
    )
    deaf = sorted(set(missed.values_list("channel__slug", flat=True)))
    return lacking(f"Not delivered within a week: {listed(deaf)}.") if deaf else met(f"{listed(hearing)}.")


CHECK = Check(
    "alerts-told",
    MONITORING,
    "What is critical is told to somebody at once",
    fix="Make a channel for critical incidents of all projects, without a delay, and send a test by it.",
    link="alerts.channel",
    look=look,
)
