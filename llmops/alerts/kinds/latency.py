"""The 95th percentile of how long answers take, by route."""

from llmops.alerts.figures import TOTAL, Measured
from llmops.alerts.kinds.base import Setting, seconds, threshold


def _p95(measured: Measured) -> float | None:
    found = measured.quantile_us(TOTAL, 0.95)
    return None if found is None else found / 1e6


KIND = threshold(
    name="latency",
    title="Answers are slow",
    says="The 95th percentile of how long a route's answers take, from the first byte in to the last byte out.",
    runbook="slow-answers",
    bound=Setting("seconds", "From", 30, "s", 0.001, 3600),
    value=_p95,
    weight=lambda m: m.timed(TOTAL),
    what="p95",
    show=seconds,
    facts={"status": "ok"},
    narrows=("project", "route", "model"),
)
