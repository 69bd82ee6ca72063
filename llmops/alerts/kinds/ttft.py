"""The 95th percentile of the time to the first token, by route."""

from llmops.alerts.figures import TTFT, Measured
from llmops.alerts.kinds.base import Setting, seconds, threshold


def _p95(measured: Measured) -> float | None:
    found = measured.quantile_us(TTFT, 0.95)
    return None if found is None else found / 1e6


KIND = threshold(
    name="ttft",
    title="First tokens are late",
    says="The 95th percentile of the time to the first token of a route's answers.",
    runbook="slow-answers",
    bound=Setting("seconds", "From", 10, "s", 0.001, 3600),
    value=_p95,
    weight=lambda m: m.timed(TTFT),
    what="p95 of the time to the first token",
    show=seconds,
    facts={"status": "ok"},
    narrows=("project", "route", "model"),
)
