"""The control plane's bodies, bounded before anything reads them: Django keeps a body of any length first, in memory and then on the
disk, also of somebody who has not signed in, and a full disk stops the data planes' journals. So each is bounded, all together are, and
one that stops coming is given up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from django.conf import settings

from llmops.core.portions import Portion, SharedBytes
from llmops.usage.statements.reading import MAX_BYTES

#: Of a form around a file.
_AROUND = 1024 * 1024
#: So many of the longest bodies are kept at once; those from one address may be half of them.
_AT_ONCE = 8
#: Bodies up to this size, as nearly all forms are, need no room.
_UNCOUNTED = 64 * 1024
#: A body of which nothing comes for so long is given up.
SILENCE_S = 60.0
_RETRY_AFTER_S = 5


def most_bytes() -> int:
    """The longest body that a page or a resource reads: a provider's export, or what the API is set to."""
    return max(MAX_BYTES, settings.MAX_API_BYTES) + _AROUND


def bounded(application: Any) -> Any:
    """``application`` (ASGI), which never gets more of a body than ``most_bytes``: a longer one is answered with 413, one that finds
    no room with 503, one that stops coming with 408."""
    kept = SharedBytes(_AT_ONCE * most_bytes())

    async def answering(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        body = _Body(scope, receive, kept)
        if body.announced > body.most:
            await _refuse(send, *body.too_large())
            return
        answered = False

        async def noted(message: Any) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await application(scope, body.receive, noted)
        finally:
            body.close()
        if body.refused is not None and not answered:
            await _refuse(send, *body.refused)

    return answering


class _Body:
    """A request's body while it comes. ``refused``: status, code and words, once no more of it is taken; whoever reads it is told then
    that the client is gone."""

    def __init__(self, scope: Any, receive: Any, kept: SharedBytes) -> None:
        self.most = most_bytes()
        self.refused: tuple[int, str, str] | None = None
        self._receive = receive
        self._kept = kept
        self._address = str((scope.get("client") or ("",))[0])
        self._portion: Portion | None = None
        self._read = 0
        self._complete = False
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        # A length that is no number is left to who reads it.
        self.announced = int(length[:20]) if length.isdigit() else 0

    async def receive(self) -> Any:
        if self.refused is not None:
            return {"type": "http.disconnect"}
        if self._complete:
            # What comes now is only that the client left.
            return await self._receive()
        try:
            async with asyncio.timeout(SILENCE_S):
                message = await self._receive()
        except TimeoutError:
            self.refused = (
                408,
                "request_timeout",
                f"Nothing more of the body came for {SILENCE_S:g} s. Send it again.",
            )
            return {"type": "http.disconnect"}
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            self.refused = self.refused or self._too_much()
            if self.refused is not None:
                return {"type": "http.disconnect"}
        return message

    def _too_much(self) -> tuple[int, str, str] | None:
        if self._read > self.most:
            return self.too_large()
        if self._read <= _UNCOUNTED:
            return None
        if self._portion is None:
            self._portion = self._kept.portion(self._address, self._address)
        if self._portion.keep(self._read):
            return None
        return 503, "bodies_full", "The console reads as much at once as it may. Send it again in a moment."

    def too_large(self) -> tuple[int, str, str]:
        return 413, "request_too_large", f"The body is larger than {self.most} bytes. Send less at a time."

    def close(self) -> None:
        if self._portion is not None:
            self._portion.close()


async def _refuse(send: Any, status: int, code: str, message: str) -> None:
    retryable = status != 413
    body = json.dumps(
        {"error": {"code": code, "message": message, "param": None, "retryable": retryable}}
    ).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    if retryable:
        headers.append((b"retry-after", b"%d" % _RETRY_AFTER_S))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
