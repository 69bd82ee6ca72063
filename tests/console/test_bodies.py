"""Nobody fills the disk through the control plane: bodies are bounded before Django keeps them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler

import console
from console import bodies
from console.bodies import bounded, most_bytes

PIECE = 256 * 1024


class Wire:
    """A client that sends a body in pieces for as long as it is asked for them."""

    def __init__(self, pieces: int, *, piece: bytes = b"x" * PIECE, **headers: str) -> None:
        self.piece = piece
        self.left, self.asked, self.said = pieces, 0, list[Any]()
        self.scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "path": "/api/v1/spend/", "raw_path": b"/api/v1/spend/",
            "query_string": b"", "root_path": "", "scheme": "http", "server": ("testserver", 80), "client": ("127.0.0.1", 1),
            "headers": [(b"host", b"testserver"), *((k.replace("_", "-").encode(), v.encode()) for k, v in headers.items())],
        }  # fmt: skip

    async def receive(self) -> Any:
        self.asked += 1
        self.left -= 1
        return {"type": "http.request", "body": self.piece, "more_body": self.left > 0}

    async def send(self, message: Any) -> None:
        self.said.append(message)

    def answer(self) -> tuple[int, str]:
        assert [one["type"] for one in self.said] == ["http.response.start", "http.response.body"]
        return self.said[0]["status"], json.loads(self.said[1]["body"])["error"]["code"]


async def test_a_body_that_does_not_end_is_not_kept() -> None:
    wire = Wire(10**9)
    await bounded(ASGIHandler())(wire.scope, wire.receive, wire.send)
    assert wire.answer() == (413, "request_too_large")
    assert wire.asked <= most_bytes() // PIECE + 2


@pytest.mark.parametrize("length", ["1073741824", "9" * 4_000])
async def test_a_body_that_says_how_long_it_is_is_not_read_at_all(length: str) -> None:
    wire = Wire(10**9, content_length=length)
    await bounded(ASGIHandler())(wire.scope, wire.receive, wire.send)
    assert wire.answer() == (413, "request_too_large") and wire.asked == 0


async def test_what_fits_arrives_whole() -> None:
    wire, read = Wire(most_bytes() // PIECE), 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal read
        more = True
        while more:
            message = await receive()
            read += len(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 204, "headers": []})

    await bounded(application)(wire.scope, wire.receive, wire.send)
    assert read == most_bytes() and wire.said[0]["status"] == 204


async def test_bodies_of_one_address_are_bounded_together_and_others_get_through() -> None:
    """They are kept until they are answered, also those of nobody who has signed in."""
    go, reading = asyncio.Event(), 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal reading
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more = message["more_body"]
        reading += 1
        await go.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})

    served = bounded(application)

    def sends(pieces: int, address: str = "192.0.2.1", **how: Any) -> tuple[Wire, asyncio.Task[None]]:
        wire = Wire(pieces, **how)
        wire.scope["client"] = (address, 1)
        return wire, asyncio.ensure_future(served(wire.scope, wire.receive, wire.send))

    largest = most_bytes() // PIECE
    first = [sends(largest) for _ in range(4)]
    await asyncio.sleep(0)
    refused, over = sends(largest)
    await over
    assert refused.answer() == (503, "bodies_full")
    assert (b"retry-after", b"5") in refused.said[0]["headers"]
    small, other = sends(1, piece=b"x" * 1000), sends(largest, "192.0.2.2")
    async with asyncio.timeout(30):
        while reading < 6:
            await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*(task for _, task in (*first, small, other)))
    assert [wire.said[0]["status"] for wire, _ in (*first, small, other)] == [204] * 6
    again, over = sends(largest)
    await over
    assert again.said[0]["status"] == 204


@pytest.mark.parametrize("pieces", [0, 3])
async def test_a_body_that_stops_coming_is_given_up(monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    monkeypatch.setattr(bodies, "SILENCE_S", 0.05)
    wire = Wire(10**9)

    async def receive() -> Any:
        if wire.asked == pieces:
            await asyncio.Event().wait()
        return await wire.receive()

    await bounded(ASGIHandler())(wire.scope, receive, wire.send)
    assert wire.answer() == (408, "request_timeout")


async def test_whoever_waits_for_an_answer_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SILENCE_S", 0.01)
    wire = Wire(1)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        leaves = asyncio.ensure_future(receive())
        await asyncio.sleep(0.05)
        assert not leaves.done()
        leaves.cancel()
        await send({"type": "http.response.start", "status": 204, "headers": []})

    async def receive() -> Any:
        return await (wire.receive() if wire.left else asyncio.Event().wait())

    await bounded(application)(wire.scope, receive, wire.send)
    assert wire.said[0]["status"] == 204


def test_both_applications_are_bounded() -> None:
    """Importing them would start a data plane."""
    for name in ("asgi", "asgi_console"):
        source = (Path(console.__file__).parent / f"{name}.py").read_text()
        assert source.count("ASGIHandler()") == 1 and "bounded(ASGIHandler())" in source
