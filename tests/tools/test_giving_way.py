"""Who decides about one does not wait for those who decide about a great many: not for the decision, and not for its beginning.

The many stand still in the middle, at the place where they leave the rest of the time to others, for as long as the test likes.
What goes on meanwhile waits for none of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection, connections

from llmops.dashboards.inbox import views
from llmops.tools.lane import Lane
from llmops.tools.models import Action
from tests.cast import make_cast, signed_in
from tests.tools.held import FUNCTIONS, NOTED, RELEASED, begun
from tests.tools.making import a_service, a_tool, proposed, state_of
from tests.tools.test_lane import reviewers

pytestmark = pytest.mark.django_db(transaction=True)
#: Where they stand still, a hundred or a thousand behind them change nothing.
HEAPS, OF_EACH = 4, 5


class Pause:
    """Stands for ``time`` in the views: a pause between two of many lasts until the test lets go."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self.reached, self.let_go = threading.Semaphore(0), threading.Event()
        self.pauses: list[float] = []
        self.within: list[bool] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.within.append(connection.in_atomic_block)
        self.reached.release()
        assert self.let_go.wait(60)


@pytest.fixture
def pause(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[Pause]:
    settings.TOOL_FUNCTIONS = FUNCTIONS
    NOTED.clear()
    RELEASED.set()
    found = Pause()
    monkeypatch.setattr(views, "time", found)
    yield found
    found.let_go.set()


def form(*actions: Action) -> dict[str, Any]:
    together = {"together": "1"} if len(actions) > 1 else {}
    seen = {f"seen_{one.request_id}": one.request.digest for one in actions if one.request}
    return {
        "what": "approve", "reason": "so", "request": [str(one.request_id) for one in actions], **seen, **together,
    }  # fmt: skip


class Bulk(threading.Thread):
    """A reviewer who approves a page of them with one click."""

    def __init__(self, who: Any, actions: list[Action]) -> None:
        super().__init__()
        self._client, self._form, self.status = signed_in(who), form(*actions), 0

    def run(self) -> None:
        try:
            self.status = self._client.post("/inbox/decide/", self._form).status_code
        finally:
            connections.close_all()


def approved() -> int:
    return Action.objects.exclude(state=Action.WAITING).count()


def test_one_begins_beside_many_that_stand_still(pause: Pause) -> None:
    cast: SimpleNamespace = make_cast()
    a_tool(cast.support, settings={"function": "note"})
    a_tool(cast.support, "heap", settings={"function": "note"})
    agent = a_service(cast.support)
    heaps = [[proposed(agent, cast.support, tool="heap") for _ in range(OF_EACH)] for _ in range(HEAPS)]
    single, second = (proposed(agent, cast.support) for _ in range(2))
    *many, one = reviewers(HEAPS + 1)
    bulks = [Bulk(who, heap) for who, heap in zip(many, heaps, strict=True)]
    lane = Lane()
    try:
        for bulk in bulks:
            bulk.start()
        # The first of them all is decided; the other heaps, of other people, wait for their turn and not beside it.
        assert pause.reached.acquire(timeout=60)
        assert approved() == 1 and not pause.reached.acquire(blocking=False)
        client = signed_in(one)
        for action in (single, second):
            assert client.post("/inbox/decide/", form(action)).status_code == 302
            assert state_of(action) == Action.APPROVED
        # Whoever is told to reject or approve over the API waits for none of them either, and workers begin with what there is.
        lane.start()
        assert set(begun(3)) >= {str(single.pk), str(second.pk)}
        assert approved() == 3 and all(bulk.is_alive() for bulk in bulks)
    finally:
        pause.let_go.set()
        for bulk in bulks:
            bulk.join(120)
        lane.stop()
    assert [bulk.status for bulk in bulks] == [302] * HEAPS
    assert approved() == HEAPS * OF_EACH + 2
    # After each of them there is a pause, none of them within a transaction, and none is long however slow the decision was.
    assert len(pause.pauses) == HEAPS * OF_EACH and not any(pause.within)
    assert all(0 <= seconds <= 0.05 for seconds in pause.pauses)
