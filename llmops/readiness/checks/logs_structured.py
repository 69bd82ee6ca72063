"""Logs can be searched by machines."""

from __future__ import annotations

from django.conf import settings

from llmops.readiness.finding import MONITORING, Check, Finding, lacking, met


def look() -> Finding:
    found = getattr(settings, "LOG_FORMAT", "line")
    return met("JSON.") if found == "json" else lacking("Lines for people.")


CHECK = Check(
    "logs-structured",
    MONITORING,
    "Logs can be searched by machines",
    fix="Set CONSOLE_LOG_FORMAT=json.",
    link="CONSOLE_LOG_FORMAT",
    look=look,
)
