"""Calls by day: tables made in time or on demand, nothing lost where there is none, days dropped whole; one table on SQLite."""

from __future__ import annotations

import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.utils import timezone

from llmops.usage import partitions, services
from llmops.usage.ingest.loop import Ingester
from llmops.usage.models import Call
from tests.cast import COMMAND, in_threads, one_event
from tests.usage.journals import Scribe
from tests.usage.reckoning import assert_calls, assert_rollups, stored_rollups

DAY = timedelta(days=1)


def by_day() -> bool:
    return connection.vendor == "postgresql"


def midnight(days: int = 0) -> datetime:
    today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    return today + days * DAY


def nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9


def names() -> set[str]:
    return {part.name for part in partitions.parts()} if by_day() else set()


def table_of(moment: datetime) -> str:
    return f"usage_call_d{moment:%Y%m%d}"


def tables(calls: int) -> list[str]:
    """The table of every call, in the order in which they began."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM usage_call ORDER BY started_at")
        found = [name for (name,) in cursor.fetchall()]
    assert len(found) == calls
    return found


def booked(directory: Path, *moments: datetime) -> Scribe:
    scribe = Scribe.at(directory)
    for moment in moments:
        scribe.call(started=nanoseconds(moment), cost=7)
    Ingester(directory).run_once()
    return scribe


def test_days_are_made_on_demand_and_a_wrong_clock_makes_none(tmp_path: Path, db: None) -> None:
    old = datetime(2019, 5, 5, 7, tzinfo=UTC)
    ahead = midnight(4000)
    scribe = booked(tmp_path, old, midnight(-40), midnight(-39) - timedelta(seconds=1), midnight(), ahead)
    assert_calls(scribe.written)
    assert_rollups(scribe.written)
    if not by_day():
        return
    day = table_of(midnight(-40))
    assert tables(5) == ["usage_call_rest", day, day, table_of(midnight()), "usage_call_rest"]


def test_days_are_made_a_week_ahead_once(db: None) -> None:
    later = midnight(30) + timedelta(hours=5)
    made = partitions.make_ahead(now=later)
    assert partitions.make_ahead(now=later) == []
    if by_day():
        assert made == [midnight(number).date() for number in range(29, 38)]
        assert {table_of(midnight(number)) for number in range(29, 38)} <= names()


def test_what_lay_in_no_day_moves_there_once_the_day_is_made(tmp_path: Path, db: None) -> None:
    scribe = booked(tmp_path, midnight(20), midnight(20) + timedelta(hours=23), midnight(21))
    figures = stored_rollups()
    before = {call.pk: (call.cost_nano, call.attempts) for call in Call.objects.all()}
    if by_day():
        assert set(tables(3)) == {"usage_call_rest"}
    partitions.make_ahead(now=midnight(20))
    assert {call.pk: (call.cost_nano, call.attempts) for call in Call.objects.all()} == before
    assert stored_rollups() == figures
    assert_calls(scribe.written)
    if by_day():
        assert tables(3) == [table_of(midnight(20))] * 2 + [table_of(midnight(21))]


def test_retention_drops_whole_days_and_leaves_rollups(tmp_path: Path, db: None) -> None:
    odd = datetime(2019, 5, 5, 7, tzinfo=UTC)
    scribe = booked(tmp_path, odd, midnight(-12), midnight(-11), midnight(-10), midnight(-1), midnight())
    figures = stored_rollups()
    with one_event("usage.calls_removed") as seen:
        assert services.apply_retention(COMMAND, days=10) == 3
    assert seen.event.after["retention_days"] == 10
    left = sorted(Call.objects.values_list("started_at", flat=True))
    assert left == [midnight(-10), midnight(-1), midnight()]
    assert stored_rollups() == figures and len(scribe.written) == 6
    if by_day():
        assert not {table_of(midnight(-12)), table_of(midnight(-11))} & names()
        assert table_of(midnight(-10)) in names()
    # What comes late, from a journal that lay about, is booked and goes with the next run.
    booked(tmp_path, midnight(-12))
    assert Call.objects.count() == 4
    assert services.apply_retention(COMMAND, days=10) == 1
    assert Call.objects.count() == 3


@pytest.fixture
def no_days(transactional_db: None) -> None:
    """Tables of days outlive the rows that a test leaves: those that other tests made on demand would stand in the way."""
    partitions.drop_before(midnight(partitions.AHEAD + 2))


def test_a_long_reader_keeps_no_call_from_being_booked(tmp_path: Path, no_days: None) -> None:
    """Whoever reads the whole table holds it: then the day waits, and the call does not."""
    reading, done = threading.Event(), threading.Event()

    def read() -> None:
        with transaction.atomic():
            list(Call.objects.all())
            reading.set()
            assert done.wait(60)

    def book() -> None:
        assert reading.wait(30)
        try:
            if by_day():
                booked(tmp_path, midnight(-50))
                assert tables(1) == ["usage_call_rest"]
        finally:
            done.set()

    assert in_threads(read, book) == [None, None]
    if by_day():
        partitions.make_ahead()
        assert tables(1) == [table_of(midnight(-50))]


def test_days_made_by_many_at_once_are_made_once(no_days: None) -> None:
    days = [midnight(-number).date() for number in range(60, 66)]
    made = in_threads(*[lambda: partitions.make_days(days)] * 3)
    assert sorted(day for days_of_one in made for day in days_of_one) == (sorted(days) if by_day() else [])


@pytest.mark.parametrize("again", ["the same files", "the same files elsewhere"])
def test_a_journal_that_is_read_again_changes_nothing(tmp_path: Path, db: None, again: str) -> None:
    """Any number of times: while its process lives, once it is dead, and when its files come back from a backup."""
    directory, backup = tmp_path / "journal", tmp_path / "backup"
    scribe = Scribe.at(directory)
    scribe.traffic(60)
    for _ in range(3):
        Ingester(directory).run_once()
    scribe.writer.close()
    shutil.copytree(directory, backup)
    Ingester(directory).run_once()
    figures, calls = stored_rollups(), dict(Call.objects.values_list("pk", "cost_nano"))
    for _ in range(3):
        target = directory if again == "the same files" else tmp_path / "elsewhere"
        shutil.copytree(backup, target, dirs_exist_ok=True)
        Ingester(target).run_once()
        assert stored_rollups() == figures
        assert dict(Call.objects.values_list("pk", "cost_nano")) == calls
    assert_rollups(scribe.written)


def test_a_table_that_has_calls_is_split_in_place_and_joined_again(
    tmp_path: Path, transactional_db: None
) -> None:
    """The migration forwards and backwards over rows: none is lost, copied or changed."""
    if not by_day():
        return
    scribe = booked(tmp_path, midnight(-40), midnight(-1), midnight())
    everything = list(Call.objects.order_by("pk").values())
    split = False
    try:
        call_command("migrate", "usage", "0006", verbosity=0)
        assert set(tables(3)) == {"usage_call"}
        assert list(Call.objects.order_by("pk").values("id", "cost_nano")) == [
            {"id": row["id"], "cost_nano": row["cost_nano"]} for row in everything
        ]
        call_command("migrate", verbosity=0)
        split = True
        past = f"usage_call_before_{midnight(2):%Y%m%d}"
        assert tables(3) == [past] * 3
        assert list(Call.objects.order_by("pk").values()) == everything
        # The past covers what comes today and tomorrow; later days have tables of their own.
        assert partitions.make_ahead() == []
        second = booked(tmp_path, midnight(), midnight(2))
        assert tables(5)[-1] == table_of(midnight(2))
        assert_calls(scribe.written + second.written)
        assert services.apply_retention(COMMAND, days=30) == 1
    finally:
        Call.objects.all().delete()
        if not split:
            call_command("migrate", verbosity=0)
        # The past and days go; the rest stays, as in a database without calls.
        partitions.drop_before(midnight(partitions.AHEAD + 2))
