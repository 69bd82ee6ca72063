"""A provider that costs next to nothing: one canned chat completion with its usage, at once or after a delay.

A bare protocol rather than an ASGI application, because it shares a core with the load generator and must never be
what is measured. ``POST /v1/chat/completions`` answers at once; the model ``slow-MS`` (as ``slow-50``) answers after
so many milliseconds, give or take a tenth, so that connections do not fall into step; any other request is told how
many completions were answered.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from typing import cast

import uvloop

from benchmarks.http1 import Malformed, message_end

PROMPT_TOKENS = 57
COMPLETION_TOKENS = 64
#: Part of the answer's text: the load generator looks for it in every body.
MARK = b"All is quiet on the upstream"
_BODY = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench-upstream-2024-01-01",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"' + MARK + b". " + b"word " * 56 + b'",'
    b'"refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
    b'"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},'
    b'"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,'
    b'"rejected_prediction_tokens":0}},"service_tier":"default","system_fingerprint":"fp_bench"}'
    % (PROMPT_TOKENS, COMPLETION_TOKENS, PROMPT_TOKENS + COMPLETION_TOKENS)
)
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\n"
    b"openai-processing-ms: 1\r\ncontent-length: %d\r\n\r\n"
)
ANSWER = _HEAD % len(_BODY) + _BODY
_COMPLETION = b"POST /v1/chat/completions "
_SLOW = b'"slow-'


class Upstream(asyncio.Protocol):
    served = 0

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

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
            count = b"%d" % Upstream.served
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(count), count))
            return
        slow = buffer.find(_SLOW, body, end)
        if slow < 0:
            self._answer()
        else:
            delay = int(buffer[slow + len(_SLOW) : buffer.index(b'"', slow + 1)])
            self._loop.call_later(delay * random.uniform(0.9, 1.1) / 1000, self._answer)

    def _answer(self) -> None:
        if self._transport is not None:
            Upstream.served += 1
            self._transport.write(ANSWER)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=1024)
    gc.freeze()
    gc.disable()
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1])))
