"""Connections to a provider over real sockets: kept and shared, bounded, given up without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop

from llmops.gateway.attempts.failures import CONNECT, CUT, TIMEOUT
from llmops.gateway.attempts.upstream import Channel, Failed, Response, read_whole
from llmops.gateway.http1 import connection as connections
from llmops.gateway.http1 import pool as pools
from llmops.gateway.http1.answer import HIGH_WATER
from llmops.gateway.http1.dialing import Dialer, Origin
from llmops.gateway.http1.pool import NoConnection, NoConnectionInTime, Pool
from llmops.providers.guarded_resolver import GuardedResolver
from tests.gateway.rig import a_credential, a_provider, eventually

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
#: On the loop of production as well; pytest-asyncio's newer way would turn to every test of the run.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")
LOOPS: dict[str, asyncio.AbstractEventLoopPolicy] = {
    "asyncio": asyncio.DefaultEventLoopPolicy(),
    "uvloop": uvloop.EventLoopPolicy(),
}
CREDENTIAL = a_credential()


@pytest.fixture(params=LOOPS)
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return LOOPS[request.param]


class Trial:
    def __init__(self) -> None:
        self.sent = False


Talk = Callable[["Line"], Awaitable[None]]


class Line:
    """A connection as the provider has it. ``number`` counts from 1; ``closed`` once the other side is gone."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer
        self.closed = asyncio.Event()
        self.requests = 0

    async def request(self) -> tuple[str, bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        self.requests += 1
        named = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        if named.get("transfer-encoding") != "chunked":
            return head, await self.reader.readexactly(int(named.get("content-length", "0")))
        parts = []
        while size := int(await self.reader.readline(), 16):
            parts.append(await self.reader.readexactly(size))
            await self.reader.readline()
        await self.reader.readline()
        return head, b"".join(parts)

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until_closed(self) -> None:
        while await self.reader.read(65536):
            pass


async def always_ok(line: Line) -> None:
    while True:
        await line.request()
        await line.say(OK)


async def silent(line: Line) -> None:
    await line.request()
    await line.until_closed()


class Provider:
    def __init__(self) -> None:
        self.talk: Talk = always_ok
        self.lines: list[Line] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        line = Line(len(self.lines) + 1, reader, writer)
        self.lines.append(line)
        try:
            await self.talk(line)
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            line.closed.set()
            writer.close()
            self._tasks.discard(task)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    await made.start()
    yield made
    await made.stop()


def a_pool(port: int, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, **changes: Any) -> Pool:
    given = {"largest": 10, "pool_s": 5.0, "connect_s": 5.0, "read_s": 5.0, "write_s": 5.0} | changes
    dialer = Dialer(Origin(tls is not None, host, port), allow_private=True, tls=tls)
    return Pool(dialer, **given)


async def call(pool: Pool) -> bytes:
    connection = pool.take() or await pool.acquire()
    answer = connection.ask(REQUEST)
    await answer.until_head()
    return await answer.read()


def a_channel(provider: Provider, **changes: Any) -> Channel:
    return Channel(a_provider(base_url=f"http://127.0.0.1:{provider.port}/v1", **changes))


async def post(channel: Channel, body: bytes = b"{}") -> Response:
    return await channel.send("/chat/completions", body, CREDENTIAL, "call.1", Trial())


async def upload(channel: Channel, pieces: AsyncIterator[bytes], length: int | None = None) -> Response:
    headers = [] if length is None else [("Content-Length", str(length))]
    return await channel.forward("POST", "/files", b"", headers, pieces, CREDENTIAL, "call.1", Trial())


# ---------------------------------------------------------------------- kept and shared


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
    assert turns == list(range(12))
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


# ---------------------------------------------------------------------- time-outs and breaks


async def test_silence_is_borne_for_the_read_time_out_and_any_byte_begins_it_anew(provider: Provider) -> None:
    async def talk(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        for _ in range(6):
            await asyncio.sleep(0.06)
            await line.say(b"x")
        await line.until_closed()

    provider.talk = talk
    channel = a_channel(provider, read_timeout_ms=200)
    response = await post(channel)
    came = b""
    with pytest.raises(TimeoutError):
        while True:
            came += await response.content.readany()
    assert came == b"x" * 6
    await asyncio.wait_for(provider.lines[0].closed.wait(), 5)
    await channel.close()


async def test_a_time_out_before_the_head_may_have_been_billed(provider: Provider) -> None:
    provider.talk = silent
    channel = a_channel(provider, read_timeout_ms=40)
    trial = Trial()
    with pytest.raises(Failed) as failed:
        await channel.send("/x", b"{}", CREDENTIAL, "call.1", trial)
    assert (failed.value.failure.kind, failed.value.failure.billed, trial.sent) == (TIMEOUT, None, True)
    await asyncio.wait_for(provider.lines[0].closed.wait(), 5)
    await channel.close()


async def test_a_cut_before_the_head_is_not_sent_again(provider: Provider) -> None:
    async def talk(line: Line) -> None:
        await line.request()
        line.writer.transport.abort()

    provider.talk = talk
    channel = a_channel(provider)
    with pytest.raises(Failed) as failed:
        await post(channel)
    assert (failed.value.failure.kind, failed.value.failure.billed) == (CUT, None)
    assert len(provider.lines) == 1
    await channel.close()


async def test_nobody_listening_costs_nothing() -> None:
    with socket.socket() as shut:
        shut.bind(("127.0.0.1", 0))
        channel = Channel(a_provider(base_url=f"http://127.0.0.1:{shut.getsockname()[1]}/v1"))
        trial = Trial()
        with pytest.raises(Failed) as failed:
            await channel.send("/x", b"{}", CREDENTIAL, "call.1", trial)
    assert (failed.value.failure.kind, failed.value.failure.billed, trial.sent) == (CONNECT, False, False)
    await channel.close()


@pytest.mark.parametrize("secret", ["a\r\nx-more: 1", "a\nb", "a\x00b"])
async def test_a_credential_cannot_add_a_field(provider: Provider, secret: str) -> None:
    channel = a_channel(provider)
    trial = Trial()
    with pytest.raises(Failed) as failed:
        await channel.send("/x", b"{}", a_credential(secret=secret), "call.1", trial)
    assert (failed.value.failure.kind, trial.sent, provider.lines) == (CONNECT, False, [])
    with pytest.raises(Failed):
        await channel.forward("GET", "/x", b"a=b c", [], None, CREDENTIAL, "call.1", trial)
    with pytest.raises(Failed):
        await channel.forward("GET", "/x", b"", [("x-a", secret)], None, CREDENTIAL, "call.1", trial)
    assert provider.lines == []
    await channel.close()


# ---------------------------------------------------------------------- back-pressure


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


# ---------------------------------------------------------------------- given up without a trace


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
    gc.collect()
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_a_dial_that_is_cancelled_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = asyncio.Event()

    async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> Any:
        waiting.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(GuardedResolver, "resolve", resolve)
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


# ---------------------------------------------------------------------- names and certificates


async def test_a_name_is_looked_up_once_in_a_while_and_the_judged_address_is_dialled(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> list[dict[str, Any]]:
        asked.append(host)
        await asyncio.sleep(0)
        # Nobody asks the system a second time: it would not know this name.
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET}]

    monkeypatch.setattr(GuardedResolver, "resolve", resolve)
    pool = a_pool(provider.port, host="models.example.com")
    assert await asyncio.gather(*(call(pool) for _ in range(5))) == [b"ok"] * 5
    assert asked == ["models.example.com"]
    await pool.close()


async def test_where_nobody_answers_the_name_is_looked_up_again(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as shut:
        shut.bind(("127.0.0.1", 0))
        ports = [shut.getsockname()[1], provider.port]

        async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> list[dict[str, Any]]:
            at = ports.pop(0)
            return [{"hostname": host, "host": "127.0.0.1", "port": at, "family": socket.AF_INET}]

        monkeypatch.setattr(GuardedResolver, "resolve", resolve)
        pool = a_pool(provider.port, host="models.example.com")
        with pytest.raises(OSError):
            await call(pool)
        assert await call(pool) == b"ok"
    await pool.close()


def a_certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A certificate that vouches for itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    shown, secret = directory / "certificate.pem", directory / "key.pem"
    shown.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return shown, secret


@pytest.mark.parametrize("host", ["models.example.com", "models.example.com.", "other.example.com"])
async def test_a_certificate_must_be_for_the_name_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> list[dict[str, Any]]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET}]

    monkeypatch.setattr(GuardedResolver, "resolve", resolve)
    certificate, key = a_certificate(tmp_path, "models.example.com")
    told: list[str | None] = []
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate, key)
    served.set_alpn_protocols(["h2", "http/1.1"])
    served.sni_callback = lambda _socket, name, _context: told.append(name)
    provider = Provider()
    await provider.start(served)
    trusting = ssl.create_default_context(cafile=str(certificate))
    trusting.set_alpn_protocols(["http/1.1"])
    pool = a_pool(provider.port, host=host, tls=trusting)
    if host.startswith("other"):
        with pytest.raises(ssl.SSLCertVerificationError):
            await pool.acquire()
        assert pool.figures == (0, 0, 0)
    else:
        assert [await call(pool) for _ in range(3)] == [b"ok"] * 3
        assert told == ["models.example.com"]
        tls = provider.lines[0].writer.get_extra_info("ssl_object")
        assert tls.selected_alpn_protocol() == "http/1.1"
        assert len(provider.lines) == 1
    await pool.close()
    await provider.stop()


async def test_a_stranger_s_certificate_fails_the_call_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = a_certificate(tmp_path, "localhost")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate, key)
    provider = Provider()
    await provider.start(served)
    channel = Channel(a_provider(base_url=f"https://localhost:{provider.port}/v1"))
    trial = Trial()
    with pytest.raises(Failed) as failed:
        await channel.send("/x", b"{}", CREDENTIAL, "call.1", trial)
    assert (failed.value.failure.kind, failed.value.failure.billed, trial.sent) == (CONNECT, False, False)
    await channel.close()
    await provider.stop()
