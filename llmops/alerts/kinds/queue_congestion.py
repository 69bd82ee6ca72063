"""The share of calls that found no place in time."""

from llmops.alerts.kinds.base import Setting, percent, share, threshold

CODES = ("queue_full", "queue_timeout", "concurrency_limit_exceeded")

KIND = threshold(
    name="queue_congestion",
    title="Calls find no place",
    says="The share of a route's calls that were refused because too many were waiting or under way.",
    runbook="queue-congestion",
    bound=Setting("percent", "From", 2, "%", 0.01, 100),
    value=lambda m: share(m.with_codes(*CODES), m.calls),
    weight=lambda m: m.calls,
    what="The share without a place",
    show=percent,
    facts={"status": "refused"},
)
