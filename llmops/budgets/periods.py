"""Calendar periods in a named time zone. Pure.

A period starts at local midnight (of the day, Monday, the first of the month or quarter) as that zone's wall clock
has it, so a day may last 23 or 25 hours. Where local midnight does not exist (a clock put forward at midnight) the
period starts at the first instant of that date.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from llmops.core.errors import InvalidRequest

DAY, WEEK, MONTH, QUARTER, ONCE = "day", "week", "month", "quarter", "once"
PERIODS = [(DAY, "Day"), (WEEK, "Week"), (MONTH, "Month"), (QUARTER, "Quarter"), (ONCE, "Once, no reset")]
#: ``starts_at`` of the single window of a budget that never resets.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=256)
def zone(name: str) -> ZoneInfo:
    """Time zone ``name`` of the IANA database. Raises ``InvalidRequest`` naming the field."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidRequest(
            f"timezone: {name!r} is not a time zone of the IANA database, such as Europe/Berlin or UTC.",
            param="timezone",
        ) from None


def bounds(period: str, timezone: str, at: datetime) -> tuple[datetime, datetime | None]:
    """``(start, end)`` in UTC of the period that holds ``at``; ``end`` is exclusive, None for ``once``."""
    if period == ONCE:
        return EPOCH, None
    tz = zone(timezone)
    today = at.astimezone(tz).date()
    if period == DAY:
        first, following = today, today + timedelta(days=1)
    elif period == WEEK:
        first = today - timedelta(days=today.weekday())
        following = first + timedelta(days=7)
    elif period == MONTH:
        first = today.replace(day=1)
        following = _months_later(first, 1)
    elif period == QUARTER:
        first = today.replace(month=3 * ((today.month - 1) // 3) + 1, day=1)
        following = _months_later(first, 3)
    else:
        raise InvalidRequest(
            f"period: {period!r} is not one of day, week, month, quarter, once.", param="period"
        )
    return _first_instant(first, tz), _first_instant(following, tz)


def _months_later(first: date, months: int) -> date:
    index = first.year * 12 + first.month - 1 + months
    return date(index // 12, index % 12 + 1, 1)


def _first_instant(day: date, tz: ZoneInfo) -> datetime:
    # fold=0: where midnight happens twice the period starts at the first; a missing midnight maps past the gap.
    return datetime.combine(day, time(), tzinfo=tz).astimezone(UTC)
