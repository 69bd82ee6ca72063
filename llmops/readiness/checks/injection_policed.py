"""Injected instructions are looked for."""

from __future__ import annotations

from llmops.readiness.facts import checks_everywhere
from llmops.readiness.finding import SECURITY, Check, Finding, lacking, met


def look() -> Finding:
    if "injection" in checks_everywhere():
        return met("A policy looks for them everywhere.")
    return lacking("No policy looks for them everywhere.")


CHECK = Check(
    "injection-policed",
    SECURITY,
    "Injected instructions are looked for",
    fix="Make a policy with the check injection, everywhere.",
    link="policies.policy",
    look=look,
)
