"""What calls brought, beside what they cost, from rollups alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Sum

from llmops.usage.models import OutcomeRollup
from llmops.usage.selectors.spend import Span, SpendFilters


@dataclass(frozen=True, slots=True)
class Brought:
    """``count`` outcomes of ``kind`` of the calls of a span, worth ``value_nano`` nanodollars in all."""

    kind: str
    count: int
    value_nano: int


def outcomes_by(column: str, span: Span, filters: SpendFilters) -> dict[Any, list[Brought]]:
    """By a column of the rollups (``feature``, ``project_id`` ...), each kind; days are whole. One query."""
    start, end = span.days
    rows = OutcomeRollup.objects.filter(bucket__gte=start, bucket__lt=end)
    if filters.project_ids is not None:
        rows = rows.filter(project_id__in=list(filters.project_ids))
    exact = {
        "key_id": filters.key_id,
        "route": filters.route,
        "model": filters.model,
        "feature": filters.feature,
    }
    rows = rows.filter(**{name: value for name, value in exact.items() if value})
    rows = rows.filter(**dict.fromkeys(filters.nameless, ""))
    found: dict[Any, list[Brought]] = {}
    grouped: Iterable[Any] = (
        rows.order_by()
        .values_list(column, "kind")
        .annotate(Sum("outcomes"), Sum("value_nano"))
        .order_by("kind")
    )
    for value, kind, count, worth in grouped:
        if count:
            found.setdefault(value, []).append(Brought(kind, int(count), int(worth)))
    return found
