"""``Idempotency-Key``: one payment for any number of requests, whoever asks, whenever, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import time_machine

from llmops.gateway.idempotency import lead, repeating, shared
from llmops.gateway.idempotency.flights import Flights
from llmops.gateway.idempotency.ledger import ALIVE_S, DEFAULT_SECONDS, LOST, RUNNING, Entry, LedgerAway, Name
from llmops.gateway.idempotency.ledger import DONE as ANSWERED
from llmops.gateway.idempotency.on_disk import OnDisk
from llmops.gateway.idempotency.shared import Shared
from llmops.serving.snapshot import CheckEntry, PolicyEntry
from tests import servers
from tests.gateway.rig import (
    DONE,
    KEY,
    Answer,
    Asked,
    Reply,
    Rig,
    Upstream,
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
    usage_chunk,
)

pytestmark = pytest.mark.any_engine

ONCE = {"headers": {"idempotency-key": "order-7f3a"}}
STREAM = [chunk("Hel"), chunk("lo"), chunk(finish="stop"), usage_chunk(), DONE]
OTHER_KEY = "llmops_testtest_" + "o" * 40


def key(text: str) -> dict[str, Any]:
    return {"headers": {"idempotency-key": text}}


def replayed(answer: Answer) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"


def costs(rig: Rig) -> list[int]:
    return [one.outcome.cost for one in rig.ended() if one.outcome is not None]


async def test_the_first_answer_again_free(rig: Rig) -> None:
    rig.upstream.does(answers())
    first = await rig.chat(how=ONCE)
    again = await rig.chat(how=ONCE)

    assert len(rig.upstream.asked) == 1
    assert not replayed(first)
    assert replayed(again)
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["x-llmops-replay-of"] == first.headers["x-llmops-call-id"]
    assert again.headers["x-llmops-call-id"] != first.headers["x-llmops-call-id"]
    for same in ("content-type", "content-length", "x-llmops-model", "x-llmops-output-cap"):
        assert again.headers.get(same) == first.headers.get(same), same
    paid, free = (one.outcome for one in rig.ended() if one.outcome is not None)
    assert paid.cost > 0
    assert (free.cost, free.cache, free.status, free.model) == (0, "replayed", "ok", "small")
    assert len(rig.held()) == 1
    rig.nothing_held()


async def test_what_was_forbidden_since_is_not_given_again(rig: Rig) -> None:
    route, key = a_route(), a_key()
    less = a_key(id=key.id, project_id=key.project_id, allowed_routes=frozenset({"another"}))
    rig.configure(routes=[route], keys={KEY: key})
    rig.upstream.does(answers())
    assert (await rig.chat(model="chat", how=ONCE)).status == 200

    rig.configure(routes=[route], version=2, keys={})
    assert (await rig.chat(model="chat", how=ONCE)).status == 401
    rig.configure(routes=[route], version=3, keys={KEY: less})
    assert (await rig.chat(model="chat", how=ONCE)).status == 403
    rig.configure(routes=[route], version=4, keys={KEY: key}, paused_routes={"chat": "an incident"})
    assert (await rig.chat(model="chat", how=ONCE)).error["code"] == "route_paused"
    rig.configure(routes=[route], version=5, keys={KEY: key})
    assert replayed(await rig.chat(model="chat", how=ONCE))
    assert len(rig.upstream.asked) == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_policies_of_a_later_revision_look_at_the_request_again(rig: Rig, streamed: bool) -> None:
    keys = {KEY: a_key()}
    rig.configure(revision=7, keys=keys)
    rig.upstream.does(streams(*STREAM) if streamed else answers())
    how: dict[str, Any] = {"stream": True} if streamed else {}
    first = await rig.chat(text="About Hamster", how=ONCE, **how)
    blocks = CheckEntry("deny", "before", "block", {"rules": [{"name": "pets", "words": ["hamster"]}]})
    policy = PolicyEntry("house", 1, [blocks], everywhere=True)
    rig.configure(revision=8, keys=keys, policies=[policy])
    again = await rig.chat(text="About Hamster", how=ONCE, **how)
    assert (again.status, again.error["code"]) == (400, "policy_blocked")
    assert not replayed(again)
    marks = CheckEntry("deny", "before", "allow", {"rules": [{"name": "pets", "words": ["hamster"]}]})
    rig.configure(revision=9, keys=keys, policies=[PolicyEntry("house", 2, [marks], everywhere=True)])
    again = await rig.chat(text="About Hamster", how=ONCE, **how)
    assert replayed(again)
    assert again.body == first.body
    assert len(rig.upstream.asked) == 1
    rig.nothing_held()


async def test_a_call_without_the_header_asks_nobody(rig: Rig) -> None:
    rig.upstream.does(answers())
    await rig.chat()
    await rig.chat()
    assert len(rig.upstream.asked) == 2
    assert rig.plane.flights.ledger._connection is None  # type: ignore[attr-defined]


async def test_a_stream_again_as_a_stream(rig: Rig) -> None:
    rig.upstream.does(streams(*STREAM))
    first = await rig.chat(how=ONCE, stream=True)
    again = await rig.chat(how=ONCE, stream=True)
    assert len(rig.upstream.asked) == 1
    assert again.body == first.body
    assert again.body.endswith(DONE)
    assert (
        again.headers["content-type"] == first.headers["content-type"] == "text/event-stream; charset=utf-8"
    )
    assert costs(rig)[1] == 0


async def test_many_at_once_are_one_call(rig: Rig) -> None:
    go = asyncio.Event()

    async def waits(asked: Asked, reply: Reply) -> None:
        await go.wait()
        await answers()(asked, reply)

    rig.upstream.does(waits)
    running = [rig.start(ask(), **ONCE) for _ in range(40)]
    await eventually(lambda: len(rig.upstream.asked) == 1)
    go.set()
    found = await asyncio.gather(*(one.done() for one in running))
    assert len(rig.upstream.asked) == 1
    assert {one.status for one in found} == {200}
    assert len({one.body for one in found}) == 1
    assert sum(replayed(one) for one in found) == 39
    assert sorted(cost > 0 for cost in costs(rig)) == [False] * 39 + [True]
    rig.nothing_held()


async def test_a_wait_has_an_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeating, "WAIT_S", 0.05)
    rig.upstream.does(hangs)
    first = rig.start(ask(), **ONCE)
    await eventually(lambda: len(rig.upstream.asked) == 1)
    second = await rig.chat(how=ONCE)
    assert (second.status, second.error["code"]) == (409, "idempotency_in_progress")
    assert int(second.headers["retry-after"]) >= 1
    assert "x-should-retry" not in second.headers
    first.task.cancel()
    await asyncio.gather(first.task, return_exceptions=True)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"text": "Say goodbye"}, "messages"),
        ({"temperature": 0.5}, "temperature"),
        ({"model": "chat"}, "model"),
        ({"stream": True}, "stream"),
    ],
)
async def test_another_body_is_refused_and_told_what_differs(
    rig: Rig, change: dict[str, Any], named: str
) -> None:
    rig.configure(routes=(a_route(),))
    rig.upstream.does(answers())
    await rig.chat(how=ONCE)
    other = await rig.chat(how=ONCE, **change)
    assert (other.status, other.error["code"], other.error["param"]) == (422, "idempotency_key_reused", named)
    assert named in other.error["message"]
    assert len(rig.upstream.asked) == 1


async def test_another_body_while_the_first_is_under_way_is_refused_at_once(rig: Rig) -> None:
    rig.upstream.does(hangs)
    first = rig.start(ask(), **ONCE)
    await eventually(lambda: len(rig.upstream.asked) == 1)
    other = await rig.chat(how=ONCE, text="Something else")
    assert other.status == 422
    first.task.cancel()
    await asyncio.gather(first.task, return_exceptions=True)


async def test_the_same_request_in_other_white_space_and_order_is_the_same(rig: Rig) -> None:
    rig.upstream.does(answers())
    body = ask(temperature=0.5, seed=3)
    await rig.call(json.dumps(body).encode(), **ONCE)
    turned = json.dumps(dict(reversed(body.items())), indent=2).encode()
    assert replayed(await rig.call(turned, **ONCE))


async def test_a_member_given_twice_inside_is_another_request(rig: Rig) -> None:
    once = b'{"model": "small", "messages": [{"role": "user", "content": "b"}]}'
    twice = b'{"model": "small", "messages": [{"role": "user", "content": "a", "content": "b"}]}'
    rig.upstream.does(answers())
    await rig.call(once, **ONCE)
    assert (await rig.call(twice, **ONCE)).status == 422


async def test_another_address_is_another_request(rig: Rig) -> None:
    rig.upstream.does(answers())
    await rig.chat(how=ONCE)
    other = await rig.call({"model": "small", "input": "Say hello"}, path="/v1/responses", **ONCE)
    assert (other.status, other.error["param"]) == (422, "Idempotency-Key")
    assert "chat.completions" in other.error["message"]


async def test_tenants_do_not_meet_under_one_key(rig: Rig) -> None:
    rig.configure(keys={KEY: a_key(), OTHER_KEY: a_key("other", project="billing")})
    texts = iter(["ours", "theirs"])

    async def one_each(asked: Asked, reply: Reply) -> None:
        await answers(next(texts))(asked, reply)

    rig.upstream.does(one_each)
    ours = await rig.chat(how=ONCE)
    theirs = await rig.chat(how=ONCE | {"key": OTHER_KEY})
    assert not replayed(theirs)
    assert ours.body != theirs.body
    assert len(rig.upstream.asked) == 2
    # Nor does another body of theirs tell that ours is there.
    assert (await rig.chat(how=ONCE | {"key": OTHER_KEY}, text="x")).status == 422
    assert (await rig.chat(how=ONCE)).body == ours.body


async def test_another_key_of_the_project_gets_the_answer_as_after_a_rotation(rig: Rig) -> None:
    mine = a_key()
    rig.configure(keys={KEY: mine, OTHER_KEY: a_key("new", project_id=mine.project_id)})
    rig.upstream.does(answers())
    await rig.chat(how=ONCE)
    assert replayed(await rig.chat(how=ONCE | {"key": OTHER_KEY}))


async def test_a_key_that_may_not_call_the_model_gets_nothing_again(rig: Rig) -> None:
    mine = a_key()
    narrow = a_key("narrow", project_id=mine.project_id, allowed_models=frozenset({"large"}))
    rig.configure(keys={KEY: mine, OTHER_KEY: narrow})
    rig.upstream.does(answers())
    await rig.chat(how=ONCE)
    assert (await rig.chat(how=ONCE | {"key": OTHER_KEY})).status == 403
    assert (await rig.chat(how={**ONCE, "key": "nobody"})).status == 401


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

    async with asyncio.timeout(10):
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


# ---------------------------------------------------------------------- bounds


async def test_an_answer_over_the_bound_is_given_once_and_paid_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lead, "MAX_ANSWER_BYTES", 1000)
    rig.upstream.does(answers("Hello " * 500))
    first = await rig.chat(how=ONCE)
    assert first.status == 200
    again = await rig.chat(how=ONCE)
    assert (again.status, again.error["code"]) == (409, "idempotency_answer_not_kept")
    assert again.headers["x-should-retry"] == "false"
    assert first.headers["x-llmops-call-id"] in again.error["message"]
    assert len(rig.upstream.asked) == 1


async def test_a_stream_over_the_bound_whose_client_left_is_stopped(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lead, "MAX_ANSWER_BYTES", 1000)

    async def endless(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        while True:
            await reply.chunk(chunk("on and on "))
            await asyncio.sleep(0.001)

    rig.upstream.does(endless)
    first = rig.start(ask(stream=True), **ONCE)
    await first.answer.until(lambda seen: len(seen.pieces) > 1)
    first.hang_up()
    await first.done()
    await eventually(lambda: rig.upstream.gone.is_set())
    assert (await rig.chat(how=ONCE, stream=True)).error["code"] == "idempotency_answer_not_kept"
    rig.nothing_held()


async def test_answers_make_room_and_the_heaviest_tenant_pays(tmp_path: Path) -> None:
    ledger = OnDisk(tmp_path / "answers.sqlite3", max_bytes=100_000)
    small = Name("small", b"s" * 16)
    await ledger.claim(small, "me", b"r")
    await ledger.conclude(small, "me", b"x" * 1000)
    for index in range(60):
        name = Name("large", index.to_bytes(16, "big"))
        assert await ledger.claim(name, "me", b"r") is None
        await ledger.conclude(name, "me", b"x" * 10_000)
    found = await ledger.claim(small, "other", b"r")
    assert found is not None
    assert found.answer == b"x" * 1000
    with sqlite3.connect(tmp_path / "answers.sqlite3") as file:
        [kept] = file.execute("SELECT sum(length(request) + length(answer)) FROM entry").fetchone()
        [told] = file.execute("SELECT sum(bytes) FROM total").fetchone()
    assert kept == told <= 100_000
    await ledger.close()


async def test_a_key_is_free_again_after_its_time(rig: Rig) -> None:
    rig.upstream.does(answers())
    with time_machine.travel("2026-11-26T12:00:00Z", tick=False) as clock:
        await rig.chat(how=ONCE)
        clock.shift(DEFAULT_SECONDS - 1)
        assert replayed(await rig.chat(how=ONCE))
        clock.shift(2)
        found = await rig.chat(how=ONCE, text="Even with another body")
        assert (found.status, replayed(found)) == (200, False)
    assert len(rig.upstream.asked) == 2


# ---------------------------------------------------------------------- processes


@pytest.fixture
async def two(tmp_path: Path, upstream: Upstream) -> AsyncIterator[tuple[Rig, Rig]]:
    """Two data planes of one host."""
    rigs = [Rig(tmp_path / name, upstream) for name in ("one", "two")]
    mine = a_key()
    for one in rigs:
        one.configure(keys={KEY: mine})
        one.plane.flights = Flights(OnDisk(tmp_path / "answers.sqlite3"))
    yield rigs[0], rigs[1]
    for one in rigs:
        await one.close()


async def test_two_processes_answer_once(two: tuple[Rig, Rig]) -> None:
    one, other = two
    go = asyncio.Event()

    async def waits(asked: Asked, reply: Reply) -> None:
        await go.wait()
        await answers()(asked, reply)

    one.upstream.does(waits)
    running = [rig.start(ask(), **ONCE) for rig in (one, other) * 8]
    await eventually(lambda: len(one.upstream.asked) == 1)
    go.set()
    found = await asyncio.gather(*(each.done() for each in running))
    assert len(one.upstream.asked) == 1
    assert len({each.body for each in found}) == 1
    assert sum(replayed(each) for each in found) == 15


async def test_an_answer_survives_its_process(two: tuple[Rig, Rig]) -> None:
    one, other = two
    one.upstream.does(answers())
    first = await one.chat(how=ONCE)
    await one.plane.flights.close()
    again = await other.chat(how=ONCE)
    assert (replayed(again), again.body) == (True, first.body)


async def test_what_a_dead_process_left_is_not_paid_twice(
    two: tuple[Rig, Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    monkeypatch.setattr(repeating, "WAIT_S", 0.05)
    one.upstream.does(hangs)
    with time_machine.travel("2026-11-26T12:00:00Z", tick=False) as clock:
        dying = one.start(ask(), **ONCE)
        await eventually(lambda: len(one.upstream.asked) == 1, seconds=10)
        # It says nothing any more. While it may live, the other waits.
        assert (await other.chat(how=ONCE)).error["code"] == "idempotency_in_progress"
        clock.shift(ALIVE_S + 1)
        lost = await other.chat(how=ONCE)
        assert (lost.status, lost.error["code"]) == (409, "idempotency_outcome_unknown")
        assert lost.headers["x-should-retry"] == "false"
    assert len(one.upstream.asked) == 1
    dying.task.cancel()
    await asyncio.gather(dying.task, return_exceptions=True)


async def test_a_long_call_holds_its_key(two: tuple[Rig, Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = two
    monkeypatch.setattr(repeating, "WAIT_S", 0.05)
    one.upstream.does(hangs)
    with time_machine.travel("2026-11-26T12:00:00Z", tick=False) as clock:
        running = one.start(ask(), **ONCE)
        await eventually(lambda: len(one.upstream.asked) == 1)
        for _ in range(3):
            clock.shift(ALIVE_S - 1)
            one.plane.flights._renewed = -1e9
            await one.plane.flights.tick()
        assert (await other.chat(how=ONCE)).error["code"] == "idempotency_in_progress"
    running.task.cancel()
    await asyncio.gather(running.task, return_exceptions=True)


async def test_nothing_of_an_answer_can_be_read_in_the_file(two: tuple[Rig, Rig], tmp_path: Path) -> None:
    one, _ = two
    one.upstream.does(answers("a very private answer"))
    await one.chat(how=ONCE, text="a very private question")
    for file in tmp_path.glob("answers.sqlite3*"):
        content = file.read_bytes()
        for secret in (b"private", b"order-7f3a", b"messages", KEY.encode()):
            assert secret not in content
    assert (tmp_path / "answers.sqlite3").stat().st_mode & 0o077 == 0


async def test_a_file_that_cannot_be_used_refuses_who_wants_to_be_sure(rig: Rig, tmp_path: Path) -> None:
    broken = tmp_path / "broken.sqlite3"
    broken.write_bytes(b"no database at all" * 100)
    rig.plane.flights = Flights(OnDisk(broken))
    rig.upstream.does(answers())
    found = await rig.chat(how=ONCE)
    assert (found.status, found.error["code"]) == (503, "idempotency_unavailable")
    assert "retry-after" in found.headers
    assert not rig.upstream.asked
    assert (await rig.chat()).status == 200


# ---------------------------------------------------------------------- a real kill, a real Redis

DYING = """
import asyncio, os, signal, sys
from pathlib import Path
from llmops.gateway.idempotency.ledger import Name
from llmops.gateway.idempotency.on_disk import OnDisk

