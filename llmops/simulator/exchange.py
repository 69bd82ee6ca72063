"""One request and its answer: who asks, what goes out, and the record that is written before the last byte does."""

from __future__ import annotations

import asyncio
import hashlib
import time
from functools import lru_cache
from typing import Any, Protocol

from llmops.core.asgi import Message, Receive, Send
from llmops.simulator.errors import ApiError, wrong
from llmops.simulator.keeping import Keeping
from llmops.simulator.ledger import CLIENT_GONE, COMPLETED, DROPPED, REFUSED, Ledger, Record, Usage
from llmops.simulator.prompts import Prompts

Headers = list[tuple[bytes, bytes]]

MAX_BODY = 64 * 1024 * 1024
JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
HTML = (b"content-type", b"text/html; charset=utf-8")
_SIMULATOR = (b"x-simulator", b"true")
_ORGANISATION = (b"openai-organization", b"simulator")
_VERSION = (b"openai-version", b"2020-10-01")
_NO_USAGE = Usage()


class ClientGone(Exception):
    """The other side hung up."""


class Provider(Protocol):
    """``app.Simulator``: what all exchanges share. What is kept of answers and responses, their endpoints know."""

    any_model: bool
    prefix: str
    ledger: Ledger
    window: Window
    prompts: Prompts
    keeping: Keeping
    kept: Any
    responses: Any

    def next_number(self) -> int: ...
    def new_id(self, prefix: str) -> str: ...
    def count_call(self, name: str) -> int: ...
    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None: ...


class Exchange:
    """The request under way. ``headers`` holds the few that the simulator reads."""

    def __init__(self, app: Provider, scope: Message, receive: Receive, send: Send) -> None:
        self.app = app
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.receive = receive
        self.send = send
        self.began = time.monotonic()
        self.started = time.time()
        self.headers = {name: value for name, value in scope["headers"] if name in READ_HEADERS}
        self.number = app.next_number()
        self.request_id = f"req_{app.prefix}{self.number:012x}"
        self.model: str | None = None
        self.key: str | None = None
        self.stream = False
        self.recorded = False

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    def new_id(self, prefix: str) -> str:
        """Unlike any other id of this or another simulator process."""
        return f"{prefix}{self.app.prefix[:12]}{self.number:012x}"

    async def body(self) -> bytes:
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        if not message.get("more_body"):
            return message.get("body", b"")
        parts = [message.get("body", b"")]
        length = len(parts[0])
        while message.get("more_body"):
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            length += len(parts[-1])
            if length > MAX_BODY:
                raise wrong(f"The body is larger than {MAX_BODY} bytes.", status=413)
        return b"".join(parts)

    def record(
        self,
        outcome: str,
        *,
        status: int = 200,
        answer_id: str | None = None,
        usage: Usage = _NO_USAGE,
        served_usage: dict[str, Any] | None = None,
        chunks: int = 0,
        size: int = 0,
        error: str | None = None,
    ) -> None:
        """Write the ledger's line for this request, once."""
        if self.recorded:
            return
        self.recorded = True
        self.app.window.spend(usage.prompt + usage.completion)
        headers = self.headers
        if served_usage is not None:
            served_usage = {name: value for name, value in served_usage.items() if name.endswith("_tokens")}
        self.app.ledger.add(
            Record(
                id=answer_id,
                request_id=self.request_id,
                endpoint=self.path,
                status=status,
                outcome=outcome,
                started=self.started,
                duration_ms=round((time.monotonic() - self.began) * 1000, 3),
                model=self.model,
                key=self.key,
                stream=self.stream,
                usage=usage,
                served_usage=served_usage,
                chunks=chunks,
                bytes=size,
                error=error,
                attempt_id=self.header(b"x-llmops-attempt-id") if b"x-llmops-attempt-id" in headers else None,
                client_request_id=self.header(b"x-request-id") if b"x-request-id" in headers else None,
            )
        )

    async def start(
        self, status: int, content: tuple[bytes, bytes], more: Headers, length: int | None
    ) -> None:
        elapsed = (time.monotonic() - self.began) * 1000
        headers: Headers = [
            content,
            _SIMULATOR,
            _ORGANISATION,
            _VERSION,
            (b"x-request-id", self.request_id.encode()),
            (b"openai-processing-ms", b"%d" % elapsed),
            *self.app.window.headers(),
            *more,
        ]
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def whole(
        self,
        body: bytes,
        *,
        answer_id: str | None = None,
        usage: Usage = _NO_USAGE,
        served_usage: dict[str, Any] | None = None,
        status: int = 200,
        content: tuple[bytes, bytes] = JSON,
        outcome: str = COMPLETED,
        error: str | None = None,
        headers: Headers | None = None,
    ) -> None:
        """An answer in one piece, recorded first."""
        self.record(
            outcome,
            status=status,
            answer_id=answer_id,
            usage=usage,
            served_usage=served_usage,
            chunks=1,
            size=len(body),
            error=error,
        )
        await self.start(status, content, headers or [], len(body))
        await self.send({"type": "http.response.body", "body": body})

    async def refuse(self, error: ApiError) -> None:
        await self.whole(
            error.body(),
            status=error.status,
            outcome=REFUSED,
            error=error.code or error.kind,
            headers=error.headers(),
        )

    async def unrecorded(self, body: bytes, status: int = 200) -> None:
        """An answer of the simulator's own pages, which are not part of the provider."""
        await self.start(status, JSON, [], len(body))
        await self.send({"type": "http.response.body", "body": body})

    async def break_off(
        self,
        sent: bytes,
        *,
        content: tuple[bytes, bytes] = JSON,
        length: int | None = None,
        answer_id: str | None = None,
        usage: Usage = _NO_USAGE,
    ) -> None:
        """Send the beginning of an answer and let the connection die: the server closes it when a call just returns."""
        self.record(
            DROPPED,
            answer_id=answer_id,
            usage=usage,
            chunks=1 if sent else 0,
            size=len(sent),
            error="dropped",
        )
        await self.start(200, content, [], length)
        await self.send({"type": "http.response.body", "body": sent, "more_body": True})

    def gone(self, usage: Usage = _NO_USAGE, **more: Any) -> None:
        self.record(CLIENT_GONE, status=499, usage=usage, error="client_gone", **more)


