"""Clients that do not read, providers that do not stop, a process without room: nobody else pays for them."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmops.core import tokens
from llmops.gateway import stalling
from llmops.gateway.attempts.failures import EXHAUSTED
from llmops.gateway.streaming import events
from tests.gateway.rig import (
    KEY,
    Asked,
    Exchange,
    Reply,
    Rig,
    Upstream,
    a_budget,
    a_route,
    ask,
    chunk,
    eventually,
)


class Deaf(Exchange):
    """A client that takes ``most`` pieces and then no more, and does not hang up."""

    most = 3

    async def _send(self, message: dict[str, Any]) -> None:
        if len(self.answer.pieces) >= self.most:
            await asyncio.Event().wait()
        await super()._send(message)


def deaf(rig: Rig) -> Deaf:
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    return Deaf(
        rig.app, "POST", "/v1/chat/completions", [msgspec.json.encode(ask("chat", stream=True))], headers
    )


async def test_a_client_that_does_not_even_take_comments_is_gone_too(rig: Rig, upstream: Upstream) -> None:
    rig.configure(budgets=[a_budget()], routes=[a_route("chat", "small", keep_alive_s=0.01)])

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(chunk("word "), end=False)
        await asyncio.Event().wait()

    upstream.does(script)
    one = deaf(rig)
    await one.answer.until(lambda answer: len(answer.pieces) == Deaf.most)
    await eventually(lambda: any(call.blocked for call in rig.plane.calls))
    now = time.monotonic()
    rig.plane.stalls.tick(rig.plane.calls, now)
    rig.plane.stalls.tick(rig.plane.calls, now + stalling.STALLED_S + stalling.EVERY_S)
    await asyncio.wait_for(upstream.gone.wait(), 5)
    await eventually(lambda: not rig.plane.calls)
    await asyncio.gather(one.task, return_exceptions=True)


async def test_a_client_that_does_not_read_is_gone_after_a_while(rig: Rig, upstream: Upstream) -> None:
    # Comments that keep a connection alive are nothing that a client takes.
    route = a_route("chat", "small", keep_alive_s=0.01)
    rig.configure(budgets=[a_budget()], routes=[route])

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(end=False)
        while True:
            await reply.chunk(chunk("word "))
            await asyncio.sleep(0.001)

    upstream.does(script)
    one = deaf(rig)
    await one.answer.until(lambda answer: len(answer.pieces) == Deaf.most)
    await eventually(lambda: any(call.blocked for call in rig.plane.calls))
    now = time.monotonic()
    rig.plane.stalls.tick(rig.plane.calls, now)
    await asyncio.sleep(0.05)
    rig.plane.stalls.tick(rig.plane.calls, now + stalling.STALLED_S - 1)
    await asyncio.sleep(0.05)
    assert not upstream.gone.is_set()
    rig.plane.stalls.tick(rig.plane.calls, now + stalling.STALLED_S + stalling.EVERY_S)
    await asyncio.wait_for(upstream.gone.wait(), 5)
    await eventually(lambda: not rig.plane.calls)
    outcome = rig.outcome()
    assert (outcome.status, outcome.tokens.output > 0) == ("client_closed", True)
    rig.nothing_held()
    await asyncio.gather(one.task, return_exceptions=True)


async def test_a_client_that_reads_slowly_or_waits_for_its_provider_stays(
    rig: Rig, upstream: Upstream
) -> None:
    go_on = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(chunk("a"), end=False)
        await go_on.wait()
        await reply.chunk(chunk(finish="stop"))
        await reply.chunk(b"data: [DONE]\n\n")

    upstream.does(script)
    exchange = rig.start(ask(stream=True))
    await exchange.answer.until(lambda answer: bool(answer.pieces))
    now = time.monotonic()
    for later in range(0, 1_000, 10):
        rig.plane.stalls.tick(rig.plane.calls, now + later)
    go_on.set()
    assert (await exchange.done()).body.endswith(b"[DONE]\n\n")


async def test_progress_counts_from_where_it_stopped_last() -> None:
    class Call:
        id, blocked = "1", 1
        fired = ""
        watch = property(lambda self: self)

        def fire(self, reason: str) -> None:
            self.fired = reason

    call, stalls = Call(), stalling.Stalls()
    for at in range(0, 1_000, 5):
        call.blocked = 1 + at // 50
        stalls.tick([call], float(at))
    assert not call.fired
    for at in range(1_000, 1_070, 5):
        stalls.tick([call], float(at))
    assert call.fired == "client"


async def test_a_provider_that_never_stops_is_stopped(
    rig: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_TEXT", 1_000_000)

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(end=False)
        piece = chunk("word " * 1_000)
        while True:
            await reply.chunk(piece)

    upstream.does(script)
    rig.configure(budgets=[a_budget(limit_nano=100 * 10**9)])
    answer = await rig.chat(stream=True)
    assert b"more than any answer holds" in answer.body
    assert b"[DONE]" not in answer.body
    await asyncio.wait_for(upstream.gone.wait(), 5)
    assert rig.outcome().code == "stream_interrupted"
    rig.nothing_held()


async def test_a_process_without_room_for_connections_blames_no_provider(
    rig: Rig, upstream: Upstream
) -> None:
    tokens.count_text("loaded before", "gpt-4o")
    rig.configure(routes=[a_route("chat", "small", attempts=2, breaker_min_calls=1)])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Whatever else was opened by now stays open, and nothing new is.
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(int(one.name) for one in Path("/proc/self/fd").iterdir()), hard)
    )
    try:
        filled = []
        try:
            while True:
                filled.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        answers = [await rig.chat(model="chat") for _ in range(3)]
    finally:
        for one in filled:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for answer in answers:
        assert (answer.status, answer.error["code"]) == (503, "service_unavailable")
        assert answer.headers["retry-after"] == "1"
    assert {one.code for end in rig.ended() if end.outcome for one in end.outcome.attempts} == {
        f"upstream_{EXHAUSTED}"
    }
    assert (await rig.chat(model="chat")).status == 200, "no breaker is open"
    assert sum(one.cost for one in rig.ended()) == rig.ended()[-1].cost
