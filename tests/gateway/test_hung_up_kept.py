"""A client that hangs up on something that the provider keeps: its id becomes known, and what it cost; or it is ended at once."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from llmops.gateway import watch
from llmops.gateway.kept.owners import CHAT, RESPONSE
from tests.gateway.keeping import A_FILE, FORM, FORM_TYPE, MINE, OTHER, configure, get
from tests.gateway.responding import IN, OUT, PATH, a_response, created, delta, ended
from tests.gateway.responding import ask as respond
from tests.gateway.rig import (
    Asked,
    Exchange,
    Reply,
    Rig,
    Script,
    a_budget,
    a_route,
    ask,
    chunk,
    eventually,
    usage,
)

CHATS = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def listening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LISTEN_AFTER_S", 0.0)


class Slow:
    """A provider that says each piece when the test wants it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.next = asyncio.Queue[bytes | None]()
        rig.upstream.does(self.script)

    async def script(self, asked: Asked, reply: Reply) -> None:
        if asked.method == "GET":
            await reply.json(a_response())
            return
        if not asked.json.get("stream"):
            body = await self.next.get()
            if body is None:
                reply.cut()
                return
            await reply.json(body)
            return
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        while piece := await self.next.get():
            await reply.chunk(piece)
        await reply.raw(b"0\r\n\r\n")

    def says(self, *pieces: bytes | None) -> None:
        for piece in pieces:
            self.next.put_nowait(piece)


async def left(rig: Rig, exchange: Exchange) -> None:
    """The client has hung up, and that was heard."""
    await eventually(lambda: len(rig.upstream.asked) == 1)
    exchange.hang_up()
    await eventually(lambda: exchange.task.done() or any(one.watch.left for one in rig.plane.calls))  # type: ignore[attr-defined]


def configured(rig: Rig, **what: Any) -> None:
    configure(rig, budgets=[a_budget()], routes=[a_route()], **what)


def known(rig: Rig, kind: str, object_id: str) -> bool:
    return rig.plane.objects.known(kind, object_id, MINE.project_id) is not None


async def test_a_whole_response_is_waited_for_so_that_it_is_known_and_paid_as_it_was(rig: Rig) -> None:
    configured(rig)
    provider = Slow(rig)
    exchange = rig.start(respond(), path=PATH)
    await left(rig, exchange)
    assert not rig.upstream.gone.is_set() and not exchange.task.done()
    provider.says(encoded(a_response()))
    await exchange.done()
    assert exchange.answer.status == 0, "nobody is there to be told"
    outcome = rig.outcome()
    assert (outcome.status, outcome.http, outcome.code) == ("client_closed", 499, "client_closed")
    assert (outcome.tokens.input, outcome.tokens.output) == (10, 5) and outcome.cost == 10 * IN + 5 * OUT
    # Of the project, and of nobody else.
    assert known(rig, RESPONSE, "resp_1")
    assert (await get(rig, f"{PATH}/resp_1")).status == 200
    rig.nothing_held()


async def test_nobody_else_gets_it(rig: Rig, soon: None) -> None:
    configured(rig)
    provider = Slow(rig)
    exchange = rig.start(respond(), path=PATH)
    await left(rig, exchange)
    provider.says(encoded(a_response()))
    await exchange.done()
    stranger = await get(rig, f"{PATH}/resp_1", key=OTHER)
    assert (stranger.status, stranger.error["code"]) == (404, "not_found")


@pytest.mark.parametrize("kind", [RESPONSE, CHAT])
async def test_a_stream_goes_on_until_its_id_is_known_and_no_longer(rig: Rig, kind: str) -> None:
    configured(rig)
    provider = Slow(rig)
    path, body, first, its_id = {
        RESPONSE: (PATH, respond(stream=True), created(), "resp_1"),
        CHAT: (CHATS, ask(stream=True, store=True), chunk("Hello"), "chatcmpl-1"),
    }[kind]
    exchange = rig.start(body, path=path)
    await left(rig, exchange)
    assert not rig.upstream.gone.is_set()
    provider.says(first)
    await asyncio.wait_for(rig.upstream.gone.wait(), 10)
    await exchange.done()
    assert exchange.answer.status == 0
    assert known(rig, kind, its_id)
    assert rig.outcome().status == "client_closed"
    assert rig.outcome().tokens.estimated
    rig.nothing_held()


async def test_a_stream_whose_id_is_known_ends_with_its_client(rig: Rig) -> None:
    configured(rig)
    provider = Slow(rig)
    exchange = rig.start(respond(stream=True), path=PATH)
    provider.says(created(), delta("Hello", 1))
    await exchange.answer.until(lambda answer: b"Hello" in answer.body)
    exchange.hang_up()
    await asyncio.wait_for(rig.upstream.gone.wait(), 10)
    await exchange.done()
    assert known(rig, RESPONSE, "resp_1")
    assert rig.outcome().status == "client_closed"


async def test_a_stream_that_names_nothing_ends_with_its_client(rig: Rig) -> None:
    """As servers have it that keep nothing, whatever they are asked."""
    configured(rig)
    provider = Slow(rig)
    exchange = rig.start(respond(stream=True), path=PATH)
    provider.says(*(delta("word ", number) for number in range(1, 5)))
    await exchange.answer.until(lambda answer: answer.body.count(b"word") == 4)
    exchange.hang_up()
    await asyncio.wait_for(rig.upstream.gone.wait(), 10)
    await exchange.done()
    assert rig.outcome().status == "client_closed"


async def test_what_the_provider_does_not_keep_ends_with_its_client(rig: Rig) -> None:
    configured(rig)
    Slow(rig)
    exchange = rig.start(respond(store=False), path=PATH)
    await eventually(lambda: len(rig.upstream.asked) == 1)
    exchange.hang_up()
    await asyncio.wait_for(rig.upstream.gone.wait(), 10)
    await exchange.done()
    assert rig.outcome().status == "client_closed"


