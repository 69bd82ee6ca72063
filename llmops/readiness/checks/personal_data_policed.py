"""Secrets and personal data are looked for."""

from __future__ import annotations

from llmops.readiness.facts import checks_everywhere
from llmops.readiness.finding import SECURITY, Check, Finding, lacking, listed, met


def look() -> Finding:
    missing = sorted({"secrets", "personal_data"} - checks_everywhere())
    return (
        lacking(f"No policy looks everywhere for {listed(missing).replace('_', ' ')}.")
        if missing
        else met("A policy looks for both everywhere.")
    )


CHECK = Check(
    "personal-data-policed",
    SECURITY,
    "Secrets and personal data are looked for",
    fix="Make a policy with the checks secrets and personal data, everywhere.",
    link="policies.policy",
    look=look,
)
