"""Filters that put figures into pages; the work is done in ``llmops.dashboards.formats``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction
from functools import lru_cache
from typing import Any

from django import template
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString

from llmops.dashboards import formats
from llmops.dashboards.boards.shapes import Cell, Column
from llmops.dashboards.overview.shapes import ChartRow

register = template.Library()
register.filter("count", formats.count)
register.filter("short_count", formats.short_count)
register.filter("usd", formats.usd)
register.filter("usd_exact", formats.usd_exact)
register.filter("duration", formats.duration)
register.filter("span", formats.span)
register.filter("size", formats.size)


@register.filter
def when(moment: datetime | None, style: str = "instant") -> SafeString | str:
    """A moment in UTC that the browser turns into the viewer's zone; styles stand in ``static/console/shell.js``."""
    if moment is None:
        return formats.NONE
    at = moment.astimezone(UTC)
    return format_html(
        '<time datetime="{}" data-as="{}" title="{} UTC">{} UTC</time>',
        at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        style,
        at.strftime("%Y-%m-%d %H:%M:%S"),
        at.strftime("%H:%M:%S" if style == "second" else "%Y-%m-%d" if style == "day" else "%Y-%m-%d %H:%M"),
    )


#: How sentences write a moment; they are also sent and exported, so they say UTC.
_WRITTEN = re.compile(r"\b(\d{4}-\d\d-\d\d) (\d\d:\d\d(:\d\d)?) UTC\b")


@register.filter
def moments(text: str, style: str = "") -> SafeString:
    """A sentence, escaped, in which moments are turned into the viewer's zone by the browser, as by ``when``; with the zone's name
    unless another ``style`` is given."""

    def shown(found: re.Match[str]) -> str:
        shown_as = style or ("exact" if found[3] else "moment")
        return f'<time datetime="{found[1]}T{found[2]}Z" data-as="{shown_as}">{found[0]}</time>'

    # What is matched has no character that would have to be escaped.
    return SafeString(_WRITTEN.sub(shown, escape(text)))


@register.filter
def chart_row(row: ChartRow, style: str) -> SafeString:
    """A line of the table behind a chart. Not a template: a week on Overview has five hundred of them."""
    cells = format_html_join("", '<td class="n">{}</td>', ((cell,) for cell in row.cells))
    return format_html('<tr><th scope="row">{}</th>{}</tr>', _bucket_link(row.href, row.at, style), cells)


@register.filter
def table_row(row: Sequence[Cell], columns: Sequence[Column]) -> SafeString:
    """A line of a board's table. Not a template either: a board has hundreds of cells."""
    cells = []
    for place, (cell, column) in enumerate(zip(row, columns, strict=True)):
        shown: str = moments(cell.text, "stamp")
        if cell.href:
            shown = f'<a href="{escape(cell.href)}">{shown}</a>'
        if cell.tone:
            shown = f'<span class="tone {escape(cell.tone)}">{shown}</span>'
        if cell.quiet:
            shown += f' <span class="quiet words">{escape(cell.quiet)}</span>'
        classes = f"{'n ' if column.numeric else ''}{column.shown}"
        cells.append(f'<td class="{classes}">{shown}</td>' if place else f'<th scope="row">{shown}</th>')
    # Every text and address in it went through ``escape``.
    return SafeString(f"<tr>{''.join(cells)}</tr>")


@lru_cache(maxsize=1024)
def _bucket_link(href: str, at: datetime, style: str) -> SafeString:
    # The charts of a page have the same buckets.
    return format_html('<a href="{}">{}</a>', href, when(at, style))


@register.filter
def usd_part(nano: Fraction | None) -> str:
    """A part of a cost before the sum is rounded; what lies below a nanodollar is shown as such."""
    if nano is None:
        return formats.NONE
    whole = nano.numerator // nano.denominator
    return formats.usd_exact(whole) + ("+" if nano != whole else "")


@register.filter
def at(items: Sequence[Any], place: int) -> Any:
    """The item at a place: of two lists that go together."""
    return items[place]
