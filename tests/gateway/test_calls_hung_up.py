"""Clients that hang up, and servers that stop: what ends then, and who pays for what."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import Any

import pytest

from llmops.core.tokens import count_text
from llmops.gateway import watch
from tests.gateway.rig import (
    KEY,
    SECRET,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_provider,
    a_route,
    answers,
    ask,
    chunk,
    eventually,
    fails,
    hangs,
    streams,
)

IN, OUT = 1_000, 10_000  # nanodollars a token, as a_model has it


async def test_a_client_that_hangs_up_cancels_a_plain_call_at_once(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])
    rig.upstream.does(hangs)
    exchange = rig.start(ask())
    await eventually(lambda: len(rig.upstream.asked) == 1)
    exchange.hang_up()
    began = time.monotonic()
    await asyncio.wait_for(rig.upstream.gone.wait(), 5)
    assert time.monotonic() - began < 1
    await exchange.done()
    assert exchange.answer.status == 0
    outcome = rig.outcome()
    assert (outcome.status, outcome.http, outcome.code) == ("client_closed", 499, "client_closed")
    assert outcome.cost == rig.held()[0].worst_cost, "what the provider did by then nobody knows"
    assert "not known" in outcome.attempts[0].note


async def test_a_client_that_hangs_up_pays_for_what_it_was_sent(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await reply.chunk(chunk("one two three four"))
        await asyncio.Event().wait()

    rig.upstream.does(script)
    exchange = rig.start(ask(stream=True))
    await exchange.answer.until(lambda answer: b"four" in answer.body)
    exchange.hang_up()
    await asyncio.wait_for(rig.upstream.gone.wait(), 5)
    await exchange.done()
    assert b"[DONE]" not in exchange.answer.body
    outcome = rig.outcome()
    assert outcome.status == "client_closed"
    assert outcome.tokens.estimated
    assert outcome.tokens.output == count_text("one two three four", "sim-small")
    assert outcome.cost == outcome.tokens.input * IN + outcome.tokens.output * OUT


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_before_there_is_a_connection_pays_nothing(
    rig: Rig, stream: bool
) -> None:
    with socket.socket() as deaf:
        # A full backlog: connecting to it hangs.
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = deaf.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        rig.configure(
            providers=[a_provider(base_url=f"http://127.0.0.1:{address[1]}/v1", connect_timeout_ms=60_000)],
            budgets=[a_budget()],
        )
        exchange = rig.start(ask(stream=stream))
        await eventually(lambda: len(rig.held()) == 1)
        await asyncio.sleep(0.1)
        exchange.hang_up()
        await exchange.done()
        for filler in fillers:
            filler.close()
    assert (rig.outcome().status, rig.outcome().cost) == ("client_closed", 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_before_there_is_a_connection_costs_nothing(rig: Rig, stream: bool) -> None:
    rig.configure(
        providers=[a_provider(base_url=rig.upstream.url, max_connections=1, pool_timeout_ms=60_000)],
        routes=[a_route(total_timeout_ms=300)],
        budgets=[a_budget()],
    )
    rig.upstream.does(hangs)
    first = rig.start(ask())
    await eventually(lambda: len(rig.upstream.asked) == 1)
    answer = await rig.chat(model="chat", stream=stream)
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    assert rig.outcome().cost == 0
    first.hang_up()
    await first.done()


async def test_a_hang_up_between_attempts_ends_the_call(rig: Rig) -> None:
    rig.configure(routes=[a_route(attempts=3)], budgets=[a_budget()])
    rig.upstream.does(fails(503, headers={"retry-after": "30"}), answers())
    exchange = rig.start(ask("chat"))
    await eventually(lambda: len(rig.ended()) == 1)
    exchange.hang_up()
    await exchange.done()
    assert len(rig.upstream.asked) == 1
    assert [one.attempt for one in rig.ended()] == [1, 0]
    assert rig.outcome().status == "client_closed"
    assert [one.status for one in rig.outcome().attempts] == [503]


async def test_a_hang_up_after_the_answer_changes_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LISTEN_AFTER_S", 0.0)
    for _ in range(30):
        exchange = rig.start(ask())
        exchange.hang_up()
        await exchange.done()
    statuses = [one.outcome.status for one in rig.ended() if one.outcome]
    assert len(statuses) == 30
    assert set(statuses) <= {"ok", "client_closed"}


async def test_a_server_that_says_by_an_error_that_the_client_is_gone(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await reply.chunk(chunk("one two"))
        await asyncio.Event().wait()

    rig.upstream.does(script)

    async def gone(message: Any) -> None:
        raise BrokenPipeError("client left")

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [(b"authorization", b"Bearer " + KEY.encode())],
    }
    inbox: asyncio.Queue[Any] = asyncio.Queue()
    inbox.put_nowait(
        {"type": "http.request", "body": json.dumps(ask(stream=True)).encode(), "more_body": False}
    )
    await rig.app(scope, inbox.get, gone)
    outcome = rig.outcome()
    assert (outcome.status, outcome.code) == ("client_closed", "client_closed")
    assert 0 < outcome.cost < rig.held()[0].worst_cost


async def test_a_probe_that_nobody_waits_for_does_not_block_its_target(rig: Rig) -> None:
    rig.configure(routes=[a_route(attempts=1, breaker_min_calls=1, breaker_cooldown_s=1)])
    rig.upstream.does(fails(500))
    assert (await rig.chat(model="chat")).status == 502
    refused = await rig.chat(model="chat")
    assert (refused.status, refused.error["code"]) == (503, "circuit_open")
    [breaker] = [one for one in rig.plane.breakers._all.values() if one.open_until]
    breaker.open_until = 0.001
    rig.upstream.does(hangs)
    probe = rig.start(ask("chat"))
    await eventually(lambda: len(rig.upstream.asked) == 2)
    assert (await rig.chat(model="chat")).status == 503, "one probe at a time"
    probe.hang_up()
    await probe.done()
    rig.upstream.does(answers())
    assert (await rig.chat(model="chat")).status == 200
    assert not breaker.open_until


@pytest.mark.parametrize("before", [[], [chunk("one")]])
async def test_a_secret_in_a_streams_error_does_not_reach_the_caller(rig: Rig, before: list[bytes]) -> None:
    error = json.dumps({"error": {"message": f"bad key {SECRET} at upstream"}}).encode()
    rig.configure(routes=[a_route(attempts=1)])
    rig.upstream.does(streams(*before, b"data: " + error + b"\n\n"))
    answer = await rig.chat(model="chat", stream=True)
    assert b"at upstream" in answer.body
    assert SECRET.encode() not in answer.body
    written = b"".join(path.read_bytes() for path in rig.directory.glob("*.jsonl"))
    assert SECRET.encode() not in written


async def test_a_server_that_stops_ends_and_settles_what_is_under_way(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])

    async def script(asked: Asked, reply: Reply) -> None:
        if asked.json.get("stream"):
            await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
            await reply.chunk(chunk("one"))
        await asyncio.Event().wait()

    rig.upstream.does(script)
    plain, stream = rig.start(ask()), rig.start(ask(stream=True))
    await stream.answer.until(lambda answer: b"one" in answer.body)
    await eventually(lambda: len(rig.upstream.asked) == 2)
    for one in list(rig.plane.calls):
        one.watch.fire("shutdown")
    await plain.done()
    await stream.done()
    assert (plain.answer.status, plain.answer.error["code"]) == (503, "service_unavailable")
    assert b"service_unavailable" in stream.answer.body
    assert b"[DONE]" not in stream.answer.body
    assert {one.outcome.code for one in rig.ended() if one.outcome} == {"server_closed"}
