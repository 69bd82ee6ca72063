"""Reading usage. Every figure comes from rollups, so its cost is bounded by the time range, not by the calls in it."""

from llmops.usage.selectors.calls import (
    CallFilters,
    CallPage,
    CallStory,
    ChargeStory,
    call_story,
    calls_page,
    filtered_calls,
    kept_answer,
)
from llmops.usage.selectors.overview import (
    CodeCount,
    Overview,
    Percentiles,
    Point,
    TokenSums,
    overview,
)
from llmops.usage.selectors.savings import Savings, savings
from llmops.usage.selectors.spend import (
    Group,
    Span,
    Spend,
    SpendFilters,
    Sums,
    spend_by,
    spend_days,
    spend_of,
    spend_total,
)

__all__ = [
    "CallFilters",
    "CallPage",
    "CallStory",
    "ChargeStory",
    "CodeCount",
    "Group",
    "Overview",
    "Percentiles",
    "Point",
    "Savings",
    "Span",
    "Spend",
    "SpendFilters",
    "Sums",
    "TokenSums",
    "call_story",
    "calls_page",
    "filtered_calls",
    "kept_answer",
    "overview",
    "savings",
    "spend_by",
    "spend_days",
    "spend_of",
    "spend_total",
]
