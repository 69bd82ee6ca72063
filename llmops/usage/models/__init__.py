"""What was called and what it cost: calls, journals, rollups. Durations are microseconds, amounts nanodollars."""

from llmops.usage.models.calls import Call, Journal, RetentionMark
from llmops.usage.models.rollups import LatencyRollup, Rollup
from llmops.usage.models.work import Job, KeptItem, KeptObject

__all__ = ["Call", "Job", "Journal", "KeptItem", "KeptObject", "LatencyRollup", "RetentionMark", "Rollup"]
