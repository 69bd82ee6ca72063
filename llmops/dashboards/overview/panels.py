"""One function a panel: figures in, text with units and links out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.urls import reverse

from llmops.budgets.selectors import Gauge
from llmops.budgets.wording import used_up_text
from llmops.dashboards import breakdown, formats, words
from llmops.dashboards.filters import ANY_FAILURE, FAILED, NONE_GIVEN, Filters
from llmops.dashboards.overview.shapes import Chart, ChartRow, ErrorRow, Figure, GaugeRow, GroupRow, Tile
from llmops.dashboards.reader import Reader
from llmops.usage.selectors import Overview, Percentiles


class Links:
    """Addresses of the calls behind a figure: the same time, the same project, and what narrows the figure."""

    def __init__(self, filters: Filters, now: Overview) -> None:
        self._base = Filters(period=filters.period, project=filters.project)
        self._at = reverse("dashboards:calls")
        self._exact = {} if filters.period.granularity else {"from": now.start, "to": now.end}

    def calls(self, **narrowed: object) -> str:
        return self._at + self._base.query(**{**self._exact, **narrowed})


def tiles(now: Overview, before: Overview, period: str, links: Links) -> list[Tile]:
    ago = f"{period.replace('the last', 'the').replace('the chosen time', 'the same length')} before"
    note = f"vs {ago}" if before.calls else f"no calls in {ago}"
    upstream, upstream_before = now.calls - now.refused, before.calls - before.refused
    failed_share = now.errors / now.calls if now.calls else 0
    return [
        _tile(
            "Calls",
            formats.short_count(now.calls),
            formats.change(now.calls, before.calls),
            note + _errands(now),
            links.calls(),
        ),
        _tile(
            "Error rate",
            formats.percent(now.errors, now.calls),
            formats.points(now.errors, now.calls, before.errors, before.calls),
            note,
            links.calls(status=ANY_FAILURE),
            less_is_better=True,
            tone="bad" if failed_share >= 0.05 else "warn" if failed_share >= 0.01 else "",
        ),
        _tile(
            "Spend",
            formats.usd(now.spend_nano),
            formats.change(now.spend_nano, before.spend_nano),
            note,
            links.calls(),
        ),
        _tile(
            "Fallback rate",
            formats.percent(now.fallback_calls, upstream),
            formats.points(now.fallback_calls, upstream, before.fallback_calls, upstream_before),
            note,
            links.calls(fallback="1"),
            less_is_better=True,
        ),
        _quantile_tile("Latency of answered calls", now.total, before.total, note, ("p50", "p95", "p99")),
        _quantile_tile("Time to first token", now.ttft, before.ttft, note, ("p50", "p95")),
    ]


def _errands(now: Overview) -> str:
    """Calls that no model works for, which no other figure counts."""
    if not now.errands:
        return ""
    failed = f", {formats.count(now.errands_failed)} failed" if now.errands_failed else ""
    return f"; and {formats.count(now.errands)} without a model (files, lists, kept answers){failed}"


def _tile(
    label: str,
    text: str,
    changed: tuple[str, str],
    note: str,
    href: str,
    *,
    less_is_better: bool = False,
    tone: str = "",
) -> Tile:
    change, direction = changed
    change_tone = {"up": "poor", "down": "good"}.get(direction, "") if less_is_better else ""
    return Tile(label, (Figure(text),), change, change_tone, note, href, tone)


def _quantile_tile(
    label: str, now: Percentiles, before: Percentiles, note: str, names: tuple[str, ...]
) -> Tile:
    change, direction = formats.change(now.p95, before.p95)
    return Tile(
        label,
        tuple(Figure(formats.duration(getattr(now, name)), name) for name in names),
        change=f"p95 {change}" if change else "",
        change_tone={"up": "poor", "down": "good"}.get(direction, ""),
        note=note,
    )


def charts(now: Overview, links: Links, period: str) -> tuple[list[Chart], dict[str, Any]]:
    unit = {60: "per minute", 3_600: "per hour", 86_400: "per day (UTC)"}[now.granularity]
    busy = [point for point in now.series if point.calls]
    places = formats.places_for(max((point.spend_nano for point in busy), default=0))
    data: dict[str, Any] = {
        "bucket": now.granularity,
        "times": [int(point.at.timestamp()) for point in now.series],
        "calls": [point.calls for point in now.series],
        "failed": [point.errors for point in now.series],
        "p50": [point.p50_us for point in now.series],
        "p95": [point.p95_us for point in now.series],
        "ttft": [point.ttft_p50_us for point in now.series],
        "spend": [point.spend_nano for point in now.series],
        "href": links.calls(),
    }

    # Once for all charts: a week has 168 of them.
    buckets = [(point, _bucket_href(links, point.at, now.granularity)) for point in reversed(busy)]

    def rows(cells: Any) -> tuple[ChartRow, ...]:
        return tuple(ChartRow(point.at, href, cells(point)) for point, href in buckets)

    peak = max((point.calls for point in busy), default=0)
    return [
        Chart(
            "calls", "Calls and errors", unit,
            f"Bar chart of calls {unit} in {period}: {formats.count(now.calls)} in all, at most {formats.count(peak)} in a "
            f"bar, {formats.count(now.errors)} failed.",
            ("Calls", "Failed", "Refused"),
            rows(lambda point: (formats.count(point.calls), formats.count(point.errors), formats.count(point.refused))),
        ),
        Chart(
            "latency", "Latency", unit,
            f"Line chart of latency {unit} in {period}: half of the answered calls took at most "
            f"{formats.duration(now.total.p50)}, 95 of 100 at most {formats.duration(now.total.p95)}.",
            ("p50", "p95", "First token p50"),
            rows(
                lambda point: (
                    formats.duration(point.p50_us), formats.duration(point.p95_us), formats.duration(point.ttft_p50_us),
                )
            ),
        ),
        Chart(
            "spend", "Spend", unit,
            f"Bar chart of spend {unit} in {period}: {formats.usd(now.spend_nano)} in all.",
            ("Spend",),
            rows(lambda point: (formats.usd_places(point.spend_nano, places) if point.spend_nano else formats.usd(0),)),
        ),
    ], data  # fmt: skip


def _bucket_href(links: Links, at: datetime, granularity: int) -> str:
    return links.calls(**{"from": at, "to": at + timedelta(seconds=granularity)})


def group_rows(
    groups: Sequence[breakdown.Group], links: Links, what: str, simulated: Collection[str] = ()
) -> list[GroupRow]:
    """A row a group, and one for calls without any, so that the columns add up to the tiles."""
    costs = [group.cost_nano for group in groups]
    places = formats.places_for(max(costs, default=0))
    return [
        _group_row(
            group,
            links,
            what,
            # What cost nothing says so as lists of calls do, and no other figure of the column.
            cost=formats.usd_places(cost, places) if group.cost_nano else formats.usd(0),
            simulated=group.name in simulated,
        )
        for group, cost in zip(groups, formats.apportioned(costs, places), strict=True)
    ]


def _group_row(group: breakdown.Group, links: Links, what: str, *, cost: str, simulated: bool) -> GroupRow:
    value = group.name or NONE_GIVEN
    return GroupRow(
        name=group.name or f"Without a {what}",
        nameless=not group.name,
        href=links.calls(**{what: value}),
        failed_href=links.calls(**{what: value, "status": ANY_FAILURE}),
        simulated=simulated,
        calls=group.calls,
        failed=group.failed,
        failed_share=formats.percent(group.failed, group.calls),
        fallback=group.fallback,
        fallback_share=formats.percent(group.fallback, group.calls),
        p50_us=group.p50_us,
        p95_us=group.p95_us,
        cost_nano=group.cost_nano,
        cost=cost,
    )


def errors(now: Overview, links: Links) -> list[ErrorRow]:
    most = max((code.calls for code in now.error_codes), default=1)
    return [
        ErrorRow(
            code=code.code,
            words=words.error_words(code.code),
            calls=code.calls,
            width=max(2, 100 * code.calls // most),
            tone="bad" if code.status in FAILED else "",
            href=links.calls(error=code.code, status=code.status),
        )
        for code in now.error_codes[:12]
    ]


def gauge_row(gauge: Gauge, reader: Reader) -> GaugeRow:
    limit = gauge.limit_nano
    used_up = used_up_text(gauge)
    settled_width = min(1000, 1000 * gauge.settled_nano // limit) if limit else 1000
    held_width = min(1000 - settled_width, 1000 * gauge.held_nano // limit) if limit else 0
    percent = gauge.percent if gauge.percent is not None else 100
    return GaugeRow(
        name=gauge.slug,
        scope=gauge.scope,
        href=reader.link("budgets.budget", gauge.budget_id),
        hard=gauge.hard,
        settled_nano=gauge.settled_nano,
        held_nano=gauge.held_nano,
        limit_nano=limit,
        overrun_nano=gauge.overrun_nano,
        unattributed_nano=gauge.unattributed_nano,
        resets_at=gauge.resets_at,
        settled_width=settled_width,
        held_width=held_width,
        percent=min(100, percent),
        share=formats.percent(gauge.used_nano, limit) if limit else "no money",
        spoken=f"{formats.usd(gauge.settled_nano)} settled and {formats.usd(gauge.held_nano)} held of "
        f"{formats.usd(limit)}{', ' if used_up else ''}{used_up}",
        used_up=used_up,
        tone="bad" if used_up else "warn" if percent >= 80 else "",
    )
