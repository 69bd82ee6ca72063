"""What a period will have cost when it ends. Pure.

Method: each day still to come is expected to cost the mean of the complete days behind it that were of its kind (working
day, weekend; all days alike while there are fewer than two weeks). The range is a prediction interval of that mean: the
days' own scatter, the uncertainty of the mean (each grows with the number of days to come), both widened for days that
resemble their neighbours (lag-1 autocorrelation), with Student's t for what few days can tell. Sources: Hyndman and
Athanasopoulos, *Forecasting: Principles and Practice*, 3rd edition, 5.2 (mean method) and 5.5 (prediction intervals);
Zwiers and von Storch, *Journal of Climate* 8 (1995), 336, for the variance of sums of correlated days.

It knows nothing of launches, price changes or holidays ahead: four in five periods end within the range only if they go on
as the days before. The statistics are floating point; what was spent is not, and the range never lies below it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

#: Complete days that are looked at, the latest ones, and the fewest that say anything.
LOOK_BACK, FEWEST = 28, 7
#: Share of periods that end within the range, and the quantile of the normal distribution that bounds it.
LEVEL = 80
_Z = 1.281552


@dataclass(frozen=True, slots=True)
class Forecast:
    """Nanodollars at the end of the period: most likely between ``low`` and ``high``. ``days`` complete ones were used."""

    low_nano: int
    expected_nano: int
    high_nano: int
    days: int


def forecast(
    history: Sequence[tuple[date, int]],
    *,
    spent_nano: int,
    days_ahead: Sequence[date],
    today: date,
    today_nano: int,
    today_left: float,
) -> Forecast | None:
    """``history`` holds complete days and what they cost, oldest first, none left out; the days ahead come after ``today``.

    ``spent_nano`` is what the period has cost until now, ``today_nano`` of it today, of which the share ``today_left`` (0..1)
    is still to come. None while fewer than a week of complete days is known.
    """
    known = _since_first_spend(history)[-LOOK_BACK:]
    if len(known) < FEWEST:
        return None
    kinds = _kinds(known)
    mean_of = {kind: sum(costs) / len(costs) for kind, costs in kinds.items()}
    scatter = _scatter(known, kinds, mean_of)
    ahead = [(_kind(day, kinds), 1.0) for day in days_ahead]
    if today_left > 0:
        ahead.append((_kind(today, kinds), today_left))
    to_come = sum(mean_of[kind] * share for kind, share in ahead)
    own = scatter * sum(share for _, share in ahead)
    mean = sum(
        scatter * sum(share for kind, share in ahead if kind == name) ** 2 / len(costs)
        for name, costs in kinds.items()
    )
    degrees = max(1, len(known) - len(kinds))
    # Student's t from the normal quantile: Abramowitz and Stegun 26.7.5, first term.
    t = _Z + (_Z**3 + _Z) / (4 * degrees)
    spread = t * math.sqrt((own + mean) * _widening(known, kinds, mean_of))
    # A day that already cost more than its whole share is not expected to give anything back.
    expected = spent_nano + round(to_come)
    return Forecast(
        low_nano=max(spent_nano, expected - round(spread)),
        expected_nano=expected,
        high_nano=expected + round(spread),
        days=len(known),
    )


def _since_first_spend(history: Sequence[tuple[date, int]]) -> Sequence[tuple[date, int]]:
    """Days before anything was called say nothing about days to come."""
    for index, (_, cost) in enumerate(history):
        if cost:
            return history[index:]
    return ()


def _kinds(known: Sequence[tuple[date, int]]) -> dict[str, list[int]]:
    if len(known) < 2 * FEWEST:
        return {"day": [cost for _, cost in known]}
    found: dict[str, list[int]] = {"working": [], "weekend": []}
    for day, cost in known:
        found["weekend" if day.weekday() >= 5 else "working"].append(cost)
    return found


def _kind(day: date, kinds: dict[str, list[int]]) -> str:
    if "day" in kinds:
        return "day"
    return "weekend" if day.weekday() >= 5 else "working"


def _residuals(
    known: Sequence[tuple[date, int]], kinds: dict[str, list[int]], mean_of: dict[str, float]
) -> list[float]:
    return [cost - mean_of[_kind(day, kinds)] for day, cost in known]


def _scatter(
    known: Sequence[tuple[date, int]], kinds: dict[str, list[int]], mean_of: dict[str, float]
) -> float:
    """Variance of a day around the mean of its kind."""
    squares = sum(one * one for one in _residuals(known, kinds, mean_of))
    return squares / max(1, len(known) - len(kinds))


def _widening(
    known: Sequence[tuple[date, int]], kinds: dict[str, list[int]], mean_of: dict[str, float]
) -> float:
    """By how much the variance of a sum of days exceeds that of independent ones: (1 + r) / (1 - r)."""
    rest = _residuals(known, kinds, mean_of)
    squares = sum(one * one for one in rest)
    if not squares:
        return 1.0
    r = sum(one * next_one for one, next_one in pairwise(rest)) / squares
    r = min(0.8, max(0.0, r))
    return (1 + r) / (1 - r)
