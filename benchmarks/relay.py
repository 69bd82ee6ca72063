"""The yardstick: a bare ASGI + aiohttp relay, whole answers and streams. It checks nothing, counts nothing and keeps nothing.

Where it sends calls is in the environment variable ``BENCH_UPSTREAM`` (``http://host:port/v1``).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp

Message = MutableMapping[str, Any]

_UPSTREAM = os.environ["BENCH_UPSTREAM"]
_session: aiohttp.ClientSession | None = None


def _open() -> aiohttp.ClientSession:
    # As fast as aiohttp goes: no cookies, no limit on connections, no unpacking of bodies.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


async def _live(
    receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    while True:
        kind = (await receive())["type"]
        if kind == "lifespan.shutdown" and _session is not None:
            await _session.close()
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def application(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    global _session
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    if _session is None:
        _session = _open()
    path = scope["path"].removeprefix("/v1")
    async with _session.post(
        _UPSTREAM + path,
        data=body,
        headers={"content-type": "application/json", "authorization": "Bearer upstream"},
    ) as answer:
        if answer.content_type == "text/event-stream":
            await _stream(answer, send)
            return
        content = await answer.read()
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [
                (b"content-type", answer.content_type.encode()),
                (b"content-length", b"%d" % len(content)),
            ],
        }
    )
    await send({"type": "http.response.body", "body": content})


async def _stream(answer: aiohttp.ClientResponse, send: Callable[[Message], Awaitable[None]]) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    while piece := await answer.content.readany():
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
