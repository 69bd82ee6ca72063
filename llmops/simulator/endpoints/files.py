"""/v1/files: upload, list, read, delete. Fields: OpenAI API reference, "Files"."""

from __future__ import annotations

import mmap
import re
import tempfile
from typing import IO

import msgspec

from llmops.simulator.errors import wrong
from llmops.simulator.exchange import ClientGone, Exchange

MAX_BYTES = 512 * 1024 * 1024
_BOUNDARY = re.compile(r'boundary="?([^";]{1,70})"?')
_NAME = re.compile(rb'[; ]name="([^"]*)"')
_FILENAME = re.compile(rb'filename="([^"]*)"')


async def create(exchange: Exchange) -> None:
    found = _BOUNDARY.search(exchange.header(b"content-type"))
    if found is None:
        raise wrong("The request must be multipart/form-data.")
    with tempfile.TemporaryFile() as body:
        await _receive(exchange, body)
        if not body.tell():
            raise wrong("The request has no body.")
        body.flush()
        with mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ) as view:
            fields, place, name = _parts(view, b"--" + found[1].encode())
            if "purpose" not in fields:
                raise wrong("Missing required parameter: 'purpose'.", "purpose", "missing_required_parameter")
            if place is None:
                raise wrong("Missing required parameter: 'file'.", "file", "missing_required_parameter")
            file = exchange.app.keeping.new_file(
                exchange.new_id("file-"), exchange.started, name, fields["purpose"]
            )
            for start in range(*place, 1024 * 1024):
                file.content.write(view[start : min(start + 1024 * 1024, place[1])])
    exchange.app.keeping.seal(file)
    await exchange.whole(msgspec.json.encode(file.shown), answer_id=file.id)


async def _receive(exchange: Exchange, body: IO[bytes]) -> None:
    while True:
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body.write(message.get("body", b""))
        if body.tell() > MAX_BYTES:
            raise wrong(f"The file is larger than {MAX_BYTES} bytes.", "file", status=413)
        if not message.get("more_body"):
            return


def _parts(view: mmap.mmap, mark: bytes) -> tuple[dict[str, str], tuple[int, int] | None, str]:
    """Fields by name, where the file stands in ``view``, and its name (RFC 7578)."""
    fields: dict[str, str] = {}
    place: tuple[int, int] | None = None
    name = ""
    at = view.find(mark)
    while at >= 0 and view[at + len(mark) : at + len(mark) + 2] == b"\r\n":
        head_ends = view.find(b"\r\n\r\n", at)
        ends = view.find(b"\r\n" + mark, head_ends + 2)
        if head_ends < 0 or ends < 0:
            raise wrong("The form breaks off.")
        head = view[at:head_ends]
        called = _NAME.search(head)
        filename = _FILENAME.search(head)
        if called is not None and called[1] == b"file":
            place, name = (
                (head_ends + 4, ends),
                filename[1].decode("utf-8", "replace") if filename else "file",
            )
        elif called is not None:
            fields[called[1].decode("utf-8", "replace")] = view[head_ends + 4 : ends].decode(
                "utf-8", "replace"
            )
        at = ends + 2
    return fields, place, name


async def listing(exchange: Exchange) -> None:
    await exchange.whole(exchange.app.keeping.files.page(exchange.query, 10_000, 10_000))


async def one(exchange: Exchange, name: str) -> None:
    await exchange.whole(msgspec.json.encode(exchange.app.keeping.files.get(name).shown))


async def delete(exchange: Exchange, name: str) -> None:
    exchange.app.keeping.files.take(name).close()
    await exchange.whole(msgspec.json.encode({"id": name, "object": "file", "deleted": True}))


async def content(exchange: Exchange, name: str) -> None:
    """In pieces; with ``x-simulator: drop=N`` it breaks off after N of them."""
    file = exchange.app.keeping.files.get(name)
    size = file.shown["bytes"]
    broken = re.search(r"drop=(\d+)", exchange.header(b"x-simulator"))
    exchange.record("dropped" if broken else "completed", chunks=1, size=size)
    kind = (b"content-type", b"application/octet-stream")
    shown = file.shown["filename"].encode("ascii", "replace").replace(b'"', b"")
    await exchange.start(200, kind, [(b"content-disposition", b'attachment; filename="%s"' % shown)], size)
    for number, piece in enumerate(file.pieces()):
        if broken and number >= int(broken[1]):
            return
        await exchange.send({"type": "http.response.body", "body": piece, "more_body": True})
    await exchange.send({"type": "http.response.body", "body": b""})
