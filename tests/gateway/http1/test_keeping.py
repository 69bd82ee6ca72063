"""Connections are kept, shared, bounded, and given to whoever waited longest."""

from __future__ import annotations

import asyncio

import pytest

from llmops.gateway.attempts.failures import TIMEOUT
from llmops.gateway.attempts.upstream import Failed
from llmops.gateway.http1 import pool as pools
from tests.gateway.http1.wire import (
    CREDENTIAL,
    OK,
    REQUEST,
    Line,
    Provider,
    Trial,
    a_channel,
    a_pool,
    call,
    post,
    silent,
)
from tests.gateway.rig import eventually


async def test_calls_one_after_another_share_a_connection(provider: Provider) -> None:
    pool = a_pool(provider.port)
    assert [await call(pool) for _ in range(3)] == [b"ok"] * 3
    assert [line.requests for line in provider.lines] == [3]
    assert pool.figures == (0, 1, 0)
    await pool.close()
    await provider.lines[0].closed.wait()


async def test_the_connection_that_was_used_last_is_used_first(provider: Provider) -> None:
    pool = a_pool(provider.port)
    first, second = await pool.acquire(), await pool.acquire()
    for connection in (second, first):
        await connection.ask(REQUEST).read()
    assert pool.take() is first
    assert pool.take() is second
    assert pool.take() is None
    await pool.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"!",
        OK + OK,
    ],
)
async def test_a_connection_that_is_not_to_be_used_again_is_closed_at_once(
    provider: Provider, answer: bytes
) -> None:
    async def talk(line: Line) -> None:
        await line.request()
        await line.say(answer)
        await line.until_closed()

    provider.talk = talk
    pool = a_pool(provider.port)
    assert await call(pool) == b"ok"
    assert await call(pool) == b"ok"
    assert [line.requests for line in provider.lines] == [1, 1]
    for line in provider.lines:
        await asyncio.wait_for(line.closed.wait(), 5)
    assert pool.figures == (0, 0, 0)
    await pool.close()


async def test_a_connection_that_the_provider_closed_meanwhile_costs_no_call(provider: Provider) -> None:
    """The close has come, but the loop has not seen it yet: the call goes out over a fresh connection, once."""

    async def talk(line: Line) -> None:
        await line.request()
        await line.say(OK)

    provider.talk = talk
    pool = a_pool(provider.port)
    kept = await pool.acquire()
    await kept.ask(REQUEST).read()
    kept_transport = kept._transport
    assert kept_transport is not None
    kept_transport.pause_reading()
    await asyncio.wait_for(provider.lines[0].closed.wait(), 5)
    await asyncio.sleep(0.02)
    assert kept.open
    assert await call(pool) == b"ok"
    assert [line.requests for line in provider.lines] == [1, 1]
    await pool.close()


async def test_what_comes_unasked_closes_the_connection(provider: Provider) -> None:
    go = asyncio.Event()

    async def talk(line: Line) -> None:
        await line.request()
        await line.say(OK)
        await go.wait()
        await line.say(OK)
        await line.until_closed()

    provider.talk = talk
    pool = a_pool(provider.port)
    await call(pool)
    assert pool.figures == (0, 1, 0)
    go.set()
    await eventually(lambda: pool.figures == (0, 0, 0))
    await asyncio.wait_for(provider.lines[0].closed.wait(), 5)
    await pool.close()


async def test_an_idle_connection_is_closed_after_its_time(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "KEEP_S", 0.05)
    pool = a_pool(provider.port)
    await asyncio.gather(*(call(pool) for _ in range(3)))
    assert pool.figures == (0, 3, 0)
    await eventually(lambda: pool.figures == (0, 0, 0))
    for line in provider.lines:
        await asyncio.wait_for(line.closed.wait(), 5)
    assert await call(pool) == b"ok"
    await pool.close()


# ---------------------------------------------------------------------- bounded


async def test_no_more_connections_than_allowed_and_who_comes_first_is_served_first(
    provider: Provider,
) -> None:
    turns: list[int] = []
    at_once = most = 0

    async def talk(line: Line) -> None:
        nonlocal at_once, most
        while True:
            await line.request()
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.005)
            at_once -= 1
            await line.say(OK)

    provider.talk = talk
    pool = a_pool(provider.port, largest=2)

    async def one(number: int) -> None:
        connection = pool.take() or await pool.acquire()
        turns.append(number)
        await connection.ask(REQUEST).read()

    await asyncio.gather(*(one(number) for number in range(12)))
    assert sorted(turns[:2]) == [0, 1], "either of the first two may be connected first"
    assert turns[2:] == list(range(2, 12))
    assert most == 2
    assert len(provider.lines) == 2
    assert pool.figures == (0, 2, 0)
    await pool.close()


async def test_a_place_that_nobody_waits_for_any_more_goes_to_the_next(provider: Provider) -> None:
    pool = a_pool(provider.port, largest=1)
    connection = await pool.acquire()
    waiting = [asyncio.ensure_future(pool.acquire()) for _ in range(3)]
    await eventually(lambda: pool.figures[2] == 3)
    waiting[1].cancel()
    await asyncio.sleep(0)
    answer = connection.ask(REQUEST)
    await answer.read()
    # The first has its place already, and gives up before it could take it.
    waiting[0].cancel()
    await asyncio.wait(waiting)
    assert [one.cancelled() for one in waiting] == [True, True, False]
    assert pool.figures == (1, 0, 0)
    await waiting[2].result().ask(REQUEST).read()
    assert pool.figures == (0, 1, 0)
    await pool.close()


async def test_nobody_waits_for_a_place_longer_than_the_time_out(provider: Provider) -> None:
    provider.talk = silent
    channel = a_channel(provider, max_connections=1, pool_timeout_ms=30)
    held = asyncio.ensure_future(post(channel))
    await eventually(lambda: len(provider.lines) == 1)
    trial = Trial()
    with pytest.raises(Failed) as failed:
        await channel.send("/x", b"{}", CREDENTIAL, "call.1", trial)
    assert (failed.value.failure.kind, failed.value.failure.billed, trial.sent) == (TIMEOUT, False, False)
    held.cancel()
    await asyncio.wait([held])
    await channel.close()
