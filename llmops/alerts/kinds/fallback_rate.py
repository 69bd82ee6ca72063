"""The share of calls that a fallback had to answer, by route."""

from llmops.alerts.kinds.base import Setting, percent, share, threshold

KIND = threshold(
    name="fallback_rate",
    title="Fallbacks carry the load",
    says="The share of a route's calls that a fallback answered, or was the last to be tried for.",
    runbook="degraded-provider",
    bound=Setting("percent", "From", 20, "%", 0.01, 100),
    value=lambda m: share(m.total("fallback_calls"), m.upstream),
    weight=lambda m: m.upstream,
    what="The share that falls back",
    show=percent,
    facts={"fallback": "1"},
)
