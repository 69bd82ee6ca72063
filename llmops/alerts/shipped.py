"""The rules that an installation begins with. Whoever does not want one switches it off; one that was removed stays removed."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmops.alerts.burn import CRITICAL, INFO, WARNING


@dataclass(frozen=True, slots=True)
class Shipped:
    slug: str
    kind: str
    severity: str
    settings: dict[str, float] = field(default_factory=dict)
    resolve_after_s: int = 300


#: What stands in ``settings`` differs from the kind's own defaults.
SHIPPED = (
    Shipped("error-budget-burns", "slo_burn", WARNING),
    Shipped("calls-fail", "error_rate", CRITICAL),
    Shipped("answers-are-slow", "latency", WARNING),
    Shipped("first-tokens-are-late", "ttft", WARNING),
    Shipped("fallbacks-carry-the-load", "fallback_rate", WARNING),
    Shipped("retry-storm", "retry_storm", WARNING),
    Shipped("queue-congestion", "queue_congestion", WARNING),
    Shipped("schema-breakage", "schema_breakage", WARNING),
    Shipped("answers-break-off", "partial_failure", WARNING),
    Shipped("unknown-outcomes", "unknown_outcome", WARNING, {"window_s": 3600}),
    Shipped("breaker-open", "breaker_open", WARNING, resolve_after_s=60),
    Shipped("near-a-rate-limit", "rate_limit", INFO),
    Shipped("spend-is-high", "spend", WARNING),
    Shipped("budget-will-not-last", "spend_forecast", INFO, resolve_after_s=3600),
    Shipped("budget-refuses-calls", "budget_exhausted", CRITICAL),
    Shipped("not-as-last-week", "last_week", INFO, resolve_after_s=1800),
    Shipped("answers-of-unusual-length", "output_anomaly", INFO, resolve_after_s=1800),
    Shipped("provider-key-is-due", "key_age", INFO, resolve_after_s=0),
    Shipped("provider-refuses-a-key", "key_refused", CRITICAL, resolve_after_s=60),
    Shipped("key-used-unusually", "key_unusual", WARNING, resolve_after_s=1800),
    Shipped("journal-is-not-booked", "journal_lag", CRITICAL, resolve_after_s=60),
    Shipped("ledger-and-provider-differ", "provider_drift", WARNING, resolve_after_s=0),
    Shipped("audit-trail-was-changed", "audit_broken", CRITICAL, resolve_after_s=0),
)
