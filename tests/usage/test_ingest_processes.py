"""Real processes and kill -9: of a data plane at every step of a call, and of the ingester in the middle of its work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmops.usage import journal
from llmops.usage.journal import JournalWriter
from tests.installation import Installation
from tests.usage.journals import Scribe, origin, outcome
from tests.usage.reckoning import finals

#: A data plane reduced to one call in two attempts. Each child stops for ever behind the step that it was given.
_DATA_PLANE = """
import os, sys, time, django
django.setup()
from uuid import UUID
from django.conf import settings
from django.utils import timezone
from llmops.budgets import services
from llmops.usage.journal import JournalWriter
from llmops.usage.services import open_journal
from tests.usage.journals import Scribe, origin, outcome

def live(stop):
    def reached(step):
        if step == stop:
            print(f"reached {step}", flush=True)
            time.sleep(600)
    scribe = Scribe(JournalWriter(settings.JOURNAL_DIR))
    journal = scribe.writer.journal_id
    reached("a file")
    open_journal(journal_id=journal, host="test", path=str(settings.JOURNAL_DIR))
    window = services.open_window(budget_id=UUID(sys.argv[1]), at=timezone.now()).window_id
    reached("registered")
    services.lease(window_id=window, journal_id=journal, need=1, want=1000, lease_seconds=3600)
    reached("leased")
    who = origin(feature=stop)
    scribe.hold(who, windows={window: 200})
    reached("held")
    scribe.end(who, windows={window: (200, 50)}, cost=50)
    reached("failed once")
    scribe.hold(who, attempt=2, windows={window: 300})
    reached("held again")
    os.write(scribe.writer._fd, b'{"t":"end","n":6,"at":17,"att') if stop == "torn" else None
    reached("torn")
    scribe.end(who, attempt=2, windows={window: (300, 120)}, cost=120, result=outcome())
    reached("answered")
    services.give_back(window_id=window, journal_id=journal, amount=400)
    reached("gave back")

for stop in sys.argv[2:]:
    if os.fork() == 0:
        live(stop)