async def main():
    ledger = OnDisk(Path(sys.argv[1]))
    await ledger.claim(Name("p", b"answered"), "dying", b"asked")
    await ledger.conclude(Name("p", b"answered"), "dying", b"the answer")
    await ledger.claim(Name("p", b"under way"), "dying", b"asked")
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_kill_9_loses_no_answer_and_frees_no_key(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite3"
    dying = await asyncio.create_subprocess_exec(sys.executable, "-c", DYING, str(path))
    assert await dying.wait() == -signal.SIGKILL
    ledger = OnDisk(path)
    assert await ledger.claim(Name("p", b"answered"), "me", b"asked") == Entry(
        ANSWERED, b"asked", b"the answer"
    )
    assert await ledger.claim(Name("p", b"under way"), "me", b"asked") == Entry(RUNNING, b"asked")
    with time_machine.travel(time.time() + ALIVE_S + 1):
        assert await ledger.claim(Name("p", b"under way"), "me", b"asked") == Entry(LOST, b"asked")
    # Nor does a process that was taken for dead end what is not its own.
    await ledger.release(Name("p", b"under way"), "me")
    assert await ledger.claim(Name("p", b"under way"), "me", b"asked") is not None
    await ledger.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with servers.valkey() as running:
        yield running


@pytest.fixture
async def apart(tmp_path: Path, upstream: Upstream, url: str) -> AsyncIterator[tuple[Rig, Rig]]:
    """Two data planes of two hosts, with a Redis."""
    rigs = [Rig(tmp_path / name, upstream) for name in ("one", "two")]
    mine = a_key()
    for one in rigs:
        one.configure(keys={KEY: mine})
        one.plane.flights = Flights(Shared(url))
    yield rigs[0], rigs[1]
    for one in rigs:
        await one.close()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not a Redis that is away."""
    monkeypatch.setattr(shared, "TIMEOUT_S", 5.0)


@pytest.mark.parametrize("stream", [False, True])
async def test_two_hosts_answer_once(apart: tuple[Rig, Rig], stream: bool) -> None:
    one, other = apart
    go = asyncio.Event()

    async def waits(asked: Asked, reply: Reply) -> None:
        await go.wait()
        await (streams(*STREAM) if stream else answers())(asked, reply)

    one.upstream.does(waits)
    running = [rig.start(ask(stream=stream), **ONCE) for rig in (one, other) * 8]
    await eventually(lambda: len(one.upstream.asked) == 1)
    assert (await other.chat(how=ONCE, text="Another")).status == 422
    go.set()
    found = await asyncio.gather(*(each.done() for each in running))
    assert len(one.upstream.asked) == 1
    assert len({each.body for each in found}) == 1
    assert sum(replayed(each) for each in found) == 15
    assert replayed(await other.chat(how=ONCE, stream=stream))


async def test_what_was_refused_on_one_host_is_free_on_the_other(apart: tuple[Rig, Rig]) -> None:
    one, other = apart
    one.upstream.does(fails(400))
    assert (await one.chat(how=ONCE)).status == 400
    one.upstream.does(answers())
    found = await other.chat(how=ONCE)
    assert (found.status, replayed(found)) == (200, False)


async def test_what_a_dead_host_left_is_not_paid_twice(
    apart: tuple[Rig, Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = apart
    monkeypatch.setattr(shared, "ALIVE_S", 0.3)
    one.upstream.does(hangs)
    dying = one.start(ask(), **ONCE)
    await eventually(lambda: len(one.upstream.asked) == 1)
    # It waits while the first may live, and says so when it is lost.
    lost = await other.chat(how=ONCE)
    assert (lost.status, lost.error["code"]) == (409, "idempotency_outcome_unknown")
    assert len(one.upstream.asked) == 1
    dying.task.cancel()
    await asyncio.gather(dying.task, return_exceptions=True)


async def test_a_redis_that_is_away_refuses_who_wants_to_be_sure(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.plane.flights = Flights(Shared("redis://127.0.0.1:9/0"))
    found = await rig.chat(how=ONCE)
    assert (found.status, found.error["code"]) == (503, "idempotency_unavailable")
    assert not rig.upstream.asked
    assert (await rig.chat()).status == 200


async def test_redis_away_at_the_end_keeps_the_answer_from_nobody(
    apart: tuple[Rig, Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = apart

    async def breaks(asked: Asked, reply: Reply) -> None:
        async def conclude(*_: Any) -> None:
            raise LedgerAway

        one.plane.flights.ledger.conclude = conclude  # type: ignore[method-assign]
        await answers()(asked, reply)

    one.upstream.does(breaks)
    assert (await one.chat(how=ONCE)).status == 200
    assert len(one.plane.flights) == 0
    # Nobody says of it that it lives any more: it is lost in a minute, and not asked again before.
    monkeypatch.setattr(repeating, "WAIT_S", 0.05)
    assert (await other.chat(how=ONCE)).error["code"] == "idempotency_in_progress"
    assert len(one.upstream.asked) == 1


async def test_in_redis_answers_make_room_and_end(url: str) -> None:
    name = Name("large", b"0")
    with redis.Redis.from_url(url) as looking:
        looking.flushall()
        ledger = Shared(url, max_bytes=100_000, seconds=0.5)
        small = Name("small", b"s")
        await ledger.claim(small, "me", b"r")
        await ledger.conclude(small, "me", b"x" * 1000)
        for index in range(60):
            name = Name("large", b"%d" % index)
            assert await ledger.claim(name, "me", b"r") is None
            await ledger.conclude(name, "me", b"x" * 10_000)
            assert int(looking.get("llmops:{idempotency}:bytes")) <= 100_000  # type: ignore[arg-type]
        kept = await ledger.claim(small, "other", b"r")
        assert kept is None or kept.answer == b"x" * 1000
        async with asyncio.timeout(10):
            while await ledger.claim(name, "again", b"r") is not None:
                await asyncio.sleep(0.05)
        # What outlived its time is forgotten with all that was counted of it.
        await ledger.release(name, "again")
        await ledger.claim(Name("p", b"one"), "me", b"r")
        await ledger.release(Name("p", b"one"), "me")
        left = set(looking.scan_iter("llmops:{idempotency}:*"))
        assert left <= {b"llmops:{idempotency}:bytes"}
        assert int(looking.get("llmops:{idempotency}:bytes") or 0) == 0  # type: ignore[arg-type]
        await ledger.close()
