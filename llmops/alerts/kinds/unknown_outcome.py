"""Calls of which nobody knows what came of them."""

from llmops.alerts.kinds.base import WINDOW, Setting, threshold
from llmops.usage.models import Call

KIND = threshold(
    name="unknown_outcome",
    title="Calls have an unknown outcome",
    says="How many calls a process left behind when it died: charged at their hold until somebody says what they cost.",
    runbook="unknown-outcome",
    bound=Setting("calls", "From", 1, "", 1),
    value=lambda m: float(m.with_status(Call.UNKNOWN)),
    weight=lambda m: m.calls,
    what="The number of them",
    show=lambda value: f"{value:,.0f}",
    facts={"status": "unknown"},
    others=(WINDOW, Setting("min_calls", "From so many calls on", 1, "", 1)),
)
