"""What the templates of the Overview get."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from llmops.dashboards.calls import CallRow
from llmops.dashboards.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Figure:
    text: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """A threshold that a budget crossed lately, or that it began to refuse calls."""

    budget: str
    href: str
    percent: int
    at: datetime
    refusing: bool = False
    #: of the budget at that time
    limit_nano: int = 0


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
    nameless: bool
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
    cost: str


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
    #: what happens to calls, and until when; empty as long as they fit
    used_up: str


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
    notices: list[Notice] = field(default_factory=list)
    #: requests that wait for a second person, and where
    waiting: int = 0
    inbox: str = ""
