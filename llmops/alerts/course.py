"""The course of an incident: when it ends, when it comes back, and who is told when. Pure.

Hysteresis: an incident ends once its condition was well for ``resolve_after_s`` without a break. One that comes back within
``COMES_BACK`` of its end is the same one, and each time doubles how long it must be well (bounded), so that what flaps is told
of a few times and no more.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from llmops.alerts.burn import CRITICAL

COMES_BACK = timedelta(minutes=30)
_MOST_DOUBLINGS, _LONGEST_WELL = 5, timedelta(hours=4)
#: Delays between tries to send, and after how many of them it is given up: some 11 hours.
MOST_TRIES, _FIRST_WAIT, _LONGEST_WAIT = 20, timedelta(seconds=15), timedelta(hours=1)


class Quiet(NamedTuple):
    """Minutes after midnight; ``start`` after ``end`` goes over midnight."""

    start: int
    end: int
    zone: str


def well_for(resolve_after_s: int, flaps: int) -> timedelta:
    """How long it must be well before an incident ends."""
    usual = timedelta(seconds=resolve_after_s)
    # What ends at once must not flap at once.
    steps = max(usual, timedelta(seconds=60)) * 2 ** min(flaps, _MOST_DOUBLINGS)
    return max(usual, min(steps, _LONGEST_WELL)) if flaps else usual


def ends(clear_since: datetime | None, now: datetime, *, resolve_after_s: int, flaps: int) -> bool:
    return clear_since is not None and now - clear_since >= well_for(resolve_after_s, flaps)


def comes_back(resolved_at: datetime, now: datetime) -> bool:
    return now - resolved_at < COMES_BACK


def retry_at(now: datetime, tries: int) -> datetime:
    """When to try again after ``tries`` that failed."""
    return now + min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(tries - 1, 12))


def quiet_until(now: datetime, quiet: Quiet | None) -> datetime | None:
    """The end of the quiet hours that ``now`` lies in, or None."""
    if quiet is None or quiet.start == quiet.end:
        return None
    here = now.astimezone(ZoneInfo(quiet.zone))
    minute = here.hour * 60 + here.minute
    if not _inside(minute, quiet):
        return None
    tomorrow = quiet.start > quiet.end and minute >= quiet.start
    day = here.date() + timedelta(days=int(tomorrow))
    end = datetime.combine(day, time(quiet.end // 60, quiet.end % 60), tzinfo=here.tzinfo)
    if end.utcoffset() == end.replace(fold=1).utcoffset() and end.astimezone(UTC) > now:
        return end.astimezone(now.tzinfo)
    # In that night the clock on the wall goes past this minute twice, or not at all.
    return _first_loud(now, quiet)


def _first_loud(now: datetime, quiet: Quiet) -> datetime:
    """The first minute that does not lie in quiet hours, by the clock on the wall."""
    at = now.astimezone(UTC).replace(second=0, microsecond=0)
    while True:
        at += timedelta(minutes=1)
        here = at.astimezone(ZoneInfo(quiet.zone))
        if not _inside(here.hour * 60 + here.minute, quiet):
            return at.astimezone(now.tzinfo)


def _inside(minute: int, quiet: Quiet) -> bool:
    if quiet.start < quiet.end:
        return quiet.start <= minute < quiet.end
    return minute >= quiet.start or minute < quiet.end


def concerns(
    *, severity: str, project_id: object, severities: Collection[str], channel_project_id: object
) -> bool:
    """Whether a channel is for incidents of this severity and project; one without a project hears of all."""
    return severity in severities and channel_project_id in (None, project_id)


def due(now: datetime, *, severity: str, after_minutes: int, quiet: Quiet | None) -> tuple[datetime, bool]:
    """When a channel is told of what is to be told now, and whether quiet hours hold it back."""
    at = now + timedelta(minutes=after_minutes)
    held = None if severity == CRITICAL else quiet_until(at, quiet)
    return (held, True) if held else (at, False)
