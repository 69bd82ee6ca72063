"""A data plane in the test's own loop: real pipeline, journal and purse over an upstream that does what a test tells it.

What a test configures (``configured``), the money behind it (``vault``) and the provider (``upstream``) are imported from
here as well.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from llmops.gateway.app import Gateway
from llmops.gateway.assembly import DataPlane
from llmops.gateway.money.purse import Purse
from llmops.gateway.plane import Plane, digest_key
from llmops.serving.snapshot import Snapshot
from llmops.usage.journal import JournalWriter, found, segment_path
from llmops.usage.records import Ended, Held, decode
from tests.gateway.configured import (
    KEY,
    SECRET,
    USD,
    a_budget,
    a_credential,
    a_key,
    a_model,
    a_provider,
    a_route,
    a_snapshot,
)
from tests.gateway.upstream import (
    DONE,
    Asked,
    Reply,
    Script,
    Upstream,
    answers,
    chunk,
    completion,
    cuts,
    fails,
    hangs,
    streams,
    usage,
    usage_chunk,
)
from tests.gateway.vault import Vault, VaultLease, VaultWindow

__all__ = [
    "DONE",
    "KEY",
    "SECRET",
    "USD",
    "Answer",
    "Asked",
    "Exchange",
    "Given",
    "Reply",
    "Rig",
    "Script",
    "Upstream",
    "Vault",
    "VaultLease",
    "VaultWindow",
    "a_budget",
    "a_credential",
    "a_key",
    "a_model",
    "a_provider",
    "a_route",
    "a_snapshot",
    "answers",
    "ask",
    "chunk",
    "completion",
    "cuts",
    "eventually",
    "fails",
    "hangs",
    "streams",
    "usage",
    "usage_chunk",
]


class Answer:
    """What a client saw: the head, then pieces of the body as they came."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.complete = False
        self.changed = asyncio.Event()

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        assert set(self.json) == {"error"}, self.body
        assert set(self.json["error"]) == {"message", "type", "param", "code"}
        found: dict[str, Any] = self.json["error"]
        return found

    async def until(self, condition: Callable[[Answer], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition(self):
                self.changed.clear()
                await self.changed.wait()


class Exchange:
    """A request under way."""

    def __init__(
        self, app: Gateway, method: str, path: str, pieces: list[bytes], headers: dict[str, str]
    ) -> None:
        self.answer = Answer()
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for index, piece in enumerate(pieces):
            self._inbox.put_nowait(
                {"type": "http.request", "body": piece, "more_body": index < len(pieces) - 1}
            )
        self.left = self._inbox.qsize
        #: what the server waits for before it takes a message; most take them at once
        self.before: Callable[[], Awaitable[object]] | None = None
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
        self.task = asyncio.ensure_future(app(scope, self._inbox.get, self._send))

    async def _send(self, message: dict[str, Any]) -> None:
        if self.before is not None:
            await self.before()
        answer = self.answer
        assert not answer.complete, "nothing may be sent after the last byte"
        if message["type"] == "http.response.start":
            assert not answer.status, "one head only"
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            assert answer.status, "the head comes first"
            answer.pieces.append(message.get("body", b""))
            answer.complete = not message.get("more_body", False)
        answer.changed.set()

    def send(self, piece: bytes, *, last: bool = False) -> None:
        """More of the body, of an exchange that was started with no pieces."""
        self._inbox.put_nowait({"type": "http.request", "body": piece, "more_body": not last})

    def hang_up(self) -> None:
        self._inbox.put_nowait({"type": "http.disconnect"})

    async def done(self, seconds: float = 60) -> Answer:
        async with asyncio.timeout(seconds):
            await asyncio.gather(self.task, return_exceptions=False)
        return self.answer


class Given:
    """A runtime that is there already."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None


class Rig:
    def __init__(self, directory: Path, upstream: Upstream) -> None:
        self.upstream = upstream
        self.vault = Vault()
        self.directory = directory
        self.journal = JournalWriter(directory)
        self.purse = Purse(self.vault.bank(lambda: self.purse))
        self.plane = DataPlane(
            journal=self.journal, purse=self.purse, max_body=1_000_000, digest_key=digest_key("s" * 40)
        )
        self.app = Gateway(lambda: Given(self.plane))
        self.configure()

    def configure(self, **what: Any) -> Snapshot:
        what.setdefault("providers", (a_provider(base_url=self.upstream.url),))
        snapshot = a_snapshot(**what)
        self.plane.swap(snapshot)
        return snapshot

    def start(
        self,
        body: Any,
        *,
        path: str = "/v1/chat/completions",
        key: str | None = KEY,
        headers: dict[str, str] | None = None,
        method: str = "POST",
    ) -> Exchange:
        pieces = (
            body
            if isinstance(body, list)
            else [body if isinstance(body, bytes) else json.dumps(body).encode()]
        )
        sent = {"content-type": "application/json"} | (headers or {})
        if key is not None:
            sent["authorization"] = f"Bearer {key}"
        return Exchange(self.app, method, path, pieces, sent)

    async def call(self, body: Any, **how: Any) -> Answer:
        return await self.start(body, **how).done()

    async def chat(
        self,
        *,
        model: str = "small",
        text: str = "Say hello",
        how: dict[str, Any] | None = None,
        **members: Any,
    ) -> Answer:
        return await self.call(ask(model, text, **members), **(how or {}))

    # what was written down

    def records(self) -> list[Any]:
        journal_id = self.journal.journal_id
        lines: list[bytes] = []
        for number in found(self.directory)[journal_id]:
            lines += segment_path(self.directory, journal_id, number).read_bytes().splitlines(keepends=True)
        return [decode(line) for line in lines]

    def held(self) -> list[Held]:
        return [one for one in self.records() if isinstance(one, Held)]

    def ended(self) -> list[Ended]:
        return [one for one in self.records() if isinstance(one, Ended)]

    def outcome(self) -> Any:
        """The outcome of the one call there was."""
        found_ones = [one.outcome for one in self.ended() if one.outcome is not None]
        assert len(found_ones) == 1, f"{len(found_ones)} outcomes"
        return found_ones[0]

    def nothing_held(self) -> None:
        """All holds have ended, and what is spent is what the journal says."""
        pots = self.purse._every_pot()
        assert all(pot.held == 0 for pot in pots)
        assert all(pot.available >= 0 for pot in pots)
        spent = sum(charge.cost for one in self.ended() for charge in one.charges)
        assert sum(pot.spent for pot in pots) == spent
        assert self.plane.calls == set()

    async def close(self) -> None:
        await self.plane.close()
        self.journal.close()


def ask(model: str = "small", text: str = "Say hello", **members: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]} | members


async def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.005)
