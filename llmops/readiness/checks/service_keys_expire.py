"""Service keys end some day."""

from __future__ import annotations

from llmops.readiness.facts import service_keys
from llmops.readiness.finding import SECURITY, Check, Finding, every


def look() -> Finding:
    keys = service_keys()
    return every(keys, [one.name for one in keys if one.expires_at is None], "service keys", "never end")


CHECK = Check(
    "service-keys-expire",
    SECURITY,
    "Service keys end some day",
    fix="Give the key an expiry; rotate it with a time during which both work.",
    link="access.servicekey",
    look=look,
)
