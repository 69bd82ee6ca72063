"""``Idempotency-Key`` where a call ends otherwise than well: failures, and clients that leave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmops.gateway.idempotency.ledger import LedgerAway
from llmops.gateway.idempotency.on_disk import OnDisk
from tests.gateway.rig import (
    DONE,
    KEY,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_key,
    a_route,
    answers,
    ask,
    chunk,
    eventually,
    fails,
    hangs,
    streams,
)
from tests.gateway.test_idempotency import ONCE, STREAM, costs, key, replayed

pytestmark = pytest.mark.any_engine


# ---------------------------------------------------------------------- failures


async def test_what_was_refused_here_is_not_remembered(rig: Rig) -> None:
    mine = a_key(rpm=1)
    rig.configure(keys={KEY: mine})
    rig.upstream.does(answers())
    assert (await rig.chat()).status == 200
    assert (await rig.chat(how=ONCE)).status == 429
    rig.configure(keys={KEY: a_key(project_id=mine.project_id)})
    found = await rig.chat(how=ONCE)
    assert (found.status, replayed(found)) == (200, False)


async def test_a_budget_that_was_raised_answers(rig: Rig) -> None:
    mine = a_key()
    rig.configure(keys={KEY: mine}, budgets=(a_budget(limit_nano=1),))
    rig.upstream.does(answers())
    assert (await rig.chat(how=ONCE)).error["code"] == "insufficient_quota"
    rig.configure(keys={KEY: mine})
    found = await rig.chat(how=ONCE)
    assert (found.status, replayed(found)) == (200, False)


@pytest.mark.parametrize("status", [400, 429, 500, 503])
async def test_what_a_provider_refused_for_certain_is_asked_anew(rig: Rig, status: int) -> None:
    rig.configure(routes=(a_route(attempts=1),))
    rig.upstream.does(fails(status))
    assert (await rig.chat(model="chat", how=ONCE)).status >= 400
    rig.upstream.does(answers())
    found = await rig.chat(model="chat", how=ONCE)
    assert (found.status, replayed(found)) == (200, False)


async def test_an_outcome_that_nobody_knows_is_not_paid_twice(rig: Rig) -> None:
    rig.configure(routes=(a_route(attempts=1, total_timeout_ms=300),))
    rig.upstream.does(hangs)
    first = await rig.chat(model="chat", how=ONCE)
    assert first.status == 504
    rig.upstream.does(answers())
    again = await rig.chat(model="chat", how=ONCE)
    assert (again.status, again.body, replayed(again)) == (504, first.body, True)
    assert again.headers["x-should-retry"] == "false"
    assert len(rig.upstream.asked) == 1


async def test_a_stream_that_broke_breaks_again(rig: Rig) -> None:
    rig.upstream.does(streams(chunk("Hel"), chunk("lo"), end=True))
    first = await rig.chat(how=ONCE, stream=True)
    rig.upstream.does(streams(*STREAM))
    again = await rig.chat(how=ONCE, stream=True)
    assert again.body == first.body
    assert b"stream_interrupted" in again.body
    assert DONE not in again.body
    assert len(rig.upstream.asked) == 1


async def test_a_bad_request_keeps_no_key(rig: Rig) -> None:
    rig.upstream.does(answers())
    assert (await rig.call({"model": "small"}, **ONCE)).status == 400
    assert (await rig.chat(how=ONCE)).status == 200


@pytest.mark.parametrize("bad", ["", " ", "a" * 256, "caf\u00e9", "a\tb"])
async def test_a_bad_key_is_named(rig: Rig, bad: str) -> None:
    found = await rig.chat(how=key(bad))
    assert (found.status, found.error["param"]) == (400, "Idempotency-Key")
    assert not rig.upstream.asked


# ---------------------------------------------------------------------- clients that leave


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_goes_on_when_its_client_leaves(rig: Rig, stream: bool) -> None:
    go = asyncio.Event()

    async def waits(asked: Asked, reply: Reply) -> None:
        await go.wait()
        await (streams(*STREAM) if stream else answers())(asked, reply)

    rig.upstream.does(waits)
    first = rig.start(ask(stream=stream), **ONCE)
    await eventually(lambda: len(rig.upstream.asked) == 1)
    first.hang_up()
    await eventually(lambda: not first.left())
    second = rig.start(ask(stream=stream), **ONCE)
    go.set()
    found = await second.done()
    assert (found.status, replayed(found)) == (200, True)
    assert len(rig.upstream.asked) == 1
    assert sorted(cost > 0 for cost in costs(rig)) == [False, True]
    rig.nothing_held()


async def test_whoever_waits_and_leaves_leaves_nothing(rig: Rig) -> None:
    go = asyncio.Event()

    async def waits(asked: Asked, reply: Reply) -> None:
        await go.wait()
        await answers()(asked, reply)

    rig.upstream.does(waits)
    first = rig.start(ask(), **ONCE)
    await eventually(lambda: len(rig.upstream.asked) == 1)
    second = rig.start(ask(), **ONCE)
    await eventually(lambda: not second.left())
    second.hang_up()
    await second.done()
    go.set()
    assert (await first.done()).status == 200
    assert replayed(await rig.chat(how=ONCE))


async def test_a_claim_that_nobody_waits_for_any_more_is_given_back(rig: Rig) -> None:
    ledger, claimed, go = rig.plane.flights.ledger, asyncio.Event(), asyncio.Event()

    class Slow(OnDisk):
        async def claim(self, *args: Any) -> Any:
            found = await ledger.claim(*args)
            claimed.set()
            await go.wait()
            return found

        async def release(self, *args: Any) -> None:
            await ledger.release(*args)

    rig.plane.flights.ledger = Slow()
    first = rig.start(ask(), **ONCE)
    await claimed.wait()
    first.task.cancel()
    await asyncio.gather(first.task, return_exceptions=True)
    go.set()
    rig.plane.flights.ledger = ledger
    rig.upstream.does(answers())

    async def free() -> bool:
        return (await rig.chat(how=ONCE)).status == 200

    async with asyncio.timeout(60):
        while not await free():
            await asyncio.sleep(0.01)


async def test_a_claim_of_which_nobody_heard_holds_no_key(rig: Rig) -> None:
    """The ledger took it and its answer was lost on the way: nothing was sent, so whoever asks again is answered."""
    ledger = rig.plane.flights.ledger

    class Mute(OnDisk):
        async def claim(self, *args: Any) -> Any:
            await ledger.claim(*args)
            raise LedgerAway

        async def release(self, *args: Any) -> None:
            await ledger.release(*args)

    rig.plane.flights.ledger = Mute()
    rig.upstream.does(answers())
    assert (await rig.chat(how=ONCE)).error["code"] == "idempotency_unavailable"
    await eventually(lambda: not rig.plane.flights._tasks)
    rig.plane.flights.ledger = ledger
    assert (await rig.chat(how=ONCE)).status == 200
    assert len(rig.upstream.asked) == 1
