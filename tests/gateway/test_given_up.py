"""Work on large texts that nobody waits for any more is not in everybody's way."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from llmops.core.stopping import Stop, Stopped, go_on
from llmops.core.verdicts import BEFORE, BLOCK, REDACT
from llmops.policies.checks import personal_data
from tests.gateway.rig import Rig, ask
from tests.gateway.test_policing import under

ADDRESSES = 60_000


@pytest.mark.parametrize("action", [BLOCK, REDACT])
async def test_a_hang_up_ends_the_look_at_a_text_of_nothing_but_addresses(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    under(rig, ("personal_data", BEFORE, action, {}))
    seen = 0
    hung_up, begun = threading.Event(), threading.Event()
    place = personal_data._PLACES["ip"]

    def counted(*where: Any) -> Any:
        nonlocal seen
        seen += 1
        begun.set()
        assert hung_up.wait(10)
        return place(*where)

    monkeypatch.setitem(personal_data._PLACES, "ip", counted)
    text = " ".join(f"{n % 200 + 1}.{n % 250}.0.{n % 255}" for n in range(ADDRESSES))
    exchange = rig.start(ask(text=text))
    assert await asyncio.to_thread(begun.wait, 10)
    exchange.hang_up()
    await exchange.done()
    hung_up.set()
    await rig.plane.off_loop(lambda: None, size=10**6)
    assert seen < 10
    assert rig.outcome().status == "client_closed"


def test_work_is_stopped_where_it_asks_and_nowhere_else() -> None:
    go_on()
    stop = Stop()

    def work() -> None:
        go_on()
        stop.set()
        with pytest.raises(Stopped):
            go_on()

    stop.run(work)
    go_on()
    with pytest.raises(Stopped):
        stop.run(lambda: None)
