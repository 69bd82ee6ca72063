"""What a provider can do wrong, as scripts for the rig's upstream. Each fault is a line in ``FAULTS``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.gateway.faults.endpoints import ABSENT, Endpoint
from tests.gateway.rig import SECRET, Asked, Reply, Script, cuts, hangs

#: What the provider asks the console to wait for.
RETRY_AFTER_S = 0.03
#: Providers that fall silent are waited for so long.
SILENCE_MS = 120

Make = Callable[[Endpoint, bool], Script]


@dataclass(frozen=True)
class Fault:
    """``script`` for an endpoint, plain or streamed. ``silent``: it is found out by the read time-out.

    ``stated`` are the tokens (input, output) that the answer's usage says. ``plain`` and ``stream`` say where the fault
    exists at all.
    """

    script: Make
    silent: bool = False
    stated: tuple[int, int] = (10, 5)
    plain: bool = True
    stream: bool = True


def good(endpoint: Endpoint, streamed: bool, used: Any = None) -> Script:
    """No fault: the whole answer, with right usage or the one given."""
    used = endpoint.usage(10, 5) if used is None else used

    async def script(asked: Asked, reply: Reply) -> None:
        if streamed:
            assert endpoint.events is not None
            await reply.events(*endpoint.events(used))
        else:
            await reply.json(endpoint.body(used), headers={"content-type": endpoint.kind})

    return script


def _refuses(status: int, code: str | None, **headers: str) -> Make:
    """An error in OpenAI's shape, by a provider that repeats the key in its message."""
    error = {"message": f"No, not with {SECRET}", "type": "some_error", "param": None, "code": code}

    async def script(asked: Asked, reply: Reply) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        await reply.json({"error": error}, status, named)

    return lambda endpoint, streamed: script


def _always(script: Script) -> Make:
    return lambda endpoint, streamed: script


def _body(content: bytes, kind: str = "application/json", status: int = 200) -> Make:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(content, status, {"content-type": kind})

    return _always(script)


