"""What was approved begins at once in every worker, whatever else waits: no message is needed, nobody stands behind many of somebody
else's, and of several workers one carries it out."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError

from llmops.tools import lane as lanes
from llmops.tools import services
from llmops.tools.lane import Lane
from llmops.tools.models import Action
from llmops.tools.selectors import due, something_due
from tests.cast import COMMAND, make_cast, person
from tests.tools.held import FUNCTIONS, NOTED, RELEASED, begun
from tests.tools.making import a_service, a_tool, decide, proposed, state_of


@pytest.fixture(autouse=True)
def functions(settings: Any) -> None:
    settings.TOOL_FUNCTIONS = FUNCTIONS
    NOTED.clear()
    RELEASED.clear()


@pytest.fixture
def lane() -> Iterator[Lane]:
    found = Lane()
    yield found
    RELEASED.set()
    found.stop()


@pytest.fixture
def open_cast(transactional_db: None) -> SimpleNamespace:
    return make_cast()


def reviewers(count: int) -> list[Any]:
    return [person(f"reviewer{number}", ("reviewer", None)) for number in range(count)]


@pytest.mark.django_db
def test_each_ones_approvals_take_turns() -> None:
    cast = make_cast()
    a_tool(cast.support, settings={"function": "note"})
    agent, other = a_service(cast.support), a_service(cast.support, name="other")
    many, one = reviewers(2)
    heap = [proposed(agent, cast.support) for _ in range(5)]
    single = proposed(agent, cast.support)
    assert not something_due()
    for action in heap:
        decide(many, action)
    decide(one, single)
    free = proposed(other, cast.support, 50)
    assert something_due()
    order = [found.action for found in due(50)]
    assert order == [heap[0].pk, single.pk, free.pk, *(action.pk for action in heap[1:])]
    whose = {found.action: found.who for found in due(50)}
    assert whose[single.pk] == str(one.pk) and whose[free.pk] == other.identifier
    assert [found.action for found in due(50, but_of=[str(many.pk)])] == [single.pk, free.pk]
    assert not due(50, but=[single.tool_id])
    # What is begun with already takes no place of its owner's turn.
    assert [found.action for found in due(2, without=[heap[0].pk])] == [heap[1].pk, single.pk]


@pytest.mark.django_db
def test_what_others_carry_out_is_not_begun_with() -> None:
    cast = make_cast()
    a_tool(cast.support, "own", execution="service", executor="", settings={})
    paused = a_tool(cast.support, "paused", settings={"function": "note"})
    a_tool(cast.support, settings={"function": "note"})
    agent = a_service(cast.support)
    proposed(agent, cast.support, 50, tool="own")
    waits = proposed(agent, cast.support, 50, tool="paused")
    services.pause_tool(COMMAND, tool=paused)
    # Whoever proposes it carries it out, or, a minute later, anybody.
    mine = proposed(agent, cast.support, 50, carries_out=True)
    assert not due(50)
    services.resume_tool(COMMAND, tool=paused)
    assert [found.action for found in due(50)] == [waits.pk]
    Action.objects.filter(pk=mine.pk).update(due_at=mine.approved_at)
    assert [found.action for found in due(50)] == [waits.pk, mine.pk]


def test_what_is_approved_is_carried_out_without_a_message(open_cast: SimpleNamespace, lane: Lane) -> None:
    a_tool(open_cast.support, settings={"function": "note"})
    agent = a_service(open_cast.support)
    action, other = (proposed(agent, open_cast.support) for _ in range(2))
    lane.start()
    decide(open_cast.rita, action)
    assert begun(1) == [str(action.pk)]
    decide(open_cast.rita, other, approves=False)
    free = proposed(agent, open_cast.support, 50)
    assert begun(2)[1:] == [str(free.pk)]
    lane.stop()
    assert [state_of(one) for one in (action, other, free)] == ["succeeded", "rejected", "succeeded"]


def test_two_workers_begin_with_each_once(open_cast: SimpleNamespace, lane: Lane) -> None:
    a_tool(open_cast.support, settings={"function": "note"})
    agent = a_service(open_cast.support)
    wanted = {str(proposed(agent, open_cast.support, 50).pk) for _ in range(20)}
    second = Lane()
    lane.start()
    second.start()
    try:
        begun(20)
    finally:
        lane.stop()
        second.stop()
    assert Counter(NOTED) == dict.fromkeys(wanted, 1)
    assert set(Action.objects.values_list("state", flat=True)) == {Action.SUCCEEDED}


def test_what_takes_long_holds_up_nobody_else(
    open_cast: SimpleNamespace, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "MOST_OF_ONE", 2)
    a_tool(open_cast.support, "slow", settings={"function": "hold"}, timeout_s=120)
    a_tool(open_cast.support, "alone", settings={"function": "hold"}, concurrency=1, timeout_s=120)
    a_tool(open_cast.support, settings={"function": "note"})
    many, some, one = reviewers(3)
    agent = a_service(open_cast.support)
    heap = [proposed(agent, open_cast.support, tool="slow") for _ in range(4)]
    busy = [proposed(agent, open_cast.support, tool="alone") for _ in range(2)]
    for action in heap:
        decide(many, action)
    for action in busy:
        decide(some, action)
    lane.start()
    begun(3)
    last = proposed(agent, open_cast.support)
    decide(one, last)
    assert begun(4)[3] == str(last.pk)
    first = {str(action.pk) for action in (*heap[:2], busy[0])}
    assert set(NOTED) == {*first, str(last.pk)}
    # Whoever has a place next comes by itself.
    RELEASED.set()
    begun(7)
    lane.stop()
    assert set(Action.objects.values_list("state", flat=True)) == {Action.SUCCEEDED}


def test_stopping_waits_for_what_has_begun_and_begins_nothing(open_cast: SimpleNamespace, lane: Lane) -> None:
    a_tool(open_cast.support, settings={"function": "hold"}, timeout_s=120)
    agent = a_service(open_cast.support)
    action = proposed(agent, open_cast.support, 50)
    lane.start()
    begun(1)
    stopping = threading.Thread(target=lane.stop)
    stopping.start()
    later = proposed(agent, open_cast.support, 50)
    assert state_of(action) == Action.CLAIMED
    RELEASED.set()
    stopping.join(60)
    assert not stopping.is_alive()
    # It may have been looked up a moment before the stop.
    assert state_of(action) == Action.SUCCEEDED and state_of(later) in (Action.APPROVED, Action.SUCCEEDED)


def test_a_fault_of_the_database_ends_no_lane(
    open_cast: SimpleNamespace, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Exception] = [OperationalError("gone"), ValueError("odd"), OperationalError("gone")]

    def looked() -> bool:
        if faults:
            raise faults.pop()
        return something_due()

    monkeypatch.setattr(lanes, "FAULT_S", 0.01)
    monkeypatch.setattr(lanes, "something_due", looked)
    a_tool(open_cast.support, settings={"function": "note"})
    action = proposed(a_service(open_cast.support), open_cast.support, 50)
    lane.start()
    assert begun(1) == [str(action.pk)] and not faults
