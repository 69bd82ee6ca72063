"""A log line tells of every call."""

from __future__ import annotations

from django.conf import settings

from llmops.readiness.finding import MONITORING, Check, Finding, lacking, met


def look() -> Finding:
    return (
        met("CONSOLE_LOG_CALLS is set.") if settings.LOG_CALLS else lacking("CONSOLE_LOG_CALLS is not set.")
    )


CHECK = Check(
    "calls-logged",
    MONITORING,
    "A log line tells of every call",
    fix="Set CONSOLE_LOG_CALLS=1 on data planes.",
    link="CONSOLE_LOG_CALLS",
    look=look,
)
