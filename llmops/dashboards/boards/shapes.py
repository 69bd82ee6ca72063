"""What a dashboard is made of, as text and numbers ready for its template, for files and for the charts in the browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from llmops.dashboards.overview.shapes import Tile

#: How numbers of a chart read: counts, microseconds, or shares of one thousandth of a percent.
Unit = Literal["count", "duration", "share", "level"]
Drawn = Literal["bar", "stack", "line"]
Level = Literal["ok", "warn", "bad", "quiet"]


@dataclass(frozen=True, slots=True)
class Series:
    """``values`` has one for each bucket, None where nothing was measured. ``narrowed`` is what the list of calls is narrowed to
    behind a point of it."""

    label: str
    colour: str
    values: tuple[float | None, ...]
    narrowed: str = ""
    dashed: bool = False
    #: of the week before, to be compared with the others
    before: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """``note`` stands in the place of a chart whose figures there are none of, and says why and what to do."""

    name: str
    title: str
    per: str
    unit: Unit
    drawn: Drawn
    spoken: str
    series: tuple[Series, ...]
    note: str = ""

    @property
    def columns(self) -> list[str]:
        return [one.label for one in self.series]


@dataclass(frozen=True, slots=True)
class Cell:
    """``number`` is what a file holds where the text is rounded."""

    text: str
    href: str = ""
    tone: str = ""
    number: float | str | None = None
    quiet: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    label: str
    numeric: bool = True
    #: CSS class of columns that narrow windows go without
    shown: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    empty: str
    note: str = ""
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that people or the console did at a moment, to be seen beside the figures."""

    at: datetime
    kind: str
    text: str
    href: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    level: Level
    headline: str
    findings: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Board:
    start: datetime
    end: datetime
    granularity: int
    verdict: Verdict
    times: list[datetime]
    calls_url: str
    tiles: list[Tile] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    #: what is said above all of it: why something is coarser than asked for, or not compared
    notes: list[str] = field(default_factory=list)
    nothing: bool = False
    compared: bool = True

    def panel(self, name: str) -> Chart | Table | None:
        both: list[Chart | Table] = [*self.charts, *self.tables]
        return next((one for one in both if one.name == name), None)

    def drawing(self) -> dict[str, Any]:
        """For ``static/console/boards.js``."""
        return {
            "bucket": self.granularity,
            "times": [int(at.timestamp()) for at in self.times],
            "href": self.calls_url,
            "charts": {
                chart.name: {
                    "unit": chart.unit,
                    "drawn": chart.drawn,
                    "series": [
                        {
                            "label": one.label,
                            "colour": one.colour,
                            "values": one.values,
                            "narrowed": one.narrowed,
                            "dashed": one.dashed,
                            "before": one.before,
                        }
                        for one in chart.series
                    ],
                }
                for chart in self.charts
                if not chart.note
            },
            "marks": [
                {"at": int(mark.at.timestamp()), "kind": mark.kind, "text": mark.text} for mark in self.marks
            ],
        }
