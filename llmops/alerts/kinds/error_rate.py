"""The share of calls that fail, by route."""

from llmops.alerts.kinds.base import Setting, percent, share, threshold

KIND = threshold(
    name="error_rate",
    title="Calls fail",
    says="The share of a route's calls that failed, broke off or of which nobody knows. Refusals do not count.",
    runbook="degraded-provider",
    bound=Setting("percent", "From", 5, "%", 0.01, 100),
    value=lambda m: share(m.faults, m.served),
    weight=lambda m: m.served,
    what="The share that fails",
    show=percent,
    facts={"status": "failed"},
)
