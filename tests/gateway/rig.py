"""A data plane in the test's own loop: real pipeline, journal and purse over an upstream that does what a test tells it.

``Vault`` stands for the database behind the keeper: it keeps the windows' arithmetic and answers on the loop, so that a
test decides when an answer comes, or that it is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from llmops.budgets.periods import bounds
from llmops.core.ids import uuid7
from llmops.gateway.app import Gateway
from llmops.gateway.money.bank import Command, GiveBack, More, Open
from llmops.gateway.money.purse import Purse
from llmops.gateway.plane import Plane, digest_key
from llmops.serving.snapshot import (
    BudgetEntry,
    CredentialEntry,
    HashEntry,
    KeyEntry,
    LiveState,
    ModelEntry,
    PolicyEntry,
    PriceRow,
    ProviderEntry,
    RevisionDocument,
    RouteEntry,
    Snapshot,
    TargetEntry,
)
from llmops.usage.journal import JournalWriter, found, segment_path
from llmops.usage.records import Ended, Held, decode

KEY = "llmops_testtest_" + "k" * 40
SECRET = "provider-secret-that-nobody-may-see"
USD = 10**9


# ---------------------------------------------------------------------- what is configured


def a_key(name: str = "svc", **changes: Any) -> KeyEntry:
    given: dict[str, Any] = {
        "id": str(uuid7()),
        "name": name,
        "prefix": "llmops_testtest",
        "project": "support",
        "project_id": str(uuid7()),
        "scopes": frozenset({"inference"}),
        "allowed_routes": frozenset({"*"}),
        "allowed_models": frozenset({"*"}),
    }
    return KeyEntry(**(given | changes))


def a_model(slug: str = "small", provider: str = "up", **changes: Any) -> ModelEntry:
    """Input 1 USD and output 10 USD per million tokens: 1,000 and 10,000 nanodollars a token."""
    given: dict[str, Any] = {
        "slug": slug,
        "version": 1,
        "provider": provider,
        "upstream_model": f"sim-{slug}",
        "context_window": 100_000,
        "max_output_tokens": 4_000,
        "default_max_output_tokens": 100,
        "prices": (PriceRow("input", 0, USD), PriceRow("output", 0, 10 * USD)),
    }
    return ModelEntry(**(given | changes))


def a_provider(slug: str = "up", base_url: str = "http://127.0.0.1:9/v1", **changes: Any) -> ProviderEntry:
    given: dict[str, Any] = {
        "slug": slug,
        "kind": "compatible",
        "base_url": base_url,
        "connect_timeout_ms": 2_000,
        "read_timeout_ms": 5_000,
        "write_timeout_ms": 5_000,
        "pool_timeout_ms": 2_000,
        "max_connections": 500,
        "allow_private_network": True,
    }
    return ProviderEntry(**(given | changes))


def a_budget(slug: str = "team", limit_nano: int = USD, **changes: Any) -> BudgetEntry:
    given: dict[str, Any] = {
        "id": str(uuid7()),
        "slug": slug,
        "scope_kind": "project",
        "scope_value": "support",
        "project": "support",
        "period": "month",
        "timezone": "UTC",
        "limit_nano": limit_nano,
        "hard": True,
    }
    return BudgetEntry(**(given | changes))


def a_snapshot(
    *,
    models: Iterable[ModelEntry] | None = None,
    providers: Iterable[ProviderEntry] | None = None,
    routes: Iterable[RouteEntry] = (),
    policies: Iterable[PolicyEntry] = (),
    keys: dict[str, KeyEntry | HashEntry] | None = None,
    budgets: Iterable[BudgetEntry] = (),
    credentials: dict[str, tuple[CredentialEntry, ...]] | None = None,
    version: int = 1,
    **live: Any,
) -> Snapshot:
    providers = tuple(providers or (a_provider(),))
    entries = keys if keys is not None else {KEY: a_key()}
    if credentials is None:
        credentials = {one.slug: (a_credential(one.slug),) for one in providers}
    return Snapshot(
        revision=7,
        digest="d",
        document=RevisionDocument(
            1, providers, tuple(models or (a_model(),)), tuple(routes), tuple(policies)
        ),
        live=LiveState(
            keys={
                sha256(text.encode()).hexdigest(): one if isinstance(one, HashEntry) else HashEntry(one)
                for text, one in entries.items()
            },
            budgets=tuple(budgets),
            credentials=credentials,
            **live,
        ),
        revision_version=version,
        live_version=version,
    )


def a_credential(provider: str = "up", secret: str = SECRET, name: str = "first") -> CredentialEntry:
    return CredentialEntry(id=str(uuid7()), name=name, provider=provider, secret=secret)


def a_route(slug: str = "chat", *targets: str | tuple[str, int], **changes: Any) -> RouteEntry:
    entries = [
        TargetEntry(*one) if isinstance(one, tuple) else TargetEntry(one) for one in targets or ("small",)
    ]
    return RouteEntry(slug=slug, targets=tuple(entries), **changes)


# ---------------------------------------------------------------------- money


@dataclass
class VaultWindow:
    window_id: int
    limit_nano: int
    starts: float
    ends: float | None
    settled_nano: int = 0
    leased_nano: int = 0


@dataclass
class VaultLease:
    granted_nano: int = 0
    returned_nano: int = 0
    consumed_nano: int = 0
    state: str = "open"
    limit_nano: int = 0
    settled_nano: int = 0
    leased_nano: int = 0


@dataclass
class Vault:
    """Windows and leases of any number of purses. ``away``: nothing is answered; ``lose``: done, but the answer is lost."""

    windows: dict[tuple[str, float], VaultWindow] = field(default_factory=dict)
    leases: dict[tuple[int, int], VaultLease] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    away: bool = False
    lose: bool = False
    #: when set, commands wait for ``work``
    slow: bool = False
    _queue: list[tuple[Command, Purse]] = field(default_factory=list)

    def bank(self, purse_of: Callable[[], Purse]) -> Callable[[Command], None]:
        def submit(command: Command) -> None:
            self.commands.append(command)
            self._queue.append((command, purse_of()))
            if not self.slow:
                asyncio.get_running_loop().call_soon(self.work)

        return submit

    def work(self, commands: int = 1) -> None:
        """Do the oldest commands; each answer comes a turn of the loop later."""
        for _ in range(min(commands, len(self._queue))):
            command, purse = self._queue.pop(0)
            asyncio.get_running_loop().call_soon(self._do(command, purse))

    def window(self, budget: BudgetEntry, at: float) -> VaultWindow:
        starts, ends = bounds(budget.period, budget.timezone, datetime.fromtimestamp(at, tz=UTC))
        key = (budget.id, starts.timestamp())
        if key not in self.windows:
            self.windows[key] = VaultWindow(
                len(self.windows) + 1,
                budget.limit_nano,
                starts.timestamp(),
                ends.timestamp() if ends else None,
            )
        return self.windows[key]

    def _do(self, command: Command, purse: Purse) -> Callable[[], None]:
        if self.away:
            return lambda: purse.told_failed(command)
        if isinstance(command, Open):
            window = self.window(command.budget, command.at)
            held = self.leases.get((id(purse), window.window_id))
            seen = self._seen(held, window) if held else None
            told = VaultWindow(**vars(window))
            return lambda: purse.told_open(
                command, told, window.starts, window.ends, seen, usable_until=float("inf")
            )
        window = next(one for one in self.windows.values() if one.window_id == command.pot.window)
        held = self.leases.setdefault((id(purse), window.window_id), VaultLease())
        if isinstance(command, More):
            free = window.limit_nano - window.settled_nano - window.leased_nano
            grant = max(0, min(max(command.need, command.want), free))
            held.granted_nano += grant
            window.leased_nano += grant
        else:
            held.returned_nano += command.amount
            window.leased_nano -= command.amount
        self.check()
        seen = self._seen(held, window)
        if self.lose:
            gave = command.amount if isinstance(command, GiveBack) else 0

            def lost() -> None:
                purse.told_failed(command)
                asyncio.get_running_loop().call_soon(
                    lambda: purse.told_reread(command.pot, self._seen(held, window), gave_back=gave)
                )

            return lost
        if isinstance(command, More):
            return lambda: purse.told_lease(command, seen, usable_until=float("inf"))
        return lambda: purse.told_returned(command, seen)

    @staticmethod
    def _seen(held: VaultLease, window: VaultWindow) -> VaultLease:
        return VaultLease(
            held.granted_nano,
            held.returned_nano,
            held.consumed_nano,
            held.state,
            window.limit_nano,
            window.settled_nano,
            window.leased_nano,
        )

    def check(self) -> None:
        for window in self.windows.values():
            assert window.leased_nano >= 0
            assert window.settled_nano + window.leased_nano <= window.limit_nano


# ---------------------------------------------------------------------- the upstream


@dataclass
class Asked:
    """A request as the upstream got it."""

    path: str
    headers: dict[str, str]
    body: bytes
    method: str = "POST"

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Reply:
    """The upstream's pen: raw bytes onto the connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def json(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        await self.head(
            status, {"content-type": "application/json", "content-length": str(len(body))} | (headers or {})
        )
        await self.raw(body)

    async def head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in headers.items())]
        await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n")

    async def events(self, *pieces: bytes, end: bool = True, kind: str = "text/event-stream") -> None:
        """A stream in these very pieces, each a chunk of its own."""
        await self.head(200, {"content-type": kind, "transfer-encoding": "chunked"})
        for piece in pieces:
            await self.chunk(piece)
        if end:
            await self.raw(b"0\r\n\r\n")

    async def chunk(self, piece: bytes) -> None:
        await self.raw(b"%x\r\n%b\r\n" % (len(piece), piece))

    def cut(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Asked, Reply], Awaitable[None]]


