"""Responses that are streamed, and the comments that keep a silent stream alive."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llmops.gateway.streaming import relaying
from tests.gateway.responding import (
    IN,
    OUT,
    PATH,
    a_stream,
    ask,
    created,
    delta,
    ended,
    event,
    last_event,
    respond,
)
from tests.gateway.rig import (
    Asked,
    Reply,
    Rig,
    a_budget,
    a_provider,
    a_route,
    fails,
    streams,
)

# ---------------------------------------------------------------------- streams


async def test_a_stream_is_relayed_as_it_is_and_settled_before_its_last_event(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])
    pieces = [b": hello\n\n", *a_stream("Hel", "lo"), b"data: [DONE]\n\n"]
    go_on = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        for piece in pieces[:-2]:
            await reply.chunk(piece)
        await go_on.wait()
        await reply.chunk(pieces[-2])
        await reply.raw(b"0\r\n\r\n")

    rig.upstream.does(script)
    exchange = rig.start(ask(stream=True), path=PATH)
    await exchange.answer.until(lambda answer: b"lo" in answer.body and answer.body.endswith(pieces[-3]))
    assert exchange.answer.body == b"".join(pieces[:-2])
    assert not rig.ended()
    go_on.set()
    answer = await exchange.done()
    assert answer.body == b"".join(pieces[:-1])
    outcome = rig.outcome()
    assert (outcome.status, outcome.finish, outcome.cost) == ("ok", "stop", 10 * IN + 5 * OUT)
    assert outcome.bytes_out == len(answer.body)
    assert "stream_options" not in rig.upstream.asked[0].json


@pytest.mark.parametrize("status", ["incomplete", "failed"])
async def test_a_stream_may_end_otherwise_than_well_and_is_whole_all_the_same(rig: Rig, status: str) -> None:
    pieces = [created(), delta("a", 1), ended(status, 2)]
    rig.upstream.does(streams(*pieces))
    answer = await respond(rig, stream=True)
    assert answer.body == b"".join(pieces)
    assert rig.outcome().status == ("ok" if status == "incomplete" else "error")


@pytest.mark.parametrize(
    ("pieces", "end"),
    [
        ([created(), delta("one", 1)], True),
        ([created(), delta("one", 1)], False),
        ([created(), delta("one", 1), delta("two", 2)[:-20]], True),
        ([created(), delta("one", 1), b"event: x\ndata: {nope\n\n", ended()], True),
        ([created(), delta("one", 1), event("error", 2, message="over", code="x"), ended()], True),
    ],
)
async def test_a_broken_stream_ends_with_an_error_event_and_never_looks_finished(
    rig: Rig, pieces: list[bytes], end: bool
) -> None:
    rig.configure(budgets=[a_budget()])

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(*pieces, end=end)
        if not end:
            reply.cut()

    rig.upstream.does(script)
    answer = await respond(rig, stream=True)
    assert answer.body.startswith(created() + delta("one", 1))
    assert b"response.completed" not in answer.body
    said = last_event(answer)
    assert (said["type"], said["code"], said["sequence_number"]) == ("error", "stream_interrupted", 2)
    assert said["error"]["code"] == "stream_interrupted"
    outcome = rig.outcome()
    assert (outcome.status, outcome.tokens.estimated, outcome.tokens.output) == ("interrupted", True, 1)
    assert 0 < outcome.cost < rig.held()[0].worst_cost


async def test_a_stream_that_stalls_breaks_off_after_the_read_time_out(rig: Rig) -> None:
    rig.configure(providers=[a_provider(base_url=rig.upstream.url, read_timeout_ms=100)])

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(created(), delta("one", 1), end=False)
        await asyncio.Event().wait()

    rig.upstream.does(script)
    answer = await respond(rig, stream=True)
    assert last_event(answer)["code"] == "stream_interrupted"
    assert rig.upstream.gone.is_set() or rig.outcome().status == "interrupted"


async def test_a_client_that_hangs_up_stops_the_provider_and_pays_for_what_came(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(created(), delta("one", 1), end=False)
        await asyncio.Event().wait()

    rig.upstream.does(script)
    exchange = rig.start(ask(stream=True), path=PATH)
    await exchange.answer.until(lambda answer: b"one" in answer.body)
    exchange.hang_up()
    await exchange.done()
    async with asyncio.timeout(60):
        await rig.upstream.gone.wait()
    outcome = rig.outcome()
    assert (outcome.status, outcome.tokens.output) == ("client_closed", 1)


async def test_an_error_as_the_first_event_is_what_an_error_status_would_have_been(rig: Rig) -> None:
    rig.configure(routes=[a_route(attempts=2)], budgets=[a_budget()])
    long = event("error", 0, code="context_length_exceeded", message="too long")
    rig.upstream.does(streams(long))
    answer = await respond(rig, model="chat", stream=True)
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert len(rig.upstream.asked) == 1
    limited = event("error", 0, code="rate_limit_exceeded", message="slower")
    rig.upstream.does(streams(limited), streams(*a_stream("a")))
    answer = await respond(rig, model="chat", stream=True)
    assert (answer.status, answer.headers["x-llmops-attempts"]) == (200, "2")
    assert [one.cost for one in rig.ended()] == [0, 0, 10 * IN + 5 * OUT]


# ---------------------------------------------------------------------- comments that keep a stream alive


async def test_a_silent_stream_gets_comments_between_its_events(rig: Rig) -> None:
    rig.configure(routes=[a_route(keep_alive_s=0.02)])
    go_on = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        whole = delta("one", 1)
        await reply.chunk(created() + whole[:10])
        await go_on.wait()
        await reply.chunk(whole[10:] + ended(number=2))
        await reply.raw(b"0\r\n\r\n")

    rig.upstream.does(script)
    exchange = rig.start(ask(model="chat", stream=True), path=PATH)
    await exchange.answer.until(lambda answer: answer.body.count(b": keep-alive\n\n") >= 3)
    go_on.set()
    answer = await exchange.done()
    assert answer.body.replace(b": keep-alive\n\n", b"") == created() + delta("one", 1) + ended(number=2)
    assert rig.outcome().bytes_out == len(answer.body)


async def test_after_a_comment_another_attempt_still_answers_in_the_same_stream(rig: Rig) -> None:
    rig.configure(routes=[a_route(keep_alive_s=0.02, attempts=3)])
    go_on = asyncio.Event()

    async def silent(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await go_on.wait()
        reply.cut()

    rig.upstream.does(silent, fails(500), streams(*a_stream("a")))
    exchange = rig.start(ask(model="chat", stream=True), path=PATH)
    await exchange.answer.until(lambda answer: b": keep-alive" in answer.body)
    go_on.set()
    answer = await exchange.done()
    assert (answer.status, answer.complete) == (200, True)
    assert answer.body.replace(b": keep-alive\n\n", b"") == b"".join(a_stream("a"))
    outcome = rig.outcome()
    assert (outcome.status, len(outcome.attempts)) == ("ok", 3)


@pytest.mark.parametrize("path", [PATH, "/v1/chat/completions"])
async def test_after_a_comment_a_failure_is_told_by_an_event(rig: Rig, path: str) -> None:
    rig.configure(routes=[a_route(keep_alive_s=0.02, attempts=2)])
    go_on = asyncio.Event()

    async def silent(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await go_on.wait()
        reply.cut()

    rig.upstream.does(silent, fails(429, "rate_limit_exceeded"))
    body = ask(model="chat", stream=True) | {"messages": [{"role": "user", "content": "x"}]}
    exchange = rig.start(body, path=path)
    await exchange.answer.until(lambda answer: b": keep-alive" in answer.body)
    go_on.set()
    answer = await exchange.done()
    assert answer.complete and answer.status == 200
    data = answer.body.rstrip(b"\n").rpartition(b"data: ")[2]
    assert json.loads(data)["error"]["message"]
    assert b"[DONE]" not in answer.body and b"response.completed" not in answer.body
    outcome = rig.outcome()
    assert (outcome.status, outcome.http) == ("error", 200)


async def test_time_that_is_over_after_a_comment_is_told_by_an_event(rig: Rig) -> None:
    rig.configure(routes=[a_route(keep_alive_s=0.02, total_timeout_ms=300)])

    async def silent(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await asyncio.Event().wait()

    rig.upstream.does(silent)
    answer = await respond(rig, model="chat", stream=True)
    assert answer.complete and b": keep-alive" in answer.body
    assert last_event(answer)["code"] == "upstream_timeout"
    assert rig.outcome().status == "error"


async def test_a_client_that_hangs_up_while_it_gets_comments_is_noticed(rig: Rig) -> None:
    rig.configure(routes=[a_route(keep_alive_s=0.02)])

    async def silent(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await asyncio.Event().wait()

    rig.upstream.does(silent)
    exchange = rig.start(ask(model="chat", stream=True, store=False), path=PATH)
    await exchange.answer.until(lambda answer: b": keep-alive" in answer.body)
    exchange.hang_up()
    await exchange.done()
    assert rig.outcome().status == "client_closed"


async def test_streams_that_ask_for_no_comments_have_no_timer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*given: Any) -> None:
        raise AssertionError("no timer is needed")

    monkeypatch.setattr(relaying, "KeepAlive", none)
    rig.configure(routes=[a_route(keep_alive_s=0)])
    rig.upstream.does(streams(*a_stream("a")))
    assert (await respond(rig, model="chat", stream=True)).body == b"".join(a_stream("a"))
