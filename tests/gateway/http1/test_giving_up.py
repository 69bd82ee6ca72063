"""Calls that are given up, wherever they got to, leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from llmops.gateway.attempts.upstream import Channel, read_whole
from llmops.gateway.http1.pool import NoConnection, NoConnectionInTime
from llmops.providers.guarded_names import GuardedNames
from tests.gateway.http1.wire import (
    OK,
    REQUEST,
    Line,
    Provider,
    Talk,
    a_channel,
    a_pool,
    call,
    post,
    silent,
    upload,
)
from tests.gateway.rig import eventually


async def half_head(line: Line) -> None:
    await line.request()
    await line.say(b"HTTP/1.1 200 OK\r\ncontent-")
    await line.until_closed()


async def half_body(line: Line) -> None:
    await line.request()
    await line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab")
    await line.until_closed()


async def half_chunk(line: Line) -> None:
    await line.request()
    await line.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab")
    await line.until_closed()


async def reads_nothing(line: Line) -> None:
    await asyncio.Event().wait()


async def whole(channel: Channel) -> None:
    await read_whole(await post(channel))


async def event_by_event(channel: Channel) -> None:
    response = await post(channel)
    while await response.content.readany():
        pass


async def large(channel: Channel) -> None:
    await post(channel, bytes(32 * 1024 * 1024))


async def slow_upload(channel: Channel) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    await upload(channel, pieces())


STEPS: dict[str, tuple[Talk, Callable[[Channel], Awaitable[None]]]] = {
    "before the head": (silent, whole),
    "within the head": (half_head, whole),
    "within the body": (half_body, whole),
    "within a chunk": (half_chunk, event_by_event),
    "while a large request is written": (reads_nothing, large),
    "while an upload waits for its client": (half_head, slow_upload),
}


def open_files() -> int:
    shown = Path("/proc/self/fd")
    return sum(1 for _ in shown.iterdir()) if shown.exists() else 0


@pytest.mark.parametrize("step", STEPS)
async def test_a_call_that_is_cancelled_leaves_nothing_behind(provider: Provider, step: str) -> None:
    provider.talk, work = STEPS[step]
    channel = a_channel(provider)
    pool = channel._pool
    assert pool is not None
    for _ in range(3):
        task = asyncio.ensure_future(work(channel))
        known = len(provider.lines)
        await eventually(lambda known=known: len(provider.lines) > known)  # type: ignore[misc]
        await asyncio.sleep(0.03)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Whoever answers calls closes the answer that it has.
        if work in (whole, event_by_event) and step.startswith("within") and step != "within the head":
            for connection in list(pool._all):
                connection.abandon()
        if provider.talk is not reads_nothing:
            await asyncio.wait_for(provider.lines[-1].closed.wait(), 5)
        assert pool.figures == (0, 0, 0)
        assert pool._all == set()
    await channel.close()
    await provider.stop()
    # What is older is not of this test, and looking through all of it takes longer than the test.
    gc.collect(1)
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_a_dial_that_is_cancelled_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = asyncio.Event()

    async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> Any:
        waiting.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(GuardedNames, "resolve", resolve)
    pool = a_pool(9, host="models.example.com")
    task = asyncio.ensure_future(pool.acquire())
    await asyncio.wait_for(waiting.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.figures == (0, 0, 0)
    await pool.close()
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})


@pytest.mark.parametrize("how", ["cancelled", "late"])
async def test_a_handshake_that_does_not_end_leaves_nothing_behind(provider: Provider, how: str) -> None:
    async def deaf(line: Line) -> None:
        await line.until_closed()

    provider.talk = deaf
    pool = a_pool(
        provider.port, tls=ssl.create_default_context(), connect_s=0.1 if how == "late" else 30.0, largest=1
    )
    before = open_files()
    for _ in range(3):
        task = asyncio.ensure_future(pool.acquire())
        known = len(provider.lines)
        await eventually(lambda known=known: len(provider.lines) > known)  # type: ignore[misc]
        if how == "cancelled":
            task.cancel()
        with pytest.raises((asyncio.CancelledError, NoConnectionInTime)):
            await task
        await asyncio.wait_for(provider.lines[-1].closed.wait(), 5)
        assert pool.figures == (0, 0, 0)
    await eventually(lambda: open_files() <= before)
    await pool.close()


async def test_a_closed_pool_makes_no_more_connections_and_ends_those_in_use_with_their_answers(
    provider: Provider,
) -> None:
    go = asyncio.Event()

    async def talk(line: Line) -> None:
        await line.request()
        await go.wait()
        await line.say(OK)
        await line.until_closed()

    provider.talk = talk
    pool = a_pool(provider.port)
    connection = await pool.acquire()
    answer = connection.ask(REQUEST)
    await eventually(lambda: len(provider.lines) == 1)
    await pool.close()
    with pytest.raises(NoConnection):
        await pool.acquire()
    go.set()
    assert await answer.read() == b"ok"
    await asyncio.wait_for(provider.lines[0].closed.wait(), 5)
    assert pool.figures == (0, 0, 0)


async def test_many_calls_of_which_many_are_cancelled_keep_the_pool_sound(provider: Provider) -> None:
    async def talk(line: Line) -> None:
        while True:
            await line.request()
            await asyncio.sleep(0.001 * (line.requests % 4))
            await line.say(OK)

    provider.talk = talk
    pool = a_pool(provider.port, largest=4)

    async def one(number: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.002 * (number % 7) if number % 3 else 10):
                connection = pool.take() or await pool.acquire()
                answer = connection.ask(REQUEST)
                try:
                    assert await answer.read() == b"ok"
                finally:
                    answer.close()

    for _ in range(4):
        await asyncio.gather(*(one(number) for number in range(60)))
        taken, idle, queue = pool.figures
        assert (taken, queue) == (0, 0)
        assert idle <= 4
        assert len(pool._all) == idle
    assert await call(pool) == b"ok"
    await pool.close()
