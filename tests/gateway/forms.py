"""Forms as clients send them, and as they are read and passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from llmops.gateway.forms.multipart import Form, read_form
from llmops.gateway.forms.spool import Spool

LIMIT = 64 * 1024 * 1024


class Gone(Exception):
    pass


def kept(memory: int, disk: int) -> None:
    """There is room for everything."""


async def off_loop(work: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(work)


async def at_once(work: Callable[[], Any]) -> Any:
    return work()


def field(name: str, value: bytes, *more: str, file: str | None = None) -> bytes:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    disposition = f'Content-Disposition: form-data; name="{quoted}"'
    if file is not None:
        disposition += f'; filename="{file}"'
    return "\r\n".join([disposition, *more]).encode() + b"\r\n\r\n" + value


def body_of(boundary: bytes, *parts: bytes, preamble: bytes = b"", epilogue: bytes = b"\r\n") -> bytes:
    lines = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    return preamble + lines + b"--" + boundary + b"--" + epilogue


GOOD = field("model", b"m")


async def form_of(body: bytes | list[bytes], boundary: bytes = b"b", run: Any = at_once, **how: Any) -> Form:
    pieces = list(body) if isinstance(body, list) else [body]

    async def receive() -> dict[str, Any]:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    headers = {b"content-type": b'multipart/form-data; boundary="' + boundary + b'"'} | how.pop("headers", {})
    spool = how.pop("spool", None) or Spool(run)
    return await read_form(receive, headers, spool, how.pop("largest", LIMIT), Gone, how.pop("keep", kept))


async def sent(form: Form, replace: dict[str, bytes], *add: tuple[str, bytes]) -> bytes:
    upload = form.upload(replace, add)
    found = b"".join([piece async for piece in upload.pieces()])
    assert len(found) == upload.size
    return found
