"""A provider that costs next to nothing: canned chat completions with their usage, at once, late, in pieces, or never.

A bare protocol rather than an ASGI application, because it shares a core with the load generator and must never be what is
measured. What ``POST /v1/chat/completions`` does is in the model's name:

| model | answer |
| --- | --- |
| ``slow-MS`` (as ``slow-50``) | after so many milliseconds, give or take a tenth, so that connections do not fall into step |
| ``hold`` | none, or with ``stream`` one piece and then none: until the connection is closed |
| ``paced`` | with ``stream``: as many pieces as ``seed`` says, ``PER_SECOND`` of them a second |
| any other | at once, with ``stream`` as many pieces as ``seed`` says, in one |

Each piece of a stream carries when it was written (``STAMP``). ``GET /served`` tells how many completions were answered,
``GET /held`` when the connection of each request to ``hold`` was closed, by its ``user``: ``{"user": nanoseconds}``, 0 while it is
open. Times are ``time.monotonic_ns``, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import re
import sys
import time
from typing import cast

import uvloop

from benchmarks.http1 import Malformed, message_end

PROMPT_TOKENS = 57
#: What is stated of a prompt of ``LARGE_BYTES`` and more: as much as its model holds of it, or it would be counted as understated.
LARGE_BYTES, LARGE_PROMPT_TOKENS = 500_000, 100_000
COMPLETION_TOKENS = 64
#: Of a stream, however long: no fewer than its pieces could be, or the data plane would not believe it.
STREAM_TOKENS = 2_048
#: Part of the answer's text: the load generator looks for it in every body.
MARK = b"All is quiet on the upstream"
#: When a piece was written, as it stands in the piece.
STAMP = re.compile(rb"@(\d{20})@")
#: What ends a whole stream.
END = b"data: [DONE]\n\n"
PER_SECOND = 20
#: Streams are written to in so many turns in each interval between two of their pieces.
TURNS = 10

_ANY_USAGE = (
    b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
    b'"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},'
    b'"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,'
    b'"rejected_prediction_tokens":0}}'
)
_USAGE = _ANY_USAGE % (PROMPT_TOKENS, COMPLETION_TOKENS, PROMPT_TOKENS + COMPLETION_TOKENS)
_LARGE_USAGE = _ANY_USAGE % (LARGE_PROMPT_TOKENS, COMPLETION_TOKENS, LARGE_PROMPT_TOKENS + COMPLETION_TOKENS)
_STREAM_USAGE = _ANY_USAGE % (PROMPT_TOKENS, STREAM_TOKENS, PROMPT_TOKENS + STREAM_TOKENS)
_BODY = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench-upstream-2024-01-01",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"' + MARK + b". " + b"word " * 56 + b'",'
    b'"refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":' + _USAGE + b',"service_tier":"default","system_fingerprint":"fp_bench"}'
)
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\n"
    b"openai-processing-ms: 1\r\ncontent-length: %d\r\n\r\n"
)
ANSWER = _HEAD % len(_BODY) + _BODY
_LARGE_BODY = _BODY.replace(_USAGE, _LARGE_USAGE)
_LARGE_ANSWER = _HEAD % len(_LARGE_BODY) + _LARGE_BODY
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_bench\r\n"
    b"openai-processing-ms: 1\r\ntransfer-encoding: chunked\r\n\r\n"
)
_EVENT = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"bench-upstream-2024-01-01","choices":[%b]%b}\n\n'
)
_DELTA = b'{"index":0,"delta":{"content":"%b"},"finish_reason":null}'


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


#: A piece around its stamp: all of them are equally long.
_PIECE = _chunked(_EVENT % (_DELTA % (b"word @" + b"0" * 20 + b"@ "), b"")).replace(b"0" * 20, b"%020d")
_FIRST = _chunked(_EVENT % (_DELTA % MARK, b""))
_STOP = _EVENT % (b'{"index":0,"delta":{},"finish_reason":"stop"}', b"")
_STREAM_END = _chunked(_STOP + _EVENT % (b"", b',"usage":' + _STREAM_USAGE) + END) + b"0\r\n\r\n"
_COMPLETION = b"POST /v1/chat/completions "
_MODEL, _USER = b'"model":"', b'"user":"'
_STREAMED = b'"stream":true'
_SEED = re.compile(rb'"seed":(\d+)')


class Wheel:
    """One timer for all paced streams: each has its turn ``PER_SECOND`` times a second."""

    def __init__(self) -> None:
        self._turns: list[list[Upstream]] = [[] for _ in range(TURNS)]
        self._next = 0
        self._task: asyncio.Task[None] | None = None

    def add(self, stream: Upstream) -> None:
        if self._task is None:
            self._task = asyncio.ensure_future(self._roll())
        # Spread evenly, whenever they come.
        min(self._turns, key=len).append(stream)

    async def _roll(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += 1 / PER_SECOND / TURNS
            await asyncio.sleep(max(0.0, due - loop.time()))
            turn = self._turns[self._next]
            self._turns[self._next] = [stream for stream in turn if stream.write_piece()]
            self._next = (self._next + 1) % TURNS


class Upstream(asyncio.Protocol):
    served = 0
    held: dict[str, int] = {}
    wheel = Wheel()

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        #: pieces that the stream under way still gets
        self._left = 0
        self._holding = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._holding:
            Upstream.held[self._holding] = time.monotonic_ns()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        assert self._transport is not None
        try:
            body, end = message_end(buffer)
        except Malformed as problem:
            print(problem, file=sys.stderr, flush=True)
            self._transport.abort()
            return
        if end < 0:
            return
        self._buffer = buffer[end:]
        if not buffer.startswith(_COMPLETION):
            self._tell(buffer)
            return
        model = _text(buffer, _MODEL, body, end)
        if buffer.find(_STREAMED, body, end) >= 0:
            self._stream(model, buffer, body, end)
        elif model.startswith("slow-"):
            delay = int(model.removeprefix("slow-"))
            self._loop.call_later(delay * random.uniform(0.9, 1.1) / 1000, self._answer)
        elif model == "hold":
            self._hold(_text(buffer, _USER, body, end))
        else:
            self._answer(_LARGE_ANSWER if end - body >= LARGE_BYTES else ANSWER)

    def _tell(self, request: bytes) -> None:
        assert self._transport is not None
        told = json.dumps(Upstream.held if request.startswith(b"GET /held") else Upstream.served).encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(told), told))

    def _hold(self, user: str) -> None:
        self._holding = user
        Upstream.held[user] = 0

    def _answer(self, answer: bytes = ANSWER) -> None:
        if self._transport is not None:
            Upstream.served += 1
            self._transport.write(answer)

    def _stream(self, model: str, buffer: bytes, body: int, end: int) -> None:
        assert self._transport is not None
        seed = _SEED.search(buffer, body, end)
        pieces = int(seed[1]) if seed else 1
        if model == "hold":
            self._hold(_text(buffer, _USER, body, end))
            self._transport.write(_STREAM_HEAD + _FIRST)
        elif model == "paced":
            self._left = pieces
            self._transport.write(_STREAM_HEAD + _FIRST)
            Upstream.wheel.add(self)
        else:
            stamped = (_PIECE % time.monotonic_ns()) * pieces
            Upstream.served += 1
            self._transport.write(_STREAM_HEAD + _FIRST + stamped + _STREAM_END)

    def write_piece(self) -> bool:
        """A turn of a paced stream; whether it goes on."""
        transport = self._transport
        if transport is None:
            return False
        if self._left:
            self._left -= 1
            transport.write(_PIECE % time.monotonic_ns())
            return True
        Upstream.served += 1
        transport.write(_STREAM_END)
        return False


def _text(buffer: bytes, name: bytes, start: int, end: int) -> str:
    """The text of a member of a compact JSON object; empty when it is not there."""
    at = buffer.find(name, start, end)
    if at < 0:
        return ""
    at += len(name)
    return buffer[at : buffer.index(b'"', at)].decode()


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    gc.freeze()
    gc.disable()
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1])))
