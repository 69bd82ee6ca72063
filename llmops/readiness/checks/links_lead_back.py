"""Links in messages lead to the console."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings

from llmops.readiness.finding import MONITORING, Check, Finding, lacking, met


def look() -> Finding:
    host = urlsplit(settings.PUBLIC_URL).hostname or ""
    local = host in ("localhost", "127.0.0.1", "::1")
    return lacking(f"They lead to {host}.") if local else met(f"They lead to {host}.")


CHECK = Check(
    "links-lead-back",
    MONITORING,
    "Links in messages lead to the console",
    fix="Set CONSOLE_PUBLIC_URL to the address that people use.",
    link="CONSOLE_PUBLIC_URL",
    look=look,
)