READ_HEADERS = frozenset(
    (
        b"authorization",
        b"api-key",
        b"x-simulator",
        b"x-llmops-attempt-id",
        b"x-request-id",
        b"content-length",
        b"content-type",
    )
)


class Departure:
    """Tells as soon as the client hangs up. To be used once the body has been read."""

    def __init__(self, receive: Receive) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self.gone = False
        self._task = self._loop.create_task(self._watch(receive))

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def sleep(self, seconds: float | None) -> bool:
        """Sleep (``None``: for ever), or until the client is gone; True if it is."""
        if self.gone:
            return True
        self._waiter = self._loop.create_future()
        timer = None if seconds is None else self._loop.call_later(max(seconds, 0), self._wake)
        try:
            await self._waiter
        finally:
            if timer is not None:
                timer.cancel()
        return self.gone

    def close(self) -> None:
        self._task.cancel()


class Window:
    """OpenAI's ``x-ratelimit-*`` headers: true counts of this minute against limits that are never enforced."""

    REQUESTS, TOKENS = 1_000_000, 1_000_000_000

    def __init__(self) -> None:
        self._minute = 0
        self._requests = 0
        self._tokens = 0

    def spend(self, tokens: int) -> None:
        minute = int(time.time()) // 60
        if minute != self._minute:
            self._minute, self._requests, self._tokens = minute, 0, 0
        self._requests += 1
        self._tokens += tokens

    def headers(self) -> Headers:
        reset = b"%ds" % (60 - int(time.time()) % 60)
        return [
            (b"x-ratelimit-limit-requests", b"%d" % self.REQUESTS),
            (b"x-ratelimit-limit-tokens", b"%d" % self.TOKENS),
            (b"x-ratelimit-remaining-requests", b"%d" % max(self.REQUESTS - self._requests, 0)),
            (b"x-ratelimit-remaining-tokens", b"%d" % max(self.TOKENS - self._tokens, 0)),
            (b"x-ratelimit-reset-requests", reset),
            (b"x-ratelimit-reset-tokens", reset),
        ]


@lru_cache(maxsize=1024)
def fingerprint(key: str) -> str:
    """Names a key without showing it: the first 12 hex digits of its SHA-256."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]
