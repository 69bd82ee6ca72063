"""Large requests and large answers: nobody is overrun."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from llmops.gateway.attempts.failures import CUT, TIMEOUT
from llmops.gateway.attempts.upstream import Failed, read_whole
from llmops.gateway.http1 import connection as connections
from llmops.gateway.http1.answer import HIGH_WATER
from tests.gateway.http1.wire import OK, REQUEST, Line, Provider, a_channel, a_pool, post, upload
from tests.gateway.rig import eventually


async def test_a_reader_that_does_not_read_holds_the_provider_back(provider: Provider) -> None:
    size = 24 * 1024 * 1024
    written = 0

    async def talk(line: Line) -> None:
        nonlocal written
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // 65536):
            await line.say(bytes(65536))
            written += 65536
        await line.until_closed()

    provider.talk = talk
    pool = a_pool(provider.port, read_s=0.15)
    answer = (await pool.acquire()).ask(REQUEST)
    await answer.until_head()
    last = -1
    while written != last:
        last = written
        # Longer than the read time-out: it is the reader who is slow.
        await asyncio.sleep(0.3)
    assert written < size
    assert answer.waiting < HIGH_WATER + 512 * 1024
    total = 0
    while data := await answer.readany():
        total += len(data)
    assert total == size
    assert pool.figures == (0, 1, 0)
    await pool.close()


async def test_a_large_body_is_sent_whole(provider: Provider) -> None:
    body = os.urandom(3 * connections.PIECE + 17)
    got: list[bytes] = []

    async def talk(line: Line) -> None:
        while True:
            got.append((await line.request())[1])
            await line.say(OK)

    provider.talk = talk
    channel = a_channel(provider)
    for _ in range(2):
        assert await read_whole(await post(channel, body)) == b"ok"
    assert got == [body, body]
    assert len(provider.lines) == 1
    await channel.close()


async def a_stream(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


@pytest.mark.parametrize("length", [None, 9])
async def test_an_upload_goes_out_in_pieces(provider: Provider, length: int | None) -> None:
    got: list[tuple[str, bytes]] = []

    async def talk(line: Line) -> None:
        while True:
            got.append(await line.request())
            await line.say(OK)

    provider.talk = talk
    channel = a_channel(provider)
    for _ in range(2):
        assert await read_whole(await upload(channel, a_stream(b"one", b"", b"two", b"six"), length)) == b"ok"
    assert [body for _, body in got] == [b"onetwosix"] * 2
    assert ("Transfer-Encoding: chunked" in got[0][0]) == (length is None)
    assert len(provider.lines) == 1
    await channel.close()


@pytest.mark.parametrize("length", [8, 10])
async def test_an_upload_of_another_length_than_it_said_is_broken_off(
    provider: Provider, length: int
) -> None:
    channel = a_channel(provider)
    with pytest.raises(Failed) as failed:
        await upload(channel, a_stream(b"one", b"two", b"six"), length)
    assert failed.value.failure.kind == CUT
    await eventually(lambda: all(line.closed.is_set() for line in provider.lines))
    await channel.close()


async def test_an_upload_that_is_refused_early_ends_early(provider: Provider) -> None:
    async def talk(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await line.until_closed()

    made = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield b"x" * 1000
            await asyncio.sleep(0.001)

    provider.talk = talk
    channel = a_channel(provider)
    response = await upload(channel, endless())
    assert (response.status, await response.read()) == (413, b"no")
    await asyncio.wait_for(provider.lines[0].closed.wait(), 5)
    so_far = made
    await asyncio.sleep(0.05)
    assert made <= so_far + 1
    await channel.close()


async def test_a_provider_that_takes_nothing_is_waited_for_as_long_as_the_write_time_out(
    provider: Provider,
) -> None:
    stop = asyncio.Event()

    async def talk(line: Line) -> None:
        line.reader._limit = 1024  # type: ignore[attr-defined]
        await stop.wait()

    provider.talk = talk
    channel = a_channel(provider, write_timeout_ms=80, read_timeout_ms=60_000)
    with pytest.raises(Failed) as failed:
        await post(channel, bytes(32 * 1024 * 1024))
    assert (failed.value.failure.kind, failed.value.failure.billed) == (TIMEOUT, None)
    stop.set()
    await channel.close()


async def test_a_request_that_is_answered_before_it_is_out_ends_its_connection(provider: Provider) -> None:
    async def talk(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await line.say(OK)
        await asyncio.Event().wait()

    provider.talk = talk
    pool = a_pool(provider.port)
    size = 32 * 1024 * 1024
    connection = await pool.acquire()
    answer = connection.ask(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size + bytes(size))
    assert await answer.read() == b"ok"
    assert not connection.open
    assert pool.figures == (0, 0, 0)
    await pool.close()
