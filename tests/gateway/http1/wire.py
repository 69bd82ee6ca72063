"""A provider at the end of real sockets, and ways to call it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from llmops.gateway.attempts.upstream import Channel, Response
from llmops.gateway.http1.dialing import Dialer, Origin
from llmops.gateway.http1.pool import Pool
from tests.gateway.rig import a_credential, a_provider

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
CREDENTIAL = a_credential()


class Trial:
    whose = ""

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
