"""Console processes share the database and nothing else: a run of one is followed, cancelled and gone on with by another.

Two desks stand for two processes: each reads with threads and connections of its own, and knows nothing of the other's runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from llmops.audit.models import Event
from llmops.core.errors import Conflict
from llmops.core.ids import uuid7
from llmops.playground import desk, services
from llmops.playground.desk import Desk
from llmops.playground.models import ProjectKey, Run
from llmops.playground.services import runs
from tests.cast import acting, in_threads, person
from tests.playground.conftest import says, some_text, talks_on
from tests.playground.test_runs_read import eventually, follower, state_of, text_of, told

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def desks(open_lab: Any, plane: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Desk, Desk]]:
    monkeypatch.setattr(desk, "LINGER_S", 0.05)
    one, other = Desk(), Desk()
    yield one, other
    for each in (one, other):
        for reading in list(each._readings.values()):
            reading.stop("person")
        eventually(lambda each=each: each._thread is None)


@contextmanager
def at(monkeypatch: pytest.MonkeyPatch, own: Desk) -> Iterator[None]:
    """What a request does in the process whose desk this is."""
    with monkeypatch.context() as here:
        here.setattr(runs, "DESK", own)
        yield


def start(lab: Any, **column: Any) -> Run:
    return services.start_run(
        acting(lab.bob), user=lab.bob, project=lab.support, column=some_text(lab, **column)
    )


def events_of(lab: Any, run: Run) -> list[dict[str, Any]]:
    return [one for each in told(follower(lab, run).look()) for one in each.get("events", ())]


def test_followed_and_gone_on_with_at_another(open_lab, plane, desks, monkeypatch):
    gate = threading.Event()
    plane.script = says("one ", "two ", "three", gate=gate)
    with at(monkeypatch, desks[0]):
        run = start(open_lab)
    elsewhere = follower(open_lab, run)
    heard = ""
    deadline = time.monotonic() + 60
    while "two" not in heard:
        assert time.monotonic() < deadline
        heard += text_of(told(elsewhere.look()))
        time.sleep(0.02)
    assert desks[1]._readings == {}
    # The page's connection breaks off, and the next one reaches a third process.
    gate.set()
    eventually(lambda: state_of(run) == Run.DONE, 60)
    rest = text_of(told(follower(open_lab, run, told=elsewhere.told[0]).look()))
    assert heard + rest == "one two three"
    assert len(plane.asked) == 1


def test_cancelled_at_another(open_lab, plane, desks, monkeypatch):
    plane.script = talks_on
    with at(monkeypatch, desks[0]):
        run = start(open_lab)
    eventually(lambda: state_of(run) == Run.RUNNING, 60)
    with at(monkeypatch, desks[1]):
        services.cancel_run(acting(open_lab.bob), run=run)
        # Whoever presses it twice, or in two windows, is told.
        with pytest.raises(Conflict):
            services.cancel_run(acting(open_lab.bob), run=run)
    assert plane.hung_up.wait(60)
    eventually(lambda: state_of(run) == Run.CANCELLED, 60)
    assert [one["why"] for one in events_of(open_lab, run) if one["t"] == "cancelled"] == ["person"]
    assert Event.objects.filter(action="playground.run_cancelled").count() == 1


def test_asked_of_both_at_once_it_is_one_call(open_lab, plane, desks, monkeypatch):
    """A page that lost its connection asks again, and reaches another process while the first is still at it."""
    run_id = str(uuid7())
    own = threading.local()
    monkeypatch.setattr(runs, "DESK", _Own(own))

    def asking(mine: Desk) -> Any:
        def ask() -> Run:
            own.desk = mine
            return start(open_lab, id=run_id)

        return ask

    found = in_threads(asking(desks[0]), asking(desks[1]))
    assert [str(run.pk) for run in found] == [run_id, run_id]
    eventually(lambda: state_of(found[0]) == Run.DONE, 60)
    assert len(plane.asked) == 1
    assert Event.objects.filter(action="playground.run_started").count() == 1


def test_the_first_runs_of_a_project_at_once_make_one_key(open_lab, plane, desks, monkeypatch):
    own = threading.local()
    monkeypatch.setattr(runs, "DESK", _Own(own))
    people = [open_lab.bob, person("erin", ("operator", open_lab.support))]

    def asking(mine: Desk, user: Any) -> Any:
        def ask() -> Run:
            own.desk = mine
            return services.start_run(
                acting(user), user=user, project=open_lab.support, column=some_text(open_lab)
            )

        return ask

    found = in_threads(*(asking(*each) for each in zip(desks, people, strict=True)))
    for run in found:
        eventually(lambda run=run: state_of(run) == Run.DONE, 60)
    assert ProjectKey.objects.count() == 1
    assert len({headers["authorization"] for headers, _ in plane.asked}) == 1
    assert len(plane.asked) == 2


class _Own:
    """The desk of the process that a thread is in."""

    def __init__(self, where: Any) -> None:
        self._where = where

    def take_place(self) -> None:
        self._where.desk.take_place()

    def take(self, order: Any) -> None:
        self._where.desk.take(order)