time.sleep(600)
"""

#: step -> what its call must cost in the end, and how it must be told; None where there is no call.
STEPS: dict[str, tuple[int, str] | None] = {
    "a file": None,
    "registered": None,
    "leased": None,
    "held": (200, "unknown"),
    "failed once": (50, "unknown"),
    "held again": (350, "unknown"),
    "torn": (350, "unknown"),
    "answered": (170, "ok"),
    "gave back": (170, "ok"),
}


def wait_for(what: Callable[[], Any], *, seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    return found


def a_budget(installation: Installation, limit: int) -> str:
    done = installation.manage(
        "shell",
        "-v0",
        "-c",
        "from llmops.budgets.services import create_budget; from llmops.core.actors import SYSTEM; "
        f"print(create_budget(SYSTEM, slug='all', scope_kind='organisation', limit_nano={limit}).pk)",
    )
    return done.stdout.split()[-1]


def test_kill_9_of_a_data_plane_at_every_step(installation: Installation) -> None:
    budget = a_budget(installation, 10_000)
    plane = installation.spawn(
        ["python", "-c", _DATA_PLANE, budget, *STEPS], env={"DJANGO_SETTINGS_MODULE": "console.settings"}
    )
    wait_for(lambda: plane.log_tail().count("reached") == len(STEPS) or plane.returncode is not None)
    assert plane.returncode is None, plane.log_tail()
    amounts = "SELECT settled_nano, leased_nano, overrun_nano, unattributed_nano FROM budgets_window"
    told = "SELECT feature, cost_nano, status FROM usage_call"

    installation.manage("ingest", "--once")
    ended = {("answered", 170, "ok"), ("gave back", 170, "ok")}
    assert set(installation.rows(told)) == ended, "calls of a living process wait for their end"
    leases = sum(step not in ("a file", "registered") for step in STEPS)
    booked = 2 * 170 + 3 * 50
    assert installation.rows(amounts) == [(booked, leases * 1000 - 400 - booked, 0, 0)]

    plane.kill()
    for _ in range(2):
        installation.manage("ingest", "--once")
        assert set(installation.rows(told)) == {(step, *call) for step, call in STEPS.items() if call}
        spent = sum(call[0] for call in STEPS.values() if call)
        assert installation.rows(amounts) == [(spent, 0, 0, 0)]
        states = installation.rows("SELECT state, COUNT(*) FROM usage_journal GROUP BY state")
        assert states == [("closed", len(STEPS))]
        assert installation.rows("SELECT DISTINCT state FROM budgets_lease") == [("closed",)]
        assert not journal.found(installation.data_dir / "journal")


@pytest.mark.timeout(600)
def test_kill_9_of_the_ingester_again_and_again(installation: Installation) -> None:
    directory = installation.data_dir / "journal"
    dead, living = Scribe(JournalWriter(directory, segment_bytes=400_000)), Scribe.at(directory)
    dead.traffic(4000)
    unknown = [origin() for _ in range(3)]
    for who in unknown:
        dead.hold(who, windows={})
    dead.writer.close()
    living.traffic(1500)

    def booked() -> int:
        return installation.rows("SELECT COALESCE(SUM(sequence), 0) FROM usage_journal")[0][0]

    for _ in range(4):
        before = booked()
        ingester = installation.spawn(["manage.py", "ingest"])
        wait_for(lambda before=before: booked() > before)
        ingester.kill()
        living.traffic(20)
    for _ in range(2):
        both = [installation.spawn(["manage.py", "ingest", "--once"]) for _ in range(2)]
        assert [one.wait(100) for one in both] == [0, 0], [one.log_tail() for one in both]

    written = dead.written + living.written
    expected = {last.origin.call: sum(one.cost for one in records) for last, records in finals(written)}
    rows = installation.rows("SELECT id, cost_nano, status FROM usage_call")
    calls = {str(key).replace("-", ""): cost for key, cost, status in rows if status != "unknown"}
    assert calls == {key.replace("-", ""): cost for key, cost in expected.items()}
    assert len(rows) == len(expected) + len(unknown)
    for granularity in (60, 3600, 86400):
        sums = f"SELECT SUM(calls), SUM(cost_nano) FROM usage_rollup WHERE granularity = {granularity}"
        assert installation.rows(sums) == [(len(rows), sum(expected.values()))]
    assert set(journal.found(directory)) == {living.writer.journal_id}
    states = dict(installation.rows("SELECT state, COUNT(*) FROM usage_journal GROUP BY state"))
    assert states == {"closed": 1, "open": 1}


def test_a_second_ingester_stands_by_and_takes_over(installation: Installation) -> None:
    directory = installation.data_dir / "journal"
    scribe = Scribe.at(directory)
    first = installation.spawn(["manage.py", "ingest"])
    wait_for(lambda: "Booking the journals" in first.log_tail())
    second = installation.spawn(["manage.py", "ingest"])
    wait_for(lambda: "standing by" in second.log_tail())

    def count() -> int:
        return installation.rows("SELECT COUNT(*) FROM usage_call")[0][0]

    scribe.call(result=outcome())
    wait_for(lambda: count() == 1)
    first.kill()
    scribe.call(result=outcome())
    wait_for(lambda: count() == 2)
    assert second.stop() == 0


def test_ingest_once_fails_loudly_on_damage(installation: Installation) -> None:
    directory: Path = installation.data_dir / "journal"
    scribe = Scribe.at(directory)
    scribe.call(result=outcome())
    path = journal.segment_path(directory, scribe.writer.journal_id, 0)
    with path.open("ab") as file:
        file.write(b"not a record\n")
    done = installation.manage("ingest", "--once", check=False)
    assert done.returncode != 0 and str(scribe.writer.journal_id) in done.stderr
    assert path.name in done.stderr, "the log names the file"
    assert installation.rows("SELECT COUNT(*) FROM usage_call") == [(1,)]
