"""Figures by route and by model, from rollups alone: two queries each, however many calls there were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from django.db.models import Case, Sum, When

from llmops.core.histogram import quantile
from llmops.usage.models import LatencyRollup, Rollup
from llmops.usage.selectors.overview import ERRORS, WORK
from llmops.usage.selectors.spans import cover


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


def by(
    dimension: Literal["route", "model"],
    *,
    start: datetime,
    end: datetime,
    granularity: int,
    project_ids: Collection[UUID] | None,
) -> list[Group]:
    """Groups of the calls that started in ``[start, end)`` (whole buckets of ``granularity`` s), most calls first,
    those without a name last.
    """
    whole = cover(start, end, granularity)
    conditions: dict[str, Any] = {}
    if project_ids is not None:
        conditions["project_id__in"] = list(project_ids)
    groups: dict[str, Group] = {}
    counted = (
        Rollup.objects.filter(whole, **conditions)
        .order_by()
        .annotate(work=Case(When(WORK, then=True), default=False))
        .values_list(dimension, "status", "work")
        .annotate(Sum("calls"), Sum("fallback_calls"), Sum("cost_nano"))
    )
    for name, status, work, calls, fallback, cost in counted:
        group = groups.setdefault(name, Group(name))
        group.cost_nano += cost
        if not work:
            continue
        group.calls += calls
        group.fallback += fallback
        if status in ERRORS:
            group.failed += calls
    sketches: dict[str, list[tuple[int, int]]] = defaultdict(list)
    measured = (
        LatencyRollup.objects.filter(whole, **conditions, metric=LatencyRollup.TOTAL)
        .order_by()
        .values_list(dimension, "log_bucket")
        .annotate(Sum("calls"))
    )
    for name, log_bucket, calls in measured:
        sketches[name].append((log_bucket, calls))
    for name, sketch in sketches.items():
        if name in groups:
            groups[name].p50_us, groups[name].p95_us = quantile(sketch, 0.5), quantile(sketch, 0.95)
    told = [group for group in groups.values() if group.calls or group.cost_nano]
    return sorted(told, key=lambda group: (not group.name, -group.calls, group.name))