class Upstream:
    """Answers each request with the next of ``scripts``, the last one again and again."""

    def __init__(self) -> None:
        self.scripts: list[Script] = [answers("Hello")]
        self.asked: list[Asked] = []
        self.gone = asyncio.Event()
        self.url = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def does(self, *scripts: Script) -> None:
        self.scripts = list(scripts)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Upstream]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        try:
            yield self
        finally:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {
                    name.lower(): value
                    for name, _, value in (line.partition(": ") for line in head[1:] if line)
                }
                body = await self._body(reader, headers)
                method, path, _ = head[0].split(" ", 2)
                request = Asked(path, headers, body, method)
                self.asked.append(request)
                script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                watch = asyncio.ensure_future(reader.read(1))
                work = asyncio.ensure_future(script(request, Reply(writer)))
                try:
                    await asyncio.wait({watch, work}, return_when=asyncio.FIRST_COMPLETED)
                    if watch.done() and not work.done():
                        self.gone.set()
                        return
                    await work
                finally:
                    work.cancel()
                    watch.cancel()
                    await asyncio.gather(work, watch, return_exceptions=True)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        except asyncio.CancelledError:
            # The test is over.
            return
        finally:
            self._tasks.discard(task)
            writer.close()

    @staticmethod
    async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
                parts.append(await reader.readexactly(size))
                await reader.readline()
            await reader.readline()
            return b"".join(parts)
        return await reader.readexactly(int(headers.get("content-length", "0")))


