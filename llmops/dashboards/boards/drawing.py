"""Tiles, charts and cells out of tallies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmops.dashboards import formats
from llmops.dashboards.boards.gather import Gathered, Tally
from llmops.dashboards.boards.shapes import Cell, Chart, Drawn, Series, Unit
from llmops.dashboards.overview.shapes import Figure, Tile

AGO = "vs a week before"
_NOT_COMPARED = "not compared"
Value = Callable[[Tally], float | None]


def share(part: str, whole: str = "calls") -> Value:
    """Percent of the calls of a bucket; None where there were none."""
    return lambda tally: 100 * tally[part] / tally[whole] if tally[whole] else None


def count(name: str) -> Value:
    return lambda tally: tally[name]


def mean(name: str) -> Value:
    """How long an answered call spent on average with ``upstream_us``, ``queue_us`` or ``ours``."""
    return lambda tally: tally.mean_us(name)


def coded(status: str, code: str) -> Value:
    return lambda tally: tally.codes[status, code]


def sum_of(name: str) -> Callable[[Tally], int]:
    return lambda tally: tally[name]


def quantile(metric: str, q: float) -> Value:
    return lambda tally: tally.quantiles(metric, q)[0]


def series(
    of: Gathered, label: str, colour: str, value: Value, *, narrowed: str = "", dashed: bool = False
) -> Series:
    return Series(label, colour, tuple(_short(value(tally)) for tally in of.series), narrowed, dashed)


def week_before(of: Gathered, label: str, value: Value) -> tuple[Series, ...]:
    """The same a week before, if it is compared."""
    if not of.compared:
        return ()
    values = tuple(_short(value(tally)) for tally in of.earlier)
    return (Series(f"{label}, week before", "--muted", values, dashed=True, before=True),)


def _short(value: float | None) -> float | None:
    # Charts are drawn of three digits; what is sent to them need not have fifteen.
    return value if value is None or isinstance(value, int) else round(value, 3)


def chart(
    of: Gathered,
    name: str,
    title: str,
    unit: Unit,
    drawn: Drawn,
    spoken: str,
    lines: Sequence[Series],
    *,
    note: str = "",
) -> Chart:
    return Chart(name, title, of.per, unit, drawn, spoken, tuple(lines), note)


def shown(value: float | None, unit: Unit) -> str:
    if value is None:
        return formats.NONE
    if unit == "duration":
        return formats.duration(value)
    if unit == "share":
        return f"{value:.1f}\u2009%" if value >= 0.05 or value == 0 else "<\u20090.1\u2009%"
    if unit == "level":
        return f"{value:.1f}" if value < 100 else formats.short_count(round(value))
    return formats.count(round(value))


def count_tile(of: Gathered, label: str, name: str, href: str = "", *, tone: str = "") -> Tile:
    now, before = of.total[name], of.total_before[name]
    return _tile(of, label, formats.short_count(now), formats.change(now, before), href, tone=tone)


def share_tile(
    of: Gathered,
    label: str,
    part: Callable[[Tally], int],
    whole: Callable[[Tally], int],
    href: str = "",
    *,
    bad: tuple[float, float] | None = None,
    good: bool = False,
) -> Tile:
    """``bad`` are the shares (0..1) from which on it is worth a look, and wrong; ``good``: that more of it is better."""
    now, whole_now = part(of.total), whole(of.total)
    changed = formats.points(now, whole_now, part(of.total_before), whole(of.total_before))
    rate = now / whole_now if whole_now else 0
    tone = "" if bad is None or not now else "bad" if rate >= bad[1] else "warn" if rate >= bad[0] else ""
    return _tile(
        of, label, formats.percent(now, whole_now), changed, href, tone=tone, less_is_better=bad is not None,
        more_is_better=good,
    )  # fmt: skip


def duration_tile(of: Gathered, label: str, metric: str, wanted: Sequence[float]) -> Tile:
    now, before = of.total.quantiles(metric, *wanted), of.total_before.quantiles(metric, *wanted)
    middle = min(1, len(wanted) - 1)
    change, direction = formats.change(now[middle], before[middle])
    names = [f"p{round(100 * q)}" for q in wanted]
    return Tile(
        label,
        tuple(Figure(formats.duration(value), name) for value, name in zip(now, names, strict=True)),
        change=f"{names[middle]} {change}" if change else "",
        change_tone={"up": "poor", "down": "good"}.get(direction, ""),
        note=_note(of),
    )


def _tile(
    of: Gathered,
    label: str,
    text: str,
    changed: tuple[str, str],
    href: str,
    *,
    tone: str = "",
    less_is_better: bool = False,
    more_is_better: bool = False,
) -> Tile:
    change, direction = changed if of.compared else ("", "flat")
    tones = {"up": "poor", "down": "good"} if less_is_better else {}
    if more_is_better:
        tones = {"up": "good", "down": "poor"}
    return Tile(label, (Figure(text),), change, tones.get(direction, ""), _note(of), href, tone)


def _note(of: Gathered) -> str:
    if not of.compared:
        return _NOT_COMPARED
    return AGO if of.total_before["calls"] else "no calls a week before"


def number(value: int, href: str = "", *, tone: str = "") -> Cell:
    return Cell(formats.count(value), href if value else "", tone if value else "", value)


def percent(part: int, whole: int, href: str = "", *, tone: str = "") -> Cell:
    exact = round(100 * part / whole, 4) if whole else None
    if not part and whole:
        return Cell("0", "", "", exact)
    return Cell(formats.percent(part, whole), href if part else "", tone if part else "", exact)


def usd(nano: int) -> Cell:
    return Cell(formats.usd(nano), number=formats.usd_exact(nano).lstrip("$"))
