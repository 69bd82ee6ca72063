"""No key can run away."""

from __future__ import annotations

from llmops.readiness.facts import service_keys
from llmops.readiness.finding import COST, Check, Finding, every


def look() -> Finding:
    keys = service_keys()
    free = [
        one.name
        for one in keys
        if not (
            one.rpm
            or one.tpm
            or one.concurrency
            or one.project.rpm
            or one.project.tpm
            or one.project.concurrency
        )
    ]
    return every(keys, free, "service keys", "have no limit")


CHECK = Check(
    "keys-limited",
    COST,
    "No key can run away",
    fix="Set requests or tokens per minute, or calls at once, on the key or its project.",
    link="access.servicekey",
    look=look,
)
