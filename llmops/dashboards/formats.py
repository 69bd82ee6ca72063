"""Figures as people read them: units always beside the number. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from llmops.core.money import NANO, format_usd
from llmops.core.shares import NONE
from llmops.core.shares import share_text as percent

__all__ = ["NONE", "percent"]

_THIN = "\u2009"


def count(number: int | None) -> str:
    """Whole numbers with groups of three, set apart by thin spaces."""
    return NONE if number is None else f"{number:,}".replace(",", _THIN)


def short_count(number: int | None) -> str:
    """At most four characters and a unit: 950, 12.3 k, 4.56 M."""
    if number is None:
        return NONE
    if abs(number) < 10_000:
        return count(number)
    for unit, size in (("k", 10**3), ("M", 10**6), ("G", 10**9)):
        if abs(number) < 999.5 * size:
            return f"{_three_digits(number / size)}{_THIN}{unit}"
    return f"{number / 10**9:,.0f}{_THIN}G".replace(",", _THIN)


def usd(nano: int | None) -> str:
    """Dollars: cents from one dollar up, more places below, so that a cheap call does not read as free."""
    if nano is None:
        return NONE
    size = abs(nano)
    if size >= NANO or size == 0:
        places = 2
    elif size >= NANO // 100:
        places = 4
    elif size >= NANO // 1_000_000:
        places = 6
    else:
        places = 9
    text = format_usd(nano, places=places)
    whole, point, rest = text.partition(".")
    if NANO // 100 <= size < NANO:
        rest = rest.rstrip("0").ljust(2, "0")
    elif places == 9:
        rest = rest.rstrip("0").ljust(6, "0")
    sign = "-" if whole.startswith("-") else ""
    return f"{sign}${int(whole.lstrip('-')):,}".replace(",", _THIN) + point + rest


def usd_exact(nano: int | None) -> str:
    """Every decimal that is not zero: what the ledger holds."""
    return NONE if nano is None else f"${format_usd(nano)}"


def places_for(nano: int) -> int:
    """How many decimals amounts have beside this largest one, so that they stand under one another: 2, 4, 6 or 9."""
    size = abs(nano)
    if size >= 10 * NANO or not size:
        return 2
    if size >= NANO // 10:
        return 4
    return 6 if size >= NANO // 10_000 else 9


def usd_places(nano: int | None, places: int, *, signed: bool = False) -> str:
    """Dollars with just so many decimals; ``signed`` puts a plus before what is more than nothing."""
    if nano is None:
        return NONE
    whole, _, rest = format_usd(abs(nano), places=places).partition(".")
    shown = f"${int(whole):,}".replace(",", _THIN) + (f".{rest}" if rest else "")
    nothing = not any(digit in shown for digit in "123456789")
    sign = "" if nothing else "−" if nano < 0 else "+" if signed else ""
    return sign + shown


def rounded(nano: int, places: int) -> int:
    """Rounded half up to so many decimals of a dollar."""
    step = 10 ** (9 - places)
    return int((nano + step // 2) // step * step)


def apportioned(amounts: Sequence[int], places: int, total: int | None = None) -> list[int]:
    """Amounts rounded to so many decimals whose sum is the rounded sum (largest remainder method).

    A column of rounded figures then adds up to the figure below it. ``total`` is the sum where some are left out.
    """
    step = 10 ** (9 - places)
    floors = [amount // step * step for amount in amounts]
    whole = sum(amounts) if total is None else total
    missing = (rounded(whole, places) - sum(floors)) // step
    by_rest = sorted(range(len(amounts)), key=lambda index: (floors[index] - amounts[index], index))
    for index in by_rest[: max(0, missing)]:
        floors[index] += step
    return floors


def duration(microseconds: float | None) -> str:
    """Three digits and the unit that fits: 870 µs, 42 ms, 1.24 s, 2 min 5 s."""
    if microseconds is None:
        return NONE
    if microseconds < 999.5:
        return f"{round(microseconds)}{_THIN}µs"
    milliseconds = microseconds / 1_000
    if milliseconds < 999.5:
        return f"{_three_digits(milliseconds)}{_THIN}ms"
    seconds = milliseconds / 1_000
    if seconds < 119.5:
        return f"{_three_digits(seconds)}{_THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes}{_THIN}min {rest}{_THIN}s"
    return f"{minutes // 60}{_THIN}h {minutes % 60}{_THIN}min"


def span(seconds: float) -> str:
    """A stretch of time in its largest fitting units: 15 min, 3 h, 2 d 4 h."""
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds}{_THIN}s"
    if seconds < 3_600:
        return f"{seconds // 60}{_THIN}min"
    if seconds < 86_400:
        hours, minutes = divmod(seconds // 60, 60)
        return f"{hours}{_THIN}h" + (f" {minutes}{_THIN}min" if minutes and hours < 6 else "")
    days, hours = divmod(seconds // 3_600, 24)
    return f"{days}{_THIN}d" + (f" {hours}{_THIN}h" if hours and days < 7 else "")


def size(octets: int) -> str:
    if octets < 1_000:
        return f"{octets}{_THIN}B"
    for unit, power in (("kB", 3), ("MB", 6)):
        if octets < 999.5 * 10**power:
            return f"{_three_digits(octets / 10**power)}{_THIN}{unit}"
    return f"{_three_digits(octets / 10**9)}{_THIN}GB"


def change(now: float | None, before: float | None) -> tuple[str, str]:
    """``(text, direction)`` of a figure against the period before; direction is up, down or flat.

    The text is empty where there was nothing to compare with.
    """
    if now is None or not before:
        return "", "flat"
    ratio = now / before
    if abs(ratio - 1) < 0.005:
        return "as before", "flat"
    if ratio >= 10:
        return f"×{_THIN}{ratio:.0f}", "up"
    shown = 100 * (ratio - 1)
    return f"{'+' if shown > 0 else '−'}{abs(shown):.0f}{_THIN}%", "up" if shown > 0 else "down"


def points(part: int, whole: int, part_before: int, whole_before: int) -> tuple[str, str]:
    """Change of a share, in percentage points."""
    if whole == 0 or whole_before == 0:
        return "", "flat"
    difference = 100 * (part / whole - part_before / whole_before)
    if abs(difference) < 0.05:
        return "as before", "flat"
    return (
        f"{'+' if difference > 0 else '−'}{abs(difference):.1f}{_THIN}points",
        "up" if difference > 0 else "down",
    )


def _three_digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
