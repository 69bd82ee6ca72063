"""``Idempotency-Key``: one payment for any number of requests, whoever asks, whenever, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import time_machine

from llmops.gateway.idempotency import lead, repeating
from llmops.gateway.idempotency.ledger import DEFAULT_SECONDS, Name
from llmops.gateway.idempotency.on_disk import OnDisk
from llmops.serving.snapshot import CheckEntry, PolicyEntry
from tests.gateway.rig import (
    DONE,
    KEY,
    Answer,
    Asked,
    Reply,
    Rig,
    a_key,
    a_route,
    answers,
    ask,
    chunk,
    eventually,
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
