"""The console answers to its own names only."""

from __future__ import annotations

from django.conf import settings

from llmops.readiness.finding import SECURITY, Check, Finding, lacking, listed, met


def look() -> Finding:
    hosts = settings.ALLOWED_HOSTS
    return lacking("Any host name is taken.") if "*" in hosts else met(f"{listed(hosts)}.")


CHECK = Check(
    "hosts-named",
    SECURITY,
    "The console answers to its own names only",
    fix="Name the hosts in CONSOLE_ALLOWED_HOSTS.",
    link="CONSOLE_ALLOWED_HOSTS",
    look=look,
)
