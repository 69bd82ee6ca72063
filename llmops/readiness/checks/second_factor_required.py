"""A second factor is asked of those who may do most."""

from __future__ import annotations

from django.conf import settings

from llmops.readiness.finding import SECURITY, Check, Finding, lacking, listed, met


def look() -> Finding:
    roles = settings.SECOND_FACTOR_REQUIRED
    return met(f"Asked of {listed(roles)}.") if roles else lacking("Nobody is asked for one.")


CHECK = Check(
    "second-factor-required",
    SECURITY,
    "A second factor is asked of those who may do most",
    fix="Set CONSOLE_SECOND_FACTOR_REQUIRED to the roles that need one, such as admin,operator.",
    link="CONSOLE_SECOND_FACTOR_REQUIRED",
    look=look,
)
