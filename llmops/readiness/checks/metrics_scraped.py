"""Something may read the metrics."""

from __future__ import annotations

from llmops.readiness.facts import every_key
from llmops.readiness.finding import MONITORING, Check, Finding, lacking, listed, met


def look() -> Finding:
    keys = [one.name for one in every_key() if "metrics" in one.scopes]
    return met(f"{listed(keys)}.") if keys else lacking("No key has the scope metrics.")


CHECK = Check(
    "metrics-scraped",
    MONITORING,
    "Something may read the metrics",
    fix="Make a service key with the scope metrics for Prometheus; docs/integrations has rules and a dashboard.",
    link="access.servicekey",
    look=look,
)