async def test_nothing_is_tried_again_for_who_has_left(rig: Rig, soon: None) -> None:
    configured(rig)
    provider = Slow(rig)
    exchange = rig.start(respond(model="chat"), path=PATH)
    await left(rig, exchange)
    provider.says(None)
    await exchange.done()
    assert len(rig.upstream.asked) == 1
    outcome = rig.outcome()
    assert outcome.status == "client_closed"
    assert outcome.cost == rig.held()[0].worst_cost, "what it did by then nobody knows"


async def test_who_leaves_while_it_waits_for_a_place_leaves_at_once(rig: Rig) -> None:
    configure(rig, routes=[a_route(max_concurrency=1, queue_timeout_ms=60_000)])
    provider = Slow(rig)
    first = rig.start(respond(model="chat"), path=PATH)
    await eventually(lambda: len(rig.upstream.asked) == 1)
    second = rig.start(respond(model="chat"), path=PATH)
    gate = rig.plane.gates.of(rig.plane.snapshot.routes["chat"], "small")
    await eventually(lambda: gate.queued == 1)
    second.hang_up()
    await second.done()
    provider.says(encoded(a_response()))
    assert (await first.done()).status == 200
    assert len(rig.upstream.asked) == 1


async def test_it_is_not_waited_for_beyond_the_time_of_the_call(rig: Rig) -> None:
    configure(rig, routes=[a_route(total_timeout_ms=300)], budgets=[a_budget()])
    Slow(rig)
    exchange = rig.start(respond(model="chat"), path=PATH)
    await left(rig, exchange)
    await exchange.done()
    await asyncio.wait_for(rig.upstream.gone.wait(), 10)
    assert rig.outcome().cost == rig.held()[0].worst_cost
    rig.nothing_held()


async def test_a_response_in_the_background_is_followed_though_its_client_left(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmops.gateway.kept.background.FIRST_S", 0.01)
    configured(rig)
    provider = Slow(rig)
    exchange = rig.start(respond(background=True), path=PATH)
    await left(rig, exchange)
    provider.says(encoded(a_response(status="queued", output=[], usage=None)))
    await exchange.done()
    await eventually(lambda: any(one.outcome for one in rig.ended()))
    assert rig.outcome().cost == 10 * IN + 5 * OUT and known(rig, RESPONSE, "resp_1")


@pytest.mark.parametrize("where", range(12))
async def test_wherever_in_a_stream_its_client_leaves_it_is_known_and_settled_once(
    rig: Rig, where: int
) -> None:
    configured(rig)
    provider = Slow(rig)
    pieces = [created(), *(delta("word ", number) for number in range(1, 9)), ended(number=9)]
    exchange = rig.start(respond(stream=True), path=PATH)
    provider.says(*pieces[:where])
    await eventually(lambda: len(rig.upstream.asked) == 1)
    if where:
        await exchange.answer.until(lambda answer: len(answer.pieces) >= 1)
    exchange.hang_up()
    provider.says(*pieces[where:], None)
    await exchange.done()
    assert known(rig, RESPONSE, "resp_1") and len(rig.held()) == 1
    assert sum(one.attempt == 1 for one in rig.ended()) == 1
    rig.nothing_held()


def encoded(content: Any) -> bytes:
    return json.dumps(content).encode()


async def test_a_file_whose_client_left_while_it_was_made_is_known(rig: Rig) -> None:
    configured(rig)
    made = asyncio.Event()
    for path, body, headers, answered in (
        ("/v1/files", FORM, FORM_TYPE, A_FILE),
        ("/v1/uploads", b'{"bytes": 3}', {}, {"id": "upload_1", "object": "upload"}),
    ):
        made.clear()
        rig.upstream.does(script_of(made, answered))
        exchange = rig.start(body, path=path, headers=headers)
        asked = len(rig.upstream.asked)
        await eventually(lambda before=asked: len(rig.upstream.asked) == before + 1)  # type: ignore[misc]
        exchange.hang_up()
        await eventually(lambda one=exchange: one.left() == 0)  # type: ignore[misc]
        made.set()
        await exchange.done()
        assert rig.plane.objects.known(None, answered["id"], MINE.project_id) is not None
    assert not rig.upstream.gone.is_set()


def script_of(made: asyncio.Event, answered: Any) -> Script:
    async def script(asked: Asked, reply: Reply) -> None:
        await made.wait()
        await reply.json(answered)

    return script


async def test_a_second_cancellation_while_what_came_is_counted_leaves_nothing_held(rig: Rig) -> None:
    """A server may end the task of a client that left as well: the money comes free all the same."""
    configured(rig)
    provider = Slow(rig)
    exchange = rig.start(ask(stream=True), path=CHATS)
    # Its usage says less than what it said, so that it is counted.
    provider.says(chunk("word " * 200), chunk(choices=[], used=usage(10, 1)))
    await exchange.answer.until(lambda answer: b"word" in answer.body)
    call = next(iter(rig.plane.calls))
    await eventually(lambda: bool(call.relay.usage))  # type: ignore[attr-defined]
    busy = threading.Event()
    for _ in range(2):
        rig.plane.threads.submit(busy.wait)
    exchange.hang_up()
    await eventually(lambda: rig.plane.threads._work_queue.qsize() == 1)
    exchange.task.cancel()
    await asyncio.gather(exchange.task, return_exceptions=True)
    busy.set()
    assert len(rig.held()) == 1 and sum(one.attempt == 1 for one in rig.ended()) == 1
    rig.nothing_held()
