"""Days of the table of calls. On PostgreSQL ``usage_call`` is partitioned by the day (UTC) on which a call began.

A day has a table ``usage_call_dYYYYMMDD``, made ahead by a job and on demand by the ingester. What lies in no day (a clock
that is years off, a day that could not be made in time) goes into ``usage_call_rest``, so that no row is ever refused for
its date; the job moves what belongs to a day there once it can. SQLite has one table, and all of this does nothing.

Reads of calls by id alone look into every day. There are no foreign keys to calls: the key of a partitioned table is
(id, started_at), and days are dropped without being asked.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from django.db import DatabaseError, InterfaceError, connection, transaction

from llmops.base.clock import database_now
from llmops.base.locks import lock

log = logging.getLogger(__name__)

TABLE, REST = "usage_call", "usage_call_rest"
LOCK = "usage.partitions"
#: Days that are made ahead of time, and the oldest and newest that are made at all: a wrong clock must not make tables.
AHEAD = 7
_OLDEST, _NEWEST = timedelta(days=800), timedelta(days=AHEAD + 1)
#: How long others may be kept waiting for the moment in which a day is attached or detached.
_PATIENCE = "2s"
_UNTIL = re.compile(r"TO \('([^']+)'\)")


@dataclass(frozen=True, slots=True)
class Part:
    """A table that holds the calls that began before ``until``, and after those of the part before it."""

    name: str
    until: datetime


def partitioned() -> bool:
    return connection.vendor == "postgresql"


def parts() -> list[Part]:
    """The parts that have an end, oldest first: not the rest."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i "
            "JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = %s::regclass AND NOT i.inhdetachpending",
            [TABLE],
        )
        found = [(name, _UNTIL.search(bound)) for name, bound in cursor.fetchall()]
    ends = [Part(name, datetime.fromisoformat(until[1])) for name, until in found if until]
    return sorted(ends, key=lambda part: part.until)


def make_days(days: Collection[date], *, now: datetime | None = None) -> list[date]:
    """Make the tables of these days that are missing, and move there what the rest holds of them; those that were made.

    Days too far from ``now`` are left out. Raises ``OperationalError`` when somebody holds the table for too long.
    """
    if not partitioned():
        return []
    now = now or database_now()
    sensible = {day for day in days if now - _OLDEST < _midnight(day) < now + _NEWEST}
    made = []
    for day in sorted(sensible):
        if _make(day):
            made.append(day)
    return made


def make_ahead(*, now: datetime | None = None) -> list[date]:
    """The days from yesterday to a week ahead, and those that the rest holds calls of."""
    if not partitioned():
        return []
    now = now or database_now()
    days = {(now + timedelta(days=number)).date() for number in range(-1, AHEAD + 1)}
    return make_days(days | _days_in_rest(), now=now)


class Days:
    """What an ingester knows to be there, so that it asks the catalogue once for each day."""

    def __init__(self) -> None:
        self._known: set[date] = set()

    def prepare(self, days: Collection[date]) -> None:
        """Have the tables of ``days``, if that takes no time. What cannot be made now is booked into the rest."""
        if not partitioned():
            return
        missing = set(days) - self._known
        if not missing:
            return
        try:
            if made := make_days(missing):
                log.info("Calls of %s have tables now", ", ".join(map(str, made)))
        except InterfaceError:
            raise
        except DatabaseError as busy:
            log.warning(
                "No table could be made for calls of %s: %s", ", ".join(map(str, sorted(missing))), busy
            )
            if not connection.is_usable():
                raise
        self._known |= missing


def drop_before(moment: datetime) -> int:
    """Drop the parts that end at or before ``moment``; how many calls went with them.

    A part at a time, each in a transaction of its own that waits only shortly for readers. Raises ``OperationalError``
    when somebody reads for longer; the next run goes on.
    """
    if not partitioned():
        return 0
    removed = 0
    for part in parts():
        if part.until > moment:
            break
        with transaction.atomic(), connection.cursor() as cursor:
            _begin(cursor)
            cursor.execute(f"ALTER TABLE {TABLE} DETACH PARTITION {part.name}")
            cursor.execute(f"SELECT count(*) FROM {part.name}")  # noqa: S608 - names of our own
            removed += cursor.fetchone()[0]
            cursor.execute(f"DROP TABLE {part.name}")
    return removed


def _make(day: date) -> bool:
    """Make the table of ``day`` unless its time is covered; whether that was done."""
    start, end = _midnight(day), _midnight(day) + timedelta(days=1)
    name = f"{TABLE}_d{day:%Y%m%d}"
    if _covered(start):
        return False
    with transaction.atomic(), connection.cursor() as cursor:
        _begin(cursor)
        if _covered(start):
            return False
        # A table of its own is filled and then attached, because that stops nobody who reads or writes other days.
        cursor.execute(f"CREATE TABLE {name} (LIKE {TABLE} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        cursor.execute(f"LOCK TABLE {REST} IN ACCESS EXCLUSIVE MODE")
        cursor.execute(
            f"WITH moved AS (DELETE FROM {REST} WHERE started_at >= %s AND started_at < %s RETURNING *) "  # noqa: S608 - names of our own
            f"INSERT INTO {name} SELECT * FROM moved",
            [start, end],
        )
        cursor.execute(
            f"ALTER TABLE {TABLE} ATTACH PARTITION {name} "
            f"FOR VALUES FROM ('{start.isoformat()}') TO ('{end.isoformat()}')"
        )
    return True


def _begin(cursor: object) -> None:
    cursor.execute(f"SET LOCAL lock_timeout = '{_PATIENCE}'")  # type: ignore[attr-defined]
    lock(LOCK)


def _covered(start: datetime) -> bool:
    """Whether a part holds the day that begins at ``start``: a day, or the one of the past, which has no beginning."""
    later = [part for part in parts() if part.until > start]
    if not later:
        return False
    return later[0].until == start + timedelta(days=1) or not later[0].name.startswith(f"{TABLE}_d")


def _days_in_rest() -> set[date]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT DISTINCT date_trunc('day', started_at, 'UTC') FROM {REST}")  # noqa: S608 - names of our own
        return {moment.astimezone(UTC).date() for (moment,) in cursor.fetchall()}


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)