def _half_body(endpoint: Endpoint) -> bytes:
    body = endpoint.body(endpoint.usage(10, 5))
    return body[: len(body) // 2]


def _half_stream(endpoint: Endpoint) -> list[bytes]:
    assert endpoint.events is not None
    events = endpoint.events(endpoint.usage(10, 5))
    return events[: len(events) // 2]


def _breaks(then: Callable[[Reply], Any]) -> Make:
    """Half of an answer, then something."""

    def make(endpoint: Endpoint, streamed: bool) -> Script:
        async def script(asked: Asked, reply: Reply) -> None:
            if streamed:
                await reply.events(*_half_stream(endpoint), end=False)
            else:
                head = {"content-type": endpoint.kind, "content-length": "100000"}
                await reply.head(200, head)
                await reply.raw(_half_body(endpoint))
            # What came is relayed before the rest is met.
            await asyncio.sleep(0.01)
            await then(reply)

        return script

    return make


async def _cut(reply: Reply) -> None:
    reply.cut()


async def _silence(reply: Reply) -> None:
    await asyncio.Event().wait()


def _ends_early(endpoint: Endpoint, streamed: bool) -> Script:
    """A proper end of the message in the middle of the answer."""

    async def script(asked: Asked, reply: Reply) -> None:
        if streamed:
            await reply.events(*_half_stream(endpoint))
        else:
            await reply.json(_half_body(endpoint), headers={"content-type": endpoint.kind})

    return script


def _half_event(endpoint: Endpoint, streamed: bool) -> Script:
    async def script(asked: Asked, reply: Reply) -> None:
        *before, last = _half_stream(endpoint)
        await reply.events(*before, last[: len(last) // 2])

    return script


def _invalid_json(endpoint: Endpoint, streamed: bool) -> Script:
    async def script(asked: Asked, reply: Reply) -> None:
        if streamed:
            await reply.events(*_half_stream(endpoint), b'data: {"choices": [}\n\n')
        else:
            await reply.json(b'{"choices": [}')

    return script


def _invalid_at_once(endpoint: Endpoint, streamed: bool) -> Script:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(b'data: {"choices": [}\n\n')

    return script


def _error_event(endpoint: Endpoint, streamed: bool) -> Script:
    async def script(asked: Asked, reply: Reply) -> None:
        error = {"message": f"overloaded {SECRET}", "type": "server_error", "code": None}
        event = b"data: " + json.dumps({"error": error}).encode() + b"\n\n"
        await reply.events(*_half_stream(endpoint), event)

    return script


def _slowly(endpoint: Endpoint, streamed: bool) -> Script:
    """Piece after piece with a pause before each."""

    async def script(asked: Asked, reply: Reply) -> None:
        if streamed:
            assert endpoint.events is not None
            await reply.events(end=False)
            for event in endpoint.events(endpoint.usage(10, 5)):
                await asyncio.sleep(0.01)
                await reply.chunk(event)
            await reply.raw(b"0\r\n\r\n")
            return
        body = endpoint.body(endpoint.usage(10, 5))
        await reply.head(200, {"content-type": endpoint.kind, "content-length": str(len(body))})
        for start in range(0, len(body), 50):
            await asyncio.sleep(0.01)
            await reply.raw(body[start : start + 50])

    return script


def _states(prompt: int, output: int) -> Make:
    return lambda endpoint, streamed: good(endpoint, streamed, endpoint.usage(prompt, output))


def _states_nothing(endpoint: Endpoint, streamed: bool) -> Script:
    return good(endpoint, streamed, ABSENT)


def _states_text(endpoint: Endpoint, streamed: bool) -> Script:
    used = {name: str(value) for name, value in endpoint.usage(10, 5).items()}
    return good(endpoint, streamed, used)


FAULTS: dict[str, Fault] = {
    "none": Fault(good),
    # refused
    "429 with Retry-After": Fault(
        _refuses(429, "rate_limit_exceeded", retry_after_ms=str(int(RETRY_AFTER_S * 1000)))
    ),
    "429 quota used up": Fault(_refuses(429, "insufficient_quota")),
    "500": Fault(_refuses(500, None)),
    "503": Fault(_refuses(503, None)),
    "401": Fault(_refuses(401, "invalid_api_key")),
    "403": Fault(_refuses(403, "unsupported_country")),
    "404 model": Fault(_refuses(404, "model_not_found")),
    "400": Fault(_refuses(400, "invalid_value")),
    "422": Fault(_refuses(422, None)),
    "context length": Fault(_refuses(400, "context_length_exceeded")),
    "content filter": Fault(_refuses(400, "content_filter")),
    "a redirect": Fault(_refuses(307, None, location="http://127.0.0.1:1/")),
    # no answer
    "hang": Fault(_always(hangs), silent=True),
    "drop": Fault(_always(cuts)),
    # half an answer
    "hang midway": Fault(_breaks(_silence), silent=True),
    "drop midway": Fault(_breaks(_cut)),
    "end midway": Fault(_ends_early),
    "half an event": Fault(_half_event, plain=False),
    "error event midway": Fault(_error_event, plain=False),
    # no sense
    "invalid JSON": Fault(_invalid_json),
    "invalid JSON at once": Fault(_invalid_at_once, plain=False),
    "HTML": Fault(_body(b"<html><h1>Bad Gateway</h1></html>", "text/html")),
    "HTML with 502": Fault(_body(b"<html><h1>Bad Gateway</h1></html>", "text/html", 502)),
    "empty": Fault(_body(b"")),
    "an error with 200": Fault(_body(json.dumps({"error": {"message": SECRET}}).encode())),
    # slow, and wrong bills
    "slow tokens": Fault(_slowly),
    "usage missing": Fault(_states_nothing),
    "usage of zero": Fault(_states(0, 0)),
    "usage negative": Fault(_states(-10, -5)),
    "usage as text": Fault(_states_text),
    "usage absurd": Fault(_states(10**15, 10**15)),
    "usage doubled": Fault(_states(20, 10), stated=(20, 10)),
}