def usage(prompt: int = 10, completion: int = 5, **details: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if "cached" in details:
        shown["prompt_tokens_details"] = {"cached_tokens": details["cached"]}
    if "reasoning" in details:
        shown["completion_tokens_details"] = {"reasoning_tokens": details["reasoning"]}
    return shown


def completion(text: str = "Hello", used: Any = None, **changes: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "sim-small-2024",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": usage() if used is None else used,
    } | changes


def answers(text: str = "Hello", used: Any = None, **changes: Any) -> Script:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(completion(text, used, **changes))

    return script


def fails(
    status: int, code: str | None = None, message: str = "no", headers: dict[str, str] | None = None
) -> Script:
    async def script(asked: Asked, reply: Reply) -> None:
        error = {"message": message, "type": "some_error", "param": None, "code": code}
        await reply.json({"error": error}, status, headers)

    return script


def streams(*pieces: bytes, end: bool = True) -> Script:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(*pieces, end=end)

    return script


async def hangs(asked: Asked, reply: Reply) -> None:
    await asyncio.Event().wait()


async def cuts(asked: Asked, reply: Reply) -> None:
    reply.cut()


def chunk(
    text: str | None = None, *, finish: str | None = None, used: Any = "absent", **changes: Any
) -> bytes:
    """One event of a chat stream, as OpenAI writes it."""
    delta = {} if text is None else {"content": text}
    shown: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "sim-small-2024",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    } | changes
    if used != "absent":
        shown["usage"] = used
    return b"data: " + json.dumps(shown, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def usage_chunk(**used: int) -> bytes:
    return chunk(choices=[], used=usage(**used))


# ---------------------------------------------------------------------- the client


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
        async with asyncio.timeout(10):
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

    def hang_up(self) -> None:
        self._inbox.put_nowait({"type": "http.disconnect"})

    async def done(self, seconds: float = 15) -> Answer:
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
        self.plane = Plane(
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


async def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.005)
