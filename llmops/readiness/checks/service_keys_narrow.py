"""Service keys reach what they need and no more."""

from __future__ import annotations

from llmops.readiness.facts import service_keys
from llmops.readiness.finding import SECURITY, Check, Finding, every


def look() -> Finding:
    keys = service_keys()
    wide = [one.name for one in keys if "*" in (*one.allowed_routes, *one.allowed_models)]
    return every(keys, wide, "service keys", "may call every route or model")


CHECK = Check(
    "service-keys-narrow",
    SECURITY,
    "Service keys reach what they need and no more",
    fix="Name the routes and models of the key in place of all.",
    link="access.servicekey",
    look=look,
)
