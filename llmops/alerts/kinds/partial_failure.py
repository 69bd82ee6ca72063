"""The share of calls that broke off in the middle."""

from llmops.alerts.kinds.base import Setting, percent, share, threshold
from llmops.usage.models import Call

KIND = threshold(
    name="partial_failure",
    title="Answers break off",
    says="The share of a route's calls whose answer broke off in the middle: a part was given, and a part is paid for.",
    runbook="partial-failure",
    bound=Setting("percent", "From", 3, "%", 0.01, 100),
    value=lambda m: share(m.with_status(Call.INTERRUPTED), m.served),
    weight=lambda m: m.served,
    what="The share that breaks off",
    show=percent,
    facts={"status": "interrupted"},
)
