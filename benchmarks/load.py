"""A closed-loop load generator: so many keep-alive connections, each with one request in flight.

A bare protocol on uvloop: it spends about a tenth of what a client library would, so that the server is what is busy.
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import uvloop

from benchmarks.failure import BenchmarkFailed
from benchmarks.http1 import Malformed, message_end


@dataclass(frozen=True)
class Request:
    """What every connection sends, and what must stand in the body of every 200 that it gets."""

    host: str
    port: int
    data: bytes
    mark: bytes


@dataclass(frozen=True)
class Run:
    """``latencies`` are seconds, sorted; ``seconds`` is from the first request to the last answer. ``answers`` counts them by
    the place of the request among those that were given."""

    in_flight: int
    seconds: float
    latencies: list[float]
    answers: list[int]

    @property
    def requests(self) -> int:
        return len(self.latencies)

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    def percentile(self, share: float) -> float:
        """Seconds within which ``share`` (0 to 1) of the requests were answered."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


_SENTENCE = "The quick brown fox jumps over the lazy dog while the band plays on. "


def chat_request(
    *,
    host: str,
    port: int,
    model: str,
    key: str,
    mark: bytes,
    pieces: int = 0,
    user: str = "",
    prompt: int = 400,
    headers: Mapping[str, str] | None = None,
) -> Request:
    """A chat completion with the headers that the openai SDK sends. ``prompt``: characters of the question, a hundred words
    if not given; ``pieces``: as a stream of so many; ``user``: the end user it names; ``headers``: more of them."""
    text = (_SENTENCE * (prompt // len(_SENTENCE) + 1)).strip()
    more = f',"stream":true,"seed":{pieces}' if pieces else ""
    more += f',"user":"{user}"' if user else ""
    body = (
        '{"messages":[{"role":"system","content":"You are a terse assistant."},'
        f'{{"role":"user","content":"{text}"}}],'
        f'"model":"{model}","max_completion_tokens":{4_096 if pieces else 256},"temperature":0.2{more}}}'
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: application/json\r\n"
        "Content-Type: application/json\r\nUser-Agent: OpenAI/Python 3.52.0\r\n"
        f"Authorization: Bearer {key}\r\nx-stainless-lang: python\r\nx-stainless-retry-count: 0\r\n"
        + "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        + f"Content-Length: {len(body)}\r\n\r\n"
    )
    return Request(host, port, head.encode() + body, mark)


class _Connection(asyncio.Protocol):
    def __init__(self, generator: _Generator, request: Request, place: int) -> None:
        self._generator = generator
        self._request = request
        self._place = place
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._sent = 0.0
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._waiting:
            self._generator.fail(
                f"the connection was lost before the answer ({exc or 'closed by the server'})"
            )

    def send(self) -> None:
        if self._transport is None:
            self._generator.fail("the server closed a connection between two requests")
            return
        self._waiting = True
        self._sent = time.perf_counter()
        self._transport.write(self._request.data)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        try:
            body, end = message_end(buffer)
        except (Malformed, ValueError) as problem:
            self._generator.fail(str(problem))
            return
        if end < 0:
            return
        now = time.perf_counter()
        if not buffer.startswith(b"HTTP/1.1 200 ") or buffer.find(self._request.mark, body) < 0:
            self._generator.fail("not the answer of the upstream: " + buffer[:600].decode(errors="replace"))
            return
        self._buffer = b""
        self._waiting = False
        if self._generator.answered(self._place, now - self._sent, now):
            self.send()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Generator:
    def __init__(self, requests: Sequence[Request], most: float, loop: asyncio.AbstractEventLoop) -> None:
        self._requests = requests
        self.latencies: list[float] = []
        self.answers = [0] * len(requests)
        self.done: asyncio.Future[float] = loop.create_future()
        self._until = 0.0
        self._left = most
        self._running = 0

    async def run(self, in_flight: int, seconds: float, spread: float) -> Run:
        loop = asyncio.get_running_loop()
        connections = []
        for number in range(in_flight):
            place = number % len(self._requests)
            request = self._requests[place]
            _, connection = await loop.create_connection(
                lambda request=request, place=place: _Connection(self, request, place),  # type: ignore[misc]
                request.host,
                request.port,
            )
            connections.append(connection)
        try:
            self._running = in_flight
            begun = time.perf_counter()
            self._until = begun + seconds
            self._left -= in_flight
            for number, connection in enumerate(connections):
                loop.call_later(spread * number / in_flight, connection.send)
            ended = await asyncio.wait_for(self.done, seconds + 30)
        except TimeoutError:
            raise BenchmarkFailed("requests stayed without an answer for 30 s") from None
        finally:
            for connection in connections:
                connection.close()
        return Run(in_flight, ended - begun, sorted(self.latencies), self.answers)

    def answered(self, place: int, latency: float, now: float) -> bool:
        """Note an answer; whether its connection goes on."""
        self.latencies.append(latency)
        self.answers[place] += 1
        if now < self._until and self._left > 0:
            self._left -= 1
            return True
        self._running -= 1
        if self._running == 0 and not self.done.done():
            self.done.set_result(now)
        return False

    def fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(BenchmarkFailed(reason))


def run(
    request: Request | Sequence[Request],
    *,
    in_flight: int,
    seconds: float,
    spread: float = 0.0,
    most: float = math.inf,
) -> Run:
    """Send for so many seconds, ``most`` requests at most, and wait for the last answers. Of several requests each connection
    takes one in turn. The connections begin within ``spread`` seconds: over an upstream that always takes as long they would
    else go on in step, all of them waiting for each other every time.

    Raises ``BenchmarkFailed`` for any answer that is not a 200 with the mark in it, and for a lost connection.
    """

    requests = [request] if isinstance(request, Request) else request

    async def measured() -> Run:
        generator = _Generator(requests, most, asyncio.get_running_loop())
        return await generator.run(in_flight, seconds, spread)

    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(measured())
    finally:
        gc.enable()
