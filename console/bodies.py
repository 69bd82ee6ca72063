"""The control plane's bodies, bounded before anything reads them: Django keeps a body of any length on the disk first, also of
somebody who has not signed in, and a full disk stops the data planes' journals."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings

from llmops.usage.statements.reading import MAX_BYTES

#: Of a form around a file.
_AROUND = 1024 * 1024


def most_bytes() -> int:
    """The longest body that a page or a resource reads: a provider's export, or what the API is set to."""
    return max(MAX_BYTES, settings.MAX_API_BYTES) + _AROUND


def bounded(application: Any) -> Any:
    """``application`` (ASGI), which never gets more of a body than ``most_bytes``: a longer one is answered with 413."""

    async def answering(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        most, read, over, answered = most_bytes(), 0, False, False
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        # A length that is no number is left to who reads it.
        if announced.isdigit() and int(announced[:20]) > most:
            await _refuse(send, most)
            return

        async def counted() -> Any:
            nonlocal read, over
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if over := over or read > most:
                    return {"type": "http.disconnect"}
            return message

        async def noted(message: Any) -> None:
            nonlocal answered
            answered = True
            await send(message)

        await application(scope, counted, noted)
        if over and not answered:
            await _refuse(send, most)

    return answering


async def _refuse(send: Any, most: int) -> None:
    error = {
        "code": "request_too_large",
        "message": f"The body is larger than {most} bytes. Send less at a time.",
        "param": None,
        "retryable": False,
    }
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
