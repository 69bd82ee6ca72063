"""Figures by route and by model, from summaries and rollups alone, however many calls there were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from llmops.core.sketches import quantiles
from llmops.usage.models import LatencyRollup, Rollup, Summary
from llmops.usage.selectors.overview import ERRORS
from llmops.usage.selectors.spans import cover
from llmops.usage.selectors.summaries import pieces

_AT_CALLS, _AT_FALLBACK, _AT_COST = (
    Rollup.SUMS.index(name) for name in ("calls", "fallback_calls", "cost_nano")
)


@dataclass(slots=True)
class Group:
    """Durations in microseconds of answered calls, spend in nanodollars. ``name`` is empty for calls without one.

    As in ``overview``, errands (files, lists, kept answers) are no calls here, and what they cost is spent all the same.
    """

    name: str
    calls: int = 0
    failed: int = 0
    fallback: int = 0
    cost_nano: int = 0
    p50_us: float | None = None
    p95_us: float | None = None


def by_route_and_model(
    *, start: datetime, end: datetime, granularity: int, project_ids: Collection[UUID] | None
) -> tuple[list[Group], list[Group]]:
    """Groups of the calls that started in ``[start, end)`` (whole buckets of ``granularity`` s), most calls first,
    those without a name last: by route, and by model.
    """
    groups: dict[str, dict[str, Group]] = {Summary.ROUTE: {}, Summary.MODEL: {}}
    sketches: dict[tuple[str, str], int] = defaultdict(int)
    for piece in pieces(
        cover(start, end, granularity),
        project_ids=project_ids,
        by=list(groups),
        metrics=[LatencyRollup.TOTAL],
    ):
        group = groups[piece.dimension].setdefault(piece.value, Group(piece.value))
        sketches[piece.dimension, piece.value] += piece.summed.sketches.get(LatencyRollup.TOTAL, 0)
        for (status, _, work), sums in piece.summed.counts.items():
            group.cost_nano += sums[_AT_COST]
            if not work:
                continue
            group.calls += sums[_AT_CALLS]
            group.fallback += sums[_AT_FALLBACK]
            if status in ERRORS:
                group.failed += sums[_AT_CALLS]
    return _ordered(groups, Summary.ROUTE, sketches), _ordered(groups, Summary.MODEL, sketches)


def _ordered(
    groups: dict[str, dict[str, Group]], dimension: str, sketches: dict[tuple[str, str], int]
) -> list[Group]:
    told = [group for group in groups[dimension].values() if group.calls or group.cost_nano]
    for group in told:
        group.p50_us, group.p95_us = quantiles(sketches[dimension, group.name], (0.5, 0.95))
    return sorted(told, key=lambda group: (not group.name, -group.calls, group.name))
