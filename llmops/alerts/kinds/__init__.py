"""The kinds of rules there are: a file, a line here and a test each."""

from __future__ import annotations

from functools import cache

from django.utils.module_loading import import_string

from llmops.alerts.kinds.base import Asked, Finding, Kind, Setting
from llmops.core.errors import InvalidRequest

__all__ = ["KINDS", "Asked", "Finding", "Kind", "Setting", "kind_named", "kinds"]

_HERE = "llmops.alerts.kinds"
KINDS: dict[str, str] = {
    "slo_burn": f"{_HERE}.slo_burn.KIND",
    "error_rate": f"{_HERE}.error_rate.KIND",
    "latency": f"{_HERE}.latency.KIND",
    "ttft": f"{_HERE}.ttft.KIND",
    "fallback_rate": f"{_HERE}.fallback_rate.KIND",
    "retry_storm": f"{_HERE}.retry_storm.KIND",
    "queue_congestion": f"{_HERE}.queue_congestion.KIND",
    "schema_breakage": f"{_HERE}.schema_breakage.KIND",
    "partial_failure": f"{_HERE}.partial_failure.KIND",
    "unknown_outcome": f"{_HERE}.unknown_outcome.KIND",
    "breaker_open": f"{_HERE}.breaker_open.KIND",
    "rate_limit": f"{_HERE}.rate_limit.KIND",
    "spend": f"{_HERE}.spend.KIND",
    "spend_forecast": f"{_HERE}.spend_forecast.KIND",
    "budget_exhausted": f"{_HERE}.budget_exhausted.KIND",
    "last_week": f"{_HERE}.last_week.KIND",
    "output_anomaly": f"{_HERE}.output_anomaly.KIND",
    "key_age": f"{_HERE}.key_age.KIND",
    "key_refused": f"{_HERE}.key_refused.KIND",
    "key_unusual": f"{_HERE}.key_unusual.KIND",
    "journal_lag": f"{_HERE}.journal_lag.KIND",
    "provider_drift": f"{_HERE}.provider_drift.KIND",
    "audit_broken": f"{_HERE}.audit_broken.KIND",
}


@cache
def kind_named(name: str) -> Kind:
    """Raises ``InvalidRequest`` for a name that is none."""
    if name not in KINDS:
        raise InvalidRequest(
            f"kind: there is no kind {name!r}. Kinds are {', '.join(sorted(KINDS))}.", param="kind"
        )
    found: Kind = import_string(KINDS[name])
    return found


def kinds() -> list[Kind]:
    return [kind_named(name) for name in KINDS]
