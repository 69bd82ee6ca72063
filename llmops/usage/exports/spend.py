"""Spend as CSV: a line a day and group, so that any pivot adds up to the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from llmops.access.models import Project
from llmops.usage.exports.cells import text, usd
from llmops.usage.selectors import Span, SpendFilters, Sums, spend_by
from llmops.usage.selectors.spend import ATTRIBUTED

#: Groups of one day; what lies beyond them (end users, tags) is one line.
_MOST = 50_000
COLUMNS = (
    "day_utc",
    "group_by",
    "group",
    "project",
    "cost_usd",
    "calls",
    "refused",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "saved_usd",
)
_DAY = timedelta(days=1)


def rows(group_by: str, span: Span, filters: SpendFilters) -> Iterator[Sequence[Sequence[Any]]]:
    """A chunk a day. Of a tag's calls each tag has a line, so tags add up to more than the day."""
    names = dict(Project.objects.values_list("pk", "slug")) if group_by == "user" else {}
    start, end = span.days if group_by in ATTRIBUTED else (span.start, span.end)
    at = start
    while at < end:
        midnight_after = at.replace(hour=0) + _DAY
        until = min(midnight_after, end)
        found = spend_by(group_by, Span(at, until), filters, most=_MOST)
        day = at.date().isoformat()
        lines = [
            _line(
                day,
                group_by,
                group.name,
                names.get(group.project_id, "") if group.project_id else "",
                group.sums,
            )
            for group in found.groups
        ]
        if group_by == "user" and (found.rest.calls or found.rest.cost_nano):
            lines.append(_line(day, group_by, "", "", found.rest))
        yield lines
        at = until


def _line(day: str, group_by: str, name: str, project: str, sums: Sums) -> list[Any]:
    return [
        day,
        group_by,
        text(name),
        text(project),
        usd(sums.cost_nano),
        sums.calls,
        sums.refused,
        sums.input_tokens,
        sums.cached_input_tokens,
        sums.output_tokens,
        usd(sums.saved_nano),
    ]
