"""How many times as many attempts as calls go upstream."""

from llmops.alerts.kinds.base import Setting, threshold, times

KIND = threshold(
    name="retry_storm",
    title="Retries multiply the load",
    says="How many attempts go upstream for each call of a route.",
    runbook="retry-storm",
    bound=Setting("times", "From", 2, "x", 1, 100),
    value=lambda m: m.total("attempts") / m.upstream if m.upstream else None,
    weight=lambda m: m.upstream,
    what="Attempts for each call",
    show=times,
)
