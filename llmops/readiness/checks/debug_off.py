"""No page shows the insides of an error."""

from __future__ import annotations

from django.conf import settings

from llmops.readiness.finding import SECURITY, Check, Finding, lacking, met


def look() -> Finding:
    return lacking("CONSOLE_DEBUG is on.") if settings.DEBUG else met("CONSOLE_DEBUG is off.")


CHECK = Check(
    "debug-off",
    SECURITY,
    "No page shows the insides of an error",
    fix="Leave CONSOLE_DEBUG unset.",
    link="CONSOLE_DEBUG",
    look=look,
)
