"""A provider that does what a test tells it, and the answers of the usual kind."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Asked:
    """A request as the upstream got it."""

    path: str
    headers: dict[str, str]
    body: bytes
    method: str = "POST"

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Reply:
    """The upstream's pen: raw bytes onto the connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def json(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        await self.head(
            status, {"content-type": "application/json", "content-length": str(len(body))} | (headers or {})
        )
        await self.raw(body)

    async def head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in headers.items())]
        await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n")

    async def events(self, *pieces: bytes, end: bool = True, kind: str = "text/event-stream") -> None:
        """A stream in these very pieces, each a chunk of its own."""
        await self.head(200, {"content-type": kind, "transfer-encoding": "chunked"})
        for piece in pieces:
            await self.chunk(piece)
        if end:
            await self.raw(b"0\r\n\r\n")

    async def chunk(self, piece: bytes) -> None:
        await self.raw(b"%x\r\n%b\r\n" % (len(piece), piece))

    def cut(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Asked, Reply], Awaitable[None]]


class Upstream:
    """Answers each request with the next of ``scripts``, the last one again and again."""

    def __init__(self) -> None:
        self.scripts: list[Script] = [answers("Hello")]
        self.asked: list[Asked] = []
        self.gone = asyncio.Event()
        self.url = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def does(self, *scripts: Script) -> None:
        self.scripts = list(scripts)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Upstream]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        try:
            yield self
        finally:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {
                    name.lower(): value
                    for name, _, value in (line.partition(": ") for line in head[1:] if line)
                }
                body = await self._body(reader, headers)
                method, path, _ = head[0].split(" ", 2)
                request = Asked(path, headers, body, method)
                self.asked.append(request)
                script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                watch = asyncio.ensure_future(reader.read(1))
                work = asyncio.ensure_future(script(request, Reply(writer)))
                try:
                    await asyncio.wait({watch, work}, return_when=asyncio.FIRST_COMPLETED)
                    if watch.done() and not work.done():
                        self.gone.set()
                        return
                    await work
                finally:
                    work.cancel()
                    watch.cancel()
                    await asyncio.gather(work, watch, return_exceptions=True)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        except asyncio.CancelledError:
            # The test is over.
            return
        finally:
            self._tasks.discard(task)
            writer.close()

    @staticmethod
    async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
                parts.append(await reader.readexactly(size))
                await reader.readline()
            await reader.readline()
            return b"".join(parts)
        return await reader.readexactly(int(headers.get("content-length", "0")))


def usage(prompt: int = 10, completion: int = 5, **details: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if "cached" in details:
        shown["prompt_tokens_details"] = {"cached_tokens": details["cached"]}
    if "reasoning" in details:
        shown["completion_tokens_details"] = {"reasoning_tokens": details["reasoning"]}
    return shown


def completion(text: str = "Hello", used: Any = None, **changes: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "sim-small-2024",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": usage() if used is None else used,
    } | changes


def answers(text: str = "Hello", used: Any = None, **changes: Any) -> Script:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(completion(text, used, **changes))

    return script


def fails(
    status: int, code: str | None = None, message: str = "no", headers: dict[str, str] | None = None
) -> Script:
    async def script(asked: Asked, reply: Reply) -> None:
        error = {"message": message, "type": "some_error", "param": None, "code": code}
        await reply.json({"error": error}, status, headers)

    return script


def streams(*pieces: bytes, end: bool = True) -> Script:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(*pieces, end=end)

    return script


async def hangs(asked: Asked, reply: Reply) -> None:
    await asyncio.Event().wait()


async def cuts(asked: Asked, reply: Reply) -> None:
    reply.cut()


def chunk(
    text: str | None = None, *, finish: str | None = None, used: Any = "absent", **changes: Any
) -> bytes:
    """One event of a chat stream, as OpenAI writes it."""
    delta = {} if text is None else {"content": text}
    shown: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "sim-small-2024",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    } | changes
    if used != "absent":
        shown["usage"] = used
    return b"data: " + json.dumps(shown, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def usage_chunk(**used: int) -> bytes:
    return chunk(choices=[], used=usage(**used))
