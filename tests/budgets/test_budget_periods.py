"""Periods on the calendars of many zones: they cover time without gaps and begin at local midnight."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.budgets.periods import DAY, EPOCH, MONTH, ONCE, PERIODS, QUARTER, WEEK, bounds, zone
from llmops.core.errors import InvalidRequest
from tests.trying import tries

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",  # midnight happens twice
    "America/Sao_Paulo",  # midnight did not exist
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",  # left out 30 December 2011
    "Pacific/Kiritimati",
    "Africa/Cairo",
)
MOMENTS = st.integers(1_104_537_600_000, 2_366_841_600_000).map(
    lambda milliseconds: EPOCH + timedelta(milliseconds=milliseconds)  # from 2005 to 2045
)
CALENDAR = [period for period, _ in PERIODS if period != ONCE]


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("period", "zone_name", "at", "start", "end"),
    [
        # A day of 23 and one of 25 hours.
        (DAY, "Europe/Berlin", utc(2026, 3, 29, 10), utc(2026, 3, 28, 23), utc(2026, 3, 29, 22)),
        (DAY, "Europe/Berlin", utc(2026, 10, 25, 10), utc(2026, 10, 24, 22), utc(2026, 10, 25, 23)),
        # The last and the first instant of a day.
        (DAY, "UTC", utc(2026, 11, 20, 23, 59, 59, 999_999), utc(2026, 11, 20), utc(2026, 11, 21)),
        (DAY, "UTC", utc(2026, 11, 21), utc(2026, 11, 21), utc(2026, 11, 22)),
        # Midnight twice: the day begins at the first.
        (DAY, "America/Havana", utc(2025, 11, 2, 4, 30), utc(2025, 11, 2, 4), utc(2025, 11, 3, 5)),
        (DAY, "America/Havana", utc(2025, 11, 2, 5, 30), utc(2025, 11, 2, 4), utc(2025, 11, 3, 5)),
        # No midnight: the day begins at one o'clock.
        (DAY, "America/Sao_Paulo", utc(2018, 11, 4, 12), utc(2018, 11, 4, 3), utc(2018, 11, 5, 2)),
        (DAY, "Asia/Beirut", utc(2025, 3, 30, 12), utc(2025, 3, 29, 22), utc(2025, 3, 30, 21)),
        # Weeks begin on Monday, also across a year's end.
        (WEEK, "UTC", utc(2027, 1, 3, 12), utc(2026, 12, 28), utc(2027, 1, 4)),
        (WEEK, "America/New_York", utc(2026, 3, 9, 3, 59), utc(2026, 3, 2, 5), utc(2026, 3, 9, 4)),
        # Months of 28, 29 and 31 days; the local month, not the one of UTC.
        (MONTH, "UTC", utc(2026, 2, 28, 23), utc(2026, 2, 1), utc(2026, 3, 1)),
        (MONTH, "UTC", utc(2028, 2, 29), utc(2028, 2, 1), utc(2028, 3, 1)),
        (MONTH, "UTC", utc(2026, 12, 31, 23, 59), utc(2026, 12, 1), utc(2027, 1, 1)),
        (MONTH, "Pacific/Kiritimati", utc(2026, 1, 31, 10), utc(2026, 1, 31, 10), utc(2026, 2, 28, 10)),
        (MONTH, "Europe/Berlin", utc(2026, 3, 31, 21, 59), utc(2026, 2, 28, 23), utc(2026, 3, 31, 22)),
        (QUARTER, "UTC", utc(2026, 1, 1), utc(2026, 1, 1), utc(2026, 4, 1)),
        (QUARTER, "UTC", utc(2026, 12, 31), utc(2026, 10, 1), utc(2027, 1, 1)),
        (QUARTER, "America/New_York", utc(2026, 4, 1, 3), utc(2026, 1, 1, 5), utc(2026, 4, 1, 4)),
        # Months and quarters over a change of the clocks, and at the ends of leap and common Februaries.
        (MONTH, "America/New_York", utc(2026, 3, 15), utc(2026, 3, 1, 5), utc(2026, 4, 1, 4)),
        (MONTH, "America/New_York", utc(2026, 11, 30, 23), utc(2026, 11, 1, 4), utc(2026, 12, 1, 5)),
        (
            MONTH,
            "Asia/Kathmandu",
            utc(2026, 2, 28, 18, 15),
            utc(2026, 2, 28, 18, 15),
            utc(2026, 3, 31, 18, 15),
        ),
        (
            MONTH,
            "Asia/Kathmandu",
            utc(2028, 2, 28, 18, 15),
            utc(2028, 1, 31, 18, 15),
            utc(2028, 2, 29, 18, 15),
        ),
        (QUARTER, "Europe/Berlin", utc(2026, 3, 31, 21, 59), utc(2025, 12, 31, 23), utc(2026, 3, 31, 22)),
        (QUARTER, "Europe/Berlin", utc(2026, 3, 31, 22), utc(2026, 3, 31, 22), utc(2026, 6, 30, 22)),
        (WEEK, "Europe/Berlin", utc(2026, 3, 29, 21, 59), utc(2026, 3, 22, 23), utc(2026, 3, 29, 22)),
        (WEEK, "Europe/Berlin", utc(2026, 10, 25, 22, 59), utc(2026, 10, 18, 22), utc(2026, 10, 25, 23)),
        # Half an hour of summer time, and a day that was left out.
        (DAY, "Australia/Lord_Howe", utc(2026, 4, 4, 14), utc(2026, 4, 4, 13), utc(2026, 4, 5, 13, 30)),
        (DAY, "Pacific/Apia", utc(2011, 12, 30, 12), utc(2011, 12, 30, 10), utc(2011, 12, 31, 10)),
        (ONCE, "UTC", utc(2026, 4, 1), EPOCH, None),
    ],
)
def test_known_periods(
    period: str, zone_name: str, at: datetime, start: datetime, end: datetime | None
) -> None:
    assert bounds(period, zone_name, at) == (start, end)


@tries(400)
@given(at=MOMENTS, zone_name=st.sampled_from(ZONES), period=st.sampled_from(CALENDAR))
def test_periods_cover_time_without_gaps_and_begin_with_their_first_date(
    at: datetime, zone_name: str, period: str
) -> None:
    start, end = bounds(period, zone_name, at)
    assert end is not None and start <= at < end
    assert bounds(period, zone_name, start) == (start, end)
    assert bounds(period, zone_name, end)[0] == end
    assert bounds(period, zone_name, start - timedelta(microseconds=1))[1] == start
    tz, moment = ZoneInfo(zone_name), timedelta(microseconds=1)
    first, before = start.astimezone(tz).date(), (start - moment).astimezone(tz).date()
    assert before < first, "a period begins with the first instant of a date"
    assert _number(period, before) != _number(period, first) == _number(period, at.astimezone(tz).date())
    assert _number(period, (end - moment).astimezone(tz).date()) == _number(period, first)


def _number(period: str, day: date) -> tuple[int, ...]:
    """Which period of its kind a date belongs to, told without the code under test."""
    return {
        DAY: (day.toordinal(),),
        WEEK: day.isocalendar()[:2],
        MONTH: (day.year, day.month),
        QUARTER: (day.year, (day.month + 2) // 3),
    }[period]


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../etc/passwd", "Europe", "utc ", "\0", "x" * 5000])
def test_an_unknown_zone_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidRequest, match="time zone") as refusal:
        zone(name)
    assert refusal.value.param == "timezone"


def test_an_unknown_period_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="fortnight") as refusal:
        bounds("fortnight", "UTC", utc(2026, 1, 1))
    assert refusal.value.param == "period"
