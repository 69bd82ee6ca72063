"""Where a figure of the Spend page leads: to exactly the calls behind it, or to the page narrowed to it."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.urls import reverse

from llmops.dashboards.filters import CUSTOM, NONE_GIVEN, Filters, Period
from llmops.dashboards.spend.query import SpendQuery
from llmops.usage.selectors import Group, Span
from llmops.usage.selectors.spend import ATTRIBUTED

#: What a group is looked at by next.
_NEXT = {
    "project": "feature",
    "feature": "model",
    "model": "project",
    "route": "model",
    "key": "feature",
    "cost_centre": "project",
}
_NARROWING = ("project", "key", "route", "model", "feature", "cost_centre")


class Links:
    def __init__(self, query: SpendQuery) -> None:
        self._query = query
        self._at = reverse("dashboards:calls")
        self._kept = {name: getattr(query, name) for name in _NARROWING}

    def calls(self, span: Span | None = None, /, **narrowed: object) -> str:
        span = span or self._query.span
        filters = Filters(period=Period(CUSTOM, span.start, span.end))
        return self._at + filters.query(**{**self._kept, **narrowed})

    def of_group(self, group: Group, span: Span | None = None) -> str:
        by, value = self._query.by, group.value or NONE_GIVEN
        span = span or self._query.span
        if by == "day":
            start = datetime.fromisoformat(f"{group.value}T00:00:00+00:00")
            return self.calls(Span(start, start + timedelta(days=1)))
        if by in ATTRIBUTED:
            # Counted by whole days.
            return self.calls(
                Span(*span.days), **{by: value, "project": group.project_id or self._kept["project"]}
            )
        return self.calls(span, **{by: value})

    def without(self, name: str) -> str:
        return self.calls(**{name: NONE_GIVEN})

    def into(self, group: Group) -> str:
        query, by = self._query, self._query.by
        if by == "day":
            return query.query(**{"range": None, "from": group.value, "to": group.value, "by": "project"})
        if by in ATTRIBUTED:
            return ""
        return query.query(**{by: group.value or NONE_GIVEN, "by": _NEXT[by]})
