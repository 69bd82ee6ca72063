"""Reading usage. Every figure comes from rollups, so its cost is bounded by the time range, not by the calls in it."""

from llmops.usage.selectors.calls import (
    CallFilters,
    CallPage,
    CallStory,
    ChargeStory,
    call_story,
    calls_page,
    filtered_calls,
)
from llmops.usage.selectors.overview import (
    CodeCount,
    Overview,
    Percentiles,
    Point,
    TokenSums,
    overview,
)

__all__ = [
    "CallFilters",
    "CallPage",
    "CallStory",
    "ChargeStory",
    "CodeCount",
    "Overview",
    "Percentiles",
    "Point",
    "TokenSums",
    "call_story",
    "calls_page",
    "filtered_calls",
    "overview",
]
