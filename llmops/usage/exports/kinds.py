"""The kinds of exports: a registry of what they are called and who writes their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from llmops.core.errors import InvalidRequest
from llmops.usage.exports import calls, cells, focus, spend
from llmops.usage.selectors import Span, SpendFilters
from llmops.usage.selectors.spend import ATTRIBUTED, DIMENSIONS

CALLS, SPEND, FOCUS = "calls", "spend", "focus"
_BOM = "\ufeff".encode()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is exported. ``group_by`` is for spend alone."""

    what: str
    span: Span
    filters: SpendFilters
    group_by: str = "project"


@dataclass(frozen=True, slots=True)
class Export:
    """``chunks`` are bytes of UTF-8 CSV, made as they are asked for."""

    filename: str
    chunks: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class _Kind:
    title: str
    columns: Sequence[str]
    chunks: Callable[[Wanted], Iterator[bytes]]


KINDS: dict[str, _Kind] = {
    SPEND: _Kind(
        "Spend, a line a day and group",
        spend.COLUMNS,
        lambda wanted: map(cells.lines, spend.rows(wanted.group_by, wanted.span, wanted.filters)),
    ),
    CALLS: _Kind("Calls, a line each", calls.COLUMNS, lambda wanted: calls.rows(wanted.span, wanted.filters)),
    FOCUS: _Kind(
        "FOCUS 1.2, for FinOps tools",
        focus.COLUMNS,
        lambda wanted: map(cells.lines, focus.rows(wanted.span, wanted.filters)),
    ),
}


def export(wanted: Wanted) -> Export:
    """Raises ``InvalidRequest`` naming the parameter before the first byte; reads nothing until it is iterated."""
    if wanted.what not in KINDS:
        raise InvalidRequest(f"what: choose one of {', '.join(KINDS)}.", param="what")
    if wanted.what == SPEND and wanted.group_by not in DIMENSIONS:
        raise InvalidRequest(f"group_by: choose one of {', '.join(DIMENSIONS)}.", param="group_by")
    if wanted.what == SPEND and wanted.group_by in ATTRIBUTED and wanted.filters.beyond_projects:
        name = wanted.filters.beyond_projects[0]
        raise InvalidRequest(
            f"{name}: spend by end user or tag can be narrowed to projects alone. Leave this filter out.",
            param=name,
        )
    first, last = wanted.span.start, wanted.span.end - timedelta(microseconds=1)
    what = f"spend-by-{wanted.group_by}" if wanted.what == SPEND else wanted.what
    days = f"{first:%Y-%m-%d}" if first.date() == last.date() else f"{first:%Y-%m-%d}_to_{last:%Y-%m-%d}"
    return Export(f"{what}_{days}.csv".replace("_centre", "-centre"), _chunks(KINDS[wanted.what], wanted))


def _chunks(kind: _Kind, wanted: Wanted) -> Iterator[bytes]:
    # The mark tells spreadsheets that this is UTF-8; FOCUS is for programs, which it confuses.
    yield (b"" if wanted.what == FOCUS else _BOM) + cells.lines([kind.columns])
    yield from filter(None, kind.chunks(wanted))
