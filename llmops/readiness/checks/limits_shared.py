"""Several data planes share limits and breakers."""

from __future__ import annotations

from django.conf import settings

from llmops.readiness.finding import MONITORING, Check, Finding, lacking, met, nothing
from llmops.usage.models import Journal


def look() -> Finding:
    if settings.REDIS_URL:
        return met("Over Redis.")
    hosts = Journal.objects.filter(state=Journal.OPEN).count()
    return (
        lacking(f"{hosts} data planes, each with limits of its own.")
        if hosts > 1
        else nothing("One data plane.")
    )


CHECK = Check(
    "limits-shared",
    MONITORING,
    "Several data planes share limits and breakers",
    fix="Set REDIS_URL for all data planes.",
    link="REDIS_URL",
    look=look,
)
