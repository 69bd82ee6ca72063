"""Pages and keys travel encrypted."""

from __future__ import annotations

from django.conf import settings

from llmops.readiness.finding import SECURITY, Check, Finding, lacking, met


def look() -> Finding:
    return (
        met("CONSOLE_TLS is set.")
        if settings.SECURE_TLS
        else lacking("CONSOLE_TLS is not set: cookies and keys may travel in the clear.")
    )


CHECK = Check(
    "tls",
    SECURITY,
    "Pages and keys travel encrypted",
    fix="Serve the console behind TLS and set CONSOLE_TLS=1.",
    link="CONSOLE_TLS",
    look=look,
)
