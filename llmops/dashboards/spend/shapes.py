"""What the templates of the Spend page get."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llmops.dashboards.overview.shapes import Tile


@dataclass(frozen=True, slots=True)
class Amount:
    """``text`` has the decimals of its column, ``exact`` every one the ledger holds; ``tone`` is a CSS class."""

    text: str
    exact: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A group. ``href`` leads to its calls, ``into`` to this page narrowed to it; widths are thousandths of the bar."""

    name: str
    note: str
    href: str
    into: str
    spend: Amount
    share: str
    width: int
    change: str
    change_tone: str
    calls: str
    refused: str
    per_call: str
    per_thousand: str
    tokens: str
    saved: str


@dataclass(frozen=True, slots=True)
class Mover:
    name: str
    href: str
    before_href: str
    before: Amount
    now: Amount
    change: Amount
    percent: str
    parts: tuple[Amount, ...]
    why: str
    #: (x, width, class) of the parts in a bar of 1000, those that add to the right of the middle
    bar: tuple[tuple[int, int, str], ...] = ()

    @property
    def reasons(self) -> list[tuple[str, Amount]]:
        """The parts with their headings, for pages too narrow for columns."""
        return list(zip(("Calls", "Tokens a call", "Models", "Price a token"), self.parts, strict=True))


@dataclass(frozen=True, slots=True)
class DayRow:
    day: str
    href: str
    spend: Amount
    calls: str
    before: str
    so_far: str


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a sum that is shown as a sum."""

    label: str
    note: str
    amount: Amount


@dataclass(frozen=True, slots=True)
class Unit:
    """What one kind of outcome of a feature cost and brought."""

    name: str
    href: str
    first: bool
    spend: Amount
    kind: str
    outcomes: str
    outcomes_href: str
    served: str
    rate: str
    cost_each: Amount
    value: str
    returned: str


@dataclass(slots=True)
class View:
    headline: str
    because: str
    nothing_yet: bool
    no_project: bool
    simulated: str = ""
    tiles: list[Tile] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    rest: Row | None = None
    rest_words: str = ""
    total: Row | None = None
    note: str = ""
    #: instead of the breakdown, where it has no row
    nothing: str = ""
    movers: list[Mover] = field(default_factory=list)
    movers_total: Mover | None = None
    movers_note: str = ""
    days: list[DayRow] = field(default_factory=list)
    days_spoken: str = ""
    course_spoken: str = ""
    forecast_words: str = ""
    savings: list[Step] = field(default_factory=list)
    savings_total: Step | None = None
    savings_share: str = ""
    units: list[Unit] = field(default_factory=list)
    chart_data: dict[str, Any] = field(default_factory=dict)
