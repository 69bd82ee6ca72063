"""Records that cannot be booked, and a database that goes away, lose nothing and are told."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError, connection

from llmops.budgets.models import Window
from llmops.usage import journal
from llmops.usage.ingest.follower import Follower
from llmops.usage.ingest.loop import Ingester
from llmops.usage.journal import JournalWriter
from llmops.usage.models import Call, Journal, Rollup
from llmops.usage.records import Ended
from tests.usage.journals import Scribe, origin, outcome
from tests.usage.reckoning import (
    assert_calls,
    assert_rollups,
)
from tests.usage.test_ingest_exactness import budget_of, leased, stands

BAD = {
    "undecodable": b'{"t":"end","n":%d,"at":"noon"}\n',
    "gap": b'{"t":"credential","n":999999,"at":1,"credential":"x","status":200}\n',
    "no such project": b'{"t":"end","n":%d,"at":1,"attempt":0,"origin":{"call":"'
    + str(uuid4()).encode()
    + b'","started":1,"project":"support","key":"k","endpoint":"e","revision":1},'
    b'"outcome":{"status":"ok","http":200}}\n',
    "end without hold": b'{"t":"end","n":%d,"at":1,"attempt":3,"origin":{"call":"x","started":1,"project":"p","key":"k",'
    b'"endpoint":"e","revision":1}}\n',
}


@pytest.mark.parametrize("name", BAD)
def test_a_poison_record_stops_its_journal_loudly_and_no_other(
    tmp_path: Path, db: None, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    poisoned, healthy = Scribe.at(tmp_path), Scribe.at(tmp_path)
    for _ in range(5):
        poisoned.call()
    path = journal.segment_path(tmp_path, poisoned.writer.journal_id, 0)
    with path.open("ab") as file:
        line = BAD[name]
        file.write(line % 12 if b"%d" in line else line)
    for _ in range(5):
        healthy.call()
    ingester = Ingester(tmp_path)
    for _ in range(3):
        ingester.run_once()
    assert_calls(poisoned.written + healthy.written)
    row = Journal.objects.get(pk=poisoned.writer.journal_id)
    assert path.name in row.problem and row.sequence == 11
    assert Journal.objects.get(pk=healthy.writer.journal_id).problem == ""
    assert caplog.text.count("is not booked further") == 1
    poisoned.writer.close()
    Ingester(tmp_path).run_once()
    assert path.exists(), "what could not be booked is kept"
    assert Journal.objects.get(pk=poisoned.writer.journal_id).state == Journal.OPEN


def test_a_record_that_the_database_refuses_is_found_among_thousands(
    tmp_path: Path, transactional_db: None
) -> None:
    scribe = Scribe.at(tmp_path)
    for _ in range(20):
        scribe.call()
    twice = scribe.call()
    for _ in range(5):
        scribe.call()
    good = list(scribe.written)
    again = Ended(n=0, at=1, attempt=0, origin=twice, outcome=outcome())
    scribe.writer.append(again)
    scribe.call()
    Ingester(tmp_path).run_once()
    assert_calls(good)
    assert_rollups(good)
    row = Journal.objects.get()
    assert row.sequence == 1 + 2 * 26 and f"Record {row.sequence + 1} " in row.problem


class Away:
    """A database that answers nothing for a while, as the driver tells it."""

    def __init__(self, failures: int, *, after: int) -> None:
        self.failures, self.after = failures, after

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.after -= 1
        if self.after < 0 and self.failures:
            self.failures -= 1
            raise OperationalError("server closed the connection unexpectedly")
        return execute(sql, params, many, context)


@pytest.mark.parametrize("after", [0, 1, 4, 8, 12, 17, 21])
def test_a_database_that_goes_away_anywhere_loses_nothing(
    tmp_path: Path, transactional_db: None, caplog: pytest.LogCaptureFixture, after: int
) -> None:
    scribe = Scribe.at(tmp_path)
    soft = budget_of(10, hard=False)
    window = leased(budget_of(10**9), scribe.writer.journal_id, 10**6)
    for _ in range(30):
        scribe.call(windows={window: (5, 2)}, cost=2, soft=(str(soft.pk),))
    scribe.hold(origin(), windows={window: 8})
    scribe.writer.close()
    stop, away = threading.Event(), Away(2, after=after)

    def ingest() -> None:
        with connection.execute_wrapper(away):
            Ingester(tmp_path, batch=11).run(stop, poll=0.01)
        connection.close()

    thread = threading.Thread(target=ingest)
    thread.start()
    deadline = time.monotonic() + 60
    while list(tmp_path.glob("*.jsonl")) and time.monotonic() < deadline:
        stop.wait(0.02)
    stop.set()
    thread.join(30)
    assert away.failures == 0
    assert caplog.text.count("cannot be used") == caplog.text.count("The database is back") == 1
    assert Call.objects.count() == 31
    stands(window, settled=30 * 2 + 8)
    assert Window.objects.get(budget=soft).settled_nano == 60
    assert sum(Rollup.objects.filter(granularity=60).values_list("calls", flat=True)) == 31


@pytest.mark.parametrize("ended", [True, False], ids=["finished", "gone on"])
def test_what_another_ingester_removed_in_this_very_moment_is_no_damage(
    tmp_path: Path, db: None, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """It read its position, and before it opened the file there another had booked that far and removed what it had booked."""
    scribe = Scribe(JournalWriter(tmp_path, segment_bytes=2_000))
    scribe.traffic(20)
    if ended:
        scribe.writer.close()
    late, quick = (Follower(tmp_path, scribe.writer.journal_id) for _ in range(2))
    load, waits = Follower._load, [late]

    def slowly(follower: Follower) -> None:
        load(follower)
        if follower in waits:
            waits.clear()
            while quick.step(10):
                pass
            assert quick.finish() == ended
            assert not journal.segment_path(tmp_path, scribe.writer.journal_id, 0).exists()

    monkeypatch.setattr(Follower, "_load", slowly)
    while late.step(10):
        pass
    # Nothing is left to finish, or its process lives.
    assert not waits and not late.finish() and not late.blocked
    assert Journal.objects.get().problem == ""
    assert_calls(scribe.written)
    assert_rollups(scribe.written)


def test_a_segment_that_nobody_booked_is_missed_however_often_one_looks(tmp_path: Path, db: None) -> None:
    scribe = Scribe(JournalWriter(tmp_path, segment_bytes=2_000))
    scribe.traffic(20)
    follower, other = (Follower(tmp_path, scribe.writer.journal_id) for _ in range(2))
    assert follower.step(3) == 3 and other.step(3) == 3
    segment = Journal.objects.get().segment
    scribe.writer.close()
    journal.segment_path(tmp_path, scribe.writer.journal_id, segment + 1).unlink()
    for one in (follower, other):
        while one.step(50):
            pass
        assert not one.finish()
        assert one.blocked
    assert "is missing" in Journal.objects.get().problem
