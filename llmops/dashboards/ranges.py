"""What ``dashboards/ranges.html`` and the forms beside it need of a page's filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmops.dashboards.filters import CUSTOM, RANGES, Filters, stamp


def context(filters: Filters, *, kept: Mapping[str, str] | None = None) -> dict[str, Any]:
    """``kept`` are members of the address that are no filters, and stay."""
    others = dict(kept or {})
    pairs = {**filters.pairs(), **others}
    custom = filters.period.name == CUSTOM
    return {
        "ranges": [
            {
                "label": found.label,
                "query": filters.query(**others, range=name) or "?",
                "current": name == filters.period.name,
            }
            for name, found in RANGES.items()
        ],
        "custom": custom,
        "range_from": stamp(filters.period.start),
        "range_to": stamp(filters.period.end) if custom else "",
        "range_from_plain": filters.period.start.strftime("%Y-%m-%dT%H:%M"),
        "range_to_plain": filters.period.end.strftime("%Y-%m-%dT%H:%M") if custom else "",
        "kept": [(name, value) for name, value in pairs.items() if name != "project"],
        "kept_without_time": [
            (name, value) for name, value in pairs.items() if name not in ("range", "from", "to")
        ],
        "kept_time": [
            (name, value) for name, value in pairs.items() if name in ("range", "from", "to", *others)
        ],
    }
