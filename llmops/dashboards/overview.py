"""What the Overview shows, as text and numbers ready for the template."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Max, Sum
from django.urls import reverse

from llmops.budgets.selectors import Gauge, gauges
from llmops.core.digests import sha256_hex
from llmops.dashboards import breakdown, formats, words
from llmops.dashboards.calls import CallRow, rows_of
from llmops.dashboards.filters import FAILED, Filters
from llmops.dashboards.reader import Reader
from llmops.dashboards.simulated import simulated_models, simulated_providers
from llmops.dashboards.verdict import Facts, Verdict, judge
from llmops.usage.models import Call, Journal
from llmops.usage.selectors import CallFilters, Overview, Percentiles, calls_page, overview

RECENT = 12
#: Figures grow old by themselves (calls leave the range), so a live page renews them at least this often, in seconds.
STALE_AFTER = 15


@dataclass(frozen=True, slots=True)
class Figure:
    text: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Tile:
    """``change`` is the difference to the period before, ``note`` what it is compared with; tones are CSS classes."""

    label: str
    figures: tuple[Figure, ...]
    change: str = ""
    change_tone: str = ""
    note: str = ""
    href: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class ChartRow:
    at: datetime
    href: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """The words around a chart: the table behind it, and ``spoken`` for those who cannot see it."""

    name: str
    title: str
    unit: str
    spoken: str
    columns: tuple[str, ...]
    rows: tuple[ChartRow, ...]


@dataclass(frozen=True, slots=True)
class GroupRow:
    name: str
    href: str
    failed_href: str
    simulated: bool
    calls: int
    failed: int
    failed_share: str
    fallback: int
    fallback_share: str
    p50_us: float | None
    p95_us: float | None
    cost_nano: int


@dataclass(frozen=True, slots=True)
class ErrorRow:
    code: str
    words: str
    calls: int
    width: int
    tone: str
    href: str


@dataclass(frozen=True, slots=True)
class GaugeRow:
    """Widths are thousandths of the bar."""

    name: str
    scope: str
    href: str
    hard: bool
    settled_nano: int
    held_nano: int
    limit_nano: int
    overrun_nano: int
    unattributed_nano: int
    resets_at: datetime | None
    settled_width: int
    held_width: int
    percent: int
    share: str
    spoken: str
    tone: str


@dataclass(frozen=True, slots=True)
class FindingRow:
    text: str
    href: str


@dataclass(slots=True)
class View:
    verdict: Verdict
    findings: list[FindingRow]
    summary: str
    nothing_yet: bool
    no_project: bool
    simulated: str
    bucket_style: str
    tiles: list[Tile] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    chart_data: dict[str, Any] = field(default_factory=dict)
    routes: list[GroupRow] = field(default_factory=list)
    models: list[GroupRow] = field(default_factory=list)
    errors: list[ErrorRow] = field(default_factory=list)
    gauges: list[GaugeRow] = field(default_factory=list)
    recent: list[CallRow] = field(default_factory=list)


class Links:
    """Addresses of the calls behind a figure: the same time, the same project, and what narrows the figure."""

    def __init__(self, filters: Filters, now: Overview) -> None:
        self._base = Filters(period=filters.period, project=filters.project)
        self._at = reverse("dashboards:calls")
        self._exact = {} if filters.period.granularity else {"from": now.start, "to": now.end}

    def calls(self, **narrowed: object) -> str:
        return self._at + self._base.query(**{**self._exact, **narrowed})


def build(reader: Reader, filters: Filters, *, now: datetime) -> View:
    project_ids = reader.project_ids(filters.project)
    period = filters.period
    figures = overview(
        start=period.start, end=period.end, project_ids=project_ids, granularity=period.granularity
    )
    before = overview(
        start=figures.start - period.length,
        end=figures.start,
        project_ids=project_ids,
        granularity=figures.granularity,
    )
    standing = standings(reader, filters, now)
    recent = calls_page(
        filters=CallFilters(project_ids=project_ids, start=figures.start, end=figures.end), page_size=RECENT
    )
    links = Links(filters, figures)
    simulated = simulated_models()
    where: dict[str, Any] = {
        "start": figures.start,
        "end": figures.end,
        "granularity": figures.granularity,
        "project_ids": project_ids,
    }
    routes, models = breakdown.by("route", **where), breakdown.by("model", **where)
    verdict = _verdict(figures, before, standing, period.words)
    view = View(
        verdict=verdict,
        findings=[
            FindingRow(
                finding.text,
                "#budgets"
                if finding.place == "budgets"
                else links.calls(**dict(part.split("=") for part in finding.query.split("&") if part)),
            )
            for finding in verdict.findings
        ],
        summary=_summary(figures, standing, period.words),
        nothing_yet=not figures.calls and not before.calls and not _any_call(project_ids),
        no_project=not reader.everywhere and not reader.projects,
        simulated=_simulated_words([group.name for group in models if group.name in simulated]),
        bucket_style={60: "minute", 3_600: "minute"}.get(figures.granularity, "day"),
    )
    view.tiles = _tiles(figures, before, period.words, links)
    view.charts, view.chart_data = _charts(figures, links, period.words)
    view.routes = [_group_row(group, links, "route", simulated=False) for group in routes if group.name]
    view.models = [
        _group_row(group, links, "model", simulated=group.name in simulated) for group in models if group.name
    ]
    view.errors = _errors(figures, links)
    view.gauges = [_gauge_row(gauge, reader) for gauge in standing]
    view.recent = rows_of(recent, simulated=simulated_providers())
    return view


def standings(reader: Reader, filters: Filters, now: datetime) -> list[Gauge]:
    """Budgets that matter here, the fullest first."""
    found = [
        gauge
        for gauge in gauges(reader.budget_project_ids(), now)
        if reader.sees_gauge(gauge, filters.project)
    ]
    return sorted(found, key=lambda gauge: (-(gauge.percent or 0), gauge.slug))


def marker(reader: Reader, filters: Filters, *, now: datetime) -> str:
    """Changes whenever the page would: a call was booked, a budget moved, or figures have grown old. Four queries."""
    project_ids = reader.project_ids(filters.project)
    booked = Journal.objects.aggregate(Sum("sequence"), Max("opened_at"))
    newest = Call.objects.order_by("-started_at", "-id")
    if project_ids is not None:
        newest = newest.filter(project_id__in=project_ids)
    budgets = [
        (gauge.slug, gauge.settled_nano, gauge.held_nano, gauge.limit_nano)
        for gauge in standings(reader, filters, now)
    ]
    last = newest.values_list("pk", flat=True).first()
    age = int(now.timestamp()) // STALE_AFTER
    return sha256_hex(repr((booked, last, budgets, age, filters.pairs())).encode())[:20]


def _any_call(project_ids: Collection[UUID] | None) -> bool:
    calls = Call.objects.order_by("-started_at", "-id")
    if project_ids is not None:
        calls = calls.filter(project_id__in=project_ids)
    return calls.exists()


def _verdict(now: Overview, before: Overview, standing: Sequence[Gauge], period: str) -> Verdict:
    failed = [code for code in now.error_codes if code.status in FAILED]
    refused = [code for code in now.error_codes if code.status == Call.REFUSED]
    return judge(
        Facts(
            calls=now.calls,
            failed=now.errors,
            refused=now.refused,
            unknown=now.by_status.get(Call.UNKNOWN, 0),
            fallback=now.fallback_calls,
            p95_us=now.total.p95,
            calls_before=before.calls,
            p95_before_us=before.total.p95,
            worst_error=failed[0].code if failed else "",
            worst_error_calls=failed[0].calls if failed else 0,
            refusal=refused[0].code if refused else "",
            refusal_calls=refused[0].calls if refused else 0,
            budgets=[
                (gauge.slug, gauge.settled_nano + gauge.held_nano, gauge.limit_nano, gauge.hard)
                for gauge in standing
            ],
        ),
        period=period,
    )


def _summary(now: Overview, standing: Sequence[Gauge], period: str) -> str:
    if not now.calls:
        return "Choose a longer time, or wait: the page follows by itself."
    said = [f"{formats.count(now.calls)} {'call' if now.calls == 1 else 'calls'} in {period}"]
    said.append(f"{formats.percent(now.errors, now.calls)} failed" if now.errors else "none failed")
    if standing:
        fullest = standing[0]
        said.append(f"fullest budget {fullest.slug} at {fullest.percent or 0}\u2009%")
    return ", ".join(said) + "."


def _simulated_words(models: Sequence[str]) -> str:
    if not models:
        return ""
    return f"Some answers of this time come from a simulated provider, not from a real model ({', '.join(models)})"


def _tiles(now: Overview, before: Overview, period: str, links: Links) -> list[Tile]:
    against = f"vs {period.replace('the last', 'the').replace('the chosen time', 'the same length')} before"
    went_up = now.calls - now.refused
    went_up_before = before.calls - before.refused

    def tile(
        label: str, text: str, changed: tuple[str, str], *, bad: str = "", href: str = "", tone: str = ""
    ) -> Tile:
        change, direction = changed
        change_tone = "" if not bad or direction == "flat" else "poor" if direction == bad else "good"
        return Tile(label, (Figure(text),), change, change_tone, against, href, tone)

    share = now.errors / now.calls if now.calls else 0
    return [
        tile("Calls", formats.short_count(now.calls), formats.change(now.calls, before.calls), href=links.calls()),
        tile(
            "Error rate",
            formats.percent(now.errors, now.calls),
            formats.points(now.errors, now.calls, before.errors, before.calls),
            bad="up",
            href=links.calls(status="failed"),
            tone="bad" if share >= 0.05 else "warn" if share >= 0.01 else "",
        ),
        tile("Spend", formats.usd(now.spend_nano), formats.change(now.spend_nano, before.spend_nano), href=links.calls()),
        tile(
            "Fallback rate",
            formats.percent(now.fallback_calls, went_up),
            formats.points(now.fallback_calls, went_up, before.fallback_calls, went_up_before),
            bad="up",
            href=links.calls(fallback="1"),
        ),
        _quantile_tile("Latency of answered calls", now.total, before.total, against),
        _quantile_tile("Time to first token", now.ttft, before.ttft, against, names=("p50", "p95")),
    ]  # fmt: skip


def _quantile_tile(
    label: str,
    now: Percentiles,
    before: Percentiles,
    against: str,
    names: tuple[str, ...] = ("p50", "p95", "p99"),
) -> Tile:
    change, direction = formats.change(now.p95, before.p95)
    return Tile(
        label,
        tuple(Figure(formats.duration(getattr(now, name)), name) for name in names),
        change=f"p95 {change}" if direction != "flat" or change == "as before" else change,
        change_tone={"up": "poor", "down": "good"}.get(direction, ""),
        note=against,
    )


def _charts(now: Overview, links: Links, period: str) -> tuple[list[Chart], dict[str, Any]]:
    unit = {60: "per minute", 3_600: "per hour", 86_400: "per day (UTC)"}[now.granularity]
    busy = [point for point in now.series if point.calls]
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

    def rows(cells: Any) -> tuple[ChartRow, ...]:
        return tuple(
            ChartRow(point.at, _bucket_href(links, point.at, now.granularity), cells(point))
            for point in reversed(busy)
        )

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
            rows(lambda point: (formats.usd(point.spend_nano),)),
        ),
    ], data  # fmt: skip


def _bucket_href(links: Links, at: datetime, granularity: int) -> str:
    return links.calls(**{"from": at, "to": at + timedelta(seconds=granularity)})


def _group_row(group: breakdown.Group, links: Links, what: str, *, simulated: bool) -> GroupRow:
    return GroupRow(
        name=group.name,
        href=links.calls(**{what: group.name}),
        failed_href=links.calls(**{what: group.name, "status": "failed"}),
        simulated=simulated,
        calls=group.calls,
        failed=group.failed,
        failed_share=formats.percent(group.failed, group.calls),
        fallback=group.fallback,
        fallback_share=formats.percent(group.fallback, group.calls),
        p50_us=group.p50_us,
        p95_us=group.p95_us,
        cost_nano=group.cost_nano,
    )


def _errors(now: Overview, links: Links) -> list[ErrorRow]:
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


def _gauge_row(gauge: Gauge, reader: Reader) -> GaugeRow:
    used = gauge.settled_nano + gauge.held_nano
    limit = gauge.limit_nano
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
        share=formats.percent(used, limit) if limit else "no money",
        spoken=f"{formats.usd(gauge.settled_nano)} settled and {formats.usd(gauge.held_nano)} held of "
        f"{formats.usd(limit)}",
        tone="bad" if percent >= 100 else "warn" if percent >= 80 else "",
    )
