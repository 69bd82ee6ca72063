"""The databases of the suite come back clean, with their triggers, and are what the option says."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from llmops.audit.models import ChainHead, Event
from llmops.base.models import LiveVersion
from tests import servers


def _counts() -> dict[str, int]:
    found = {}
    with connection.cursor() as cursor:
        for table in sorted(connection.introspection.table_names(cursor)):
            cursor.execute(f'SELECT COUNT(*) FROM "{table}"')
            found[table] = cursor.fetchone()[0]
    return found


def _event() -> Event:
    return Event.objects.create(sequence=1, at=timezone.now(), prev_hash="0" * 64, hash="1" * 64)


@pytest.fixture(scope="module")
def first_counts() -> dict[str, int]:
    """Filled by the first test of this module that asks."""
    return {}


@pytest.fixture
def in_a_thread_that_stays() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Runs a function in a thread whose connection is still open when the database is cleaned."""
    may_end = threading.Event()
    threads = []

    def run(function: Callable[[], object]) -> None:
        done = threading.Event()

        def body() -> None:
            function()
            done.set()
            may_end.wait(60)
            connection.close()

        threads.append(threading.Thread(target=body))
        threads[-1].start()
        assert done.wait(30)

    yield run
    may_end.set()
    for thread in threads:
        thread.join(30)


def test_the_backend_is_the_one_asked_for(db: None) -> None:
    wanted = {"sqlite": "sqlite", "postgres": "postgresql"}[os.environ["CONSOLE_TEST_BACKEND"]]
    assert connection.vendor == wanted
    assert ("REDIS_URL" in os.environ) == (wanted == "postgresql")


@pytest.mark.parametrize("turn", [1, 2])
def test_rows_of_transactional_tests_do_not_stay(
    turn: int, first_counts: dict[str, int], transactional_db: None
) -> None:
    before = _counts()
    first_counts.update(first_counts or before)
    assert before == first_counts
    # Rows that migrations insert are part of the state that is brought back, also when a test changed or removed them.
    assert before["django_content_type"] > 0 and before["auth_permission"] > 0
    assert ChainHead.objects.get().sequence == 0
    ChainHead.objects.update(sequence=turn)
    _event()
    LiveVersion.objects.create(name="stray", number=turn)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_session")
    assert _counts()["audit_event"] == 1


@pytest.mark.parametrize("turn", [1, 2])
def test_triggers_still_refuse_after_the_clean_up(turn: int, transactional_db: None) -> None:
    _event()
    for statement in ("DELETE FROM audit_event", "UPDATE audit_event SET sequence = sequence + 1"):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            connection.cursor().execute(statement)
    assert Event.objects.count() == 1


@pytest.mark.parametrize("turn", [1, 2])
def test_a_connection_that_stays_open_is_not_in_the_way(
    turn: int, in_a_thread_that_stays: Callable[[Callable[[], object]], None], transactional_db: None
) -> None:
    in_a_thread_that_stays(lambda: LiveVersion.objects.create(name="thread", number=turn))
    assert LiveVersion.objects.get(name="thread").number == turn


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("where", "room", "found"),
    [("here", 1, True), ("here", 1 << 60, False), ("nowhere", 1, False)],
    ids=["roomy", "full", "missing"],
)
def test_postgresql_lies_in_memory_where_there_is_room(
    where: str, room: int, found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(servers, "MEMORY", str(tmp_path / where))
    monkeypatch.setattr(servers, "ROOM", room)
    assert servers.roomy_memory() == (str(tmp_path / where) if found else None)


@pytest.mark.any_engine
def test_what_a_killed_run_left_in_memory_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("console-pg-left", "console-pg-used", "console-pg-begun", "another"):
        (tmp_path / name).mkdir()
        if name != "console-pg-begun":
            (tmp_path / name / "held").touch()
    with (tmp_path / "console-pg-used" / "held").open() as used:
        fcntl.flock(used, fcntl.LOCK_EX)
        servers.remove_what_is_left(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"console-pg-used", "console-pg-begun", "another"}
