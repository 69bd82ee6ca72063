"""Chats that are streamed: relayed byte for byte, and never finished in looks when they are broken."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.gateway.rig import (
    DONE,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_provider,
    a_route,
    answers,
    chunk,
    streams,
    usage_chunk,
)

IN, OUT = 1_000, 10_000  # nanodollars a token, as a_model has it


async def test_a_stream_is_relayed_byte_for_byte_when_usage_was_asked_for(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])
    pieces = [
        chunk("Hel", used=None),
        b": comment\n\n" + chunk("lo", used=None),
        chunk(finish="stop"),
        usage_chunk(),
        DONE,
    ]
    rig.upstream.does(streams(*pieces))
    answer = await rig.chat(stream=True, stream_options={"include_usage": True, "other": 1})
    assert answer.body == b"".join(pieces)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert rig.upstream.asked[0].json["stream_options"] == {"include_usage": True, "other": 1}
    assert (rig.outcome().cost, rig.outcome().finish, rig.outcome().status) == (
        10 * IN + 5 * OUT,
        "stop",
        "ok",
    )
    assert rig.outcome().ttft_us > 0
    assert rig.ended()[0].origin.streamed


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None, "x": 2}])
async def test_usage_is_asked_for_and_hidden_where_the_client_did_not_ask(rig: Rig, options: Any) -> None:
    rig.configure(budgets=[a_budget()])
    rig.upstream.does(streams(chunk("a", used=None), chunk(finish="stop", used=None), usage_chunk(), DONE))
    members = {} if options is None else {"stream_options": options}
    answer = await rig.chat(stream=True, **members)
    assert answer.body == chunk("a") + chunk(finish="stop") + DONE
    assert rig.upstream.asked[0].json["stream_options"] == (options or {}) | {"include_usage": True}
    assert rig.outcome().cost == 10 * IN + 5 * OUT


@pytest.mark.parametrize(
    "broken",
    [
        [chunk("one"), chunk("two")],
        [chunk("one"), chunk(finish="stop")],
        [chunk("one"), chunk("two")[:30]],
        [chunk("one"), b"data: {broken\n\n", chunk("never"), DONE],
        [chunk("one") + b'data: {"error":{"message":"overloaded","code":"x"}}\n\n', DONE],
    ],
)
async def test_a_broken_stream_never_looks_finished(rig: Rig, broken: list[bytes]) -> None:
    rig.configure(budgets=[a_budget()])
    rig.upstream.does(streams(*broken))
    answer = await rig.chat(stream=True)
    assert b"[DONE]" not in answer.body
    assert answer.body.startswith(chunk("one"))
    assert b"never" not in answer.body
    last = answer.body.rstrip(b"\n").rpartition(b"\n\n")[2]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "stream_interrupted"
    assert answer.complete
    outcome = rig.outcome()
    assert (outcome.status, outcome.code, outcome.http) == ("interrupted", "stream_interrupted", 200)
    assert outcome.tokens.estimated
    assert outcome.tokens.output >= 1
    assert 0 < outcome.cost < rig.held()[0].worst_cost
    assert len(rig.upstream.asked) == 1, "nothing is tried again once something was relayed"


async def test_a_type_has_no_case(rig: Rig) -> None:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(chunk("Hello"), chunk(finish="stop"), DONE, kind="Text/Event-Stream;charset=UTF-8")

    rig.upstream.does(script)
    answer = await rig.chat(stream=True)
    assert answer.status == 200
    assert answer.body.endswith(DONE)


async def test_a_connection_that_dies_in_a_stream_breaks_it(rig: Rig) -> None:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await reply.chunk(chunk("one"))
        await asyncio.sleep(0.05)
        reply.cut()

    rig.upstream.does(script)
    answer = await rig.chat(stream=True)
    assert answer.body.startswith(chunk("one"))
    assert b"stream_interrupted" in answer.body
    assert b"[DONE]" not in answer.body


async def test_a_stream_that_stalls_is_given_up_after_the_read_time_out(rig: Rig) -> None:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await reply.chunk(chunk("one"))
        await asyncio.Event().wait()

    rig.configure(providers=[a_provider(base_url=rig.upstream.url, read_timeout_ms=200)])
    rig.upstream.does(script)
    answer = await rig.chat(stream=True)
    assert b"stream_interrupted" in answer.body
    await asyncio.wait_for(rig.upstream.gone.wait(), 5)


async def test_a_slow_stream_may_take_longer_than_the_whole_deadline(rig: Rig) -> None:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        for word in ("a", "b", "c", "d", "e"):
            await reply.chunk(chunk(word))
            await asyncio.sleep(0.25)
        await reply.chunk(usage_chunk() + DONE)
        await reply.raw(b"0\r\n\r\n")

    rig.configure(routes=[a_route(total_timeout_ms=800)])
    rig.upstream.does(script)
    answer = await rig.chat(model="chat", stream=True)
    assert answer.body.endswith(DONE)


async def test_a_stream_that_fails_before_its_first_event_is_tried_again(rig: Rig) -> None:
    rig.configure(routes=[a_route()], budgets=[a_budget()])
    rig.upstream.does(
        streams(b"", end=True),
        streams(b'data: {"error":{"message":"busy"}}\n\n'),
        streams(chunk("fine"), usage_chunk(), DONE),
    )
    answer = await rig.chat(model="chat", stream=True)
    assert answer.body == chunk("fine") + DONE
    assert answer.headers["x-llmops-attempts"] == "3"


async def test_a_connection_is_used_again_after_a_stream(rig: Rig) -> None:
    ports = set()
    rig.upstream.does(streams(chunk("a"), usage_chunk(), DONE))
    for _ in range(5):
        assert (await rig.chat(stream=True)).body.endswith(DONE)
        ports |= {id(task) for task in rig.upstream._tasks}
    assert len(ports) == 1


async def test_an_answer_that_is_no_stream_is_not_taken_for_one(rig: Rig) -> None:
    rig.upstream.does(answers())
    answer = await rig.chat(stream=True)
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
