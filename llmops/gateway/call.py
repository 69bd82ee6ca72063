"""One request as the data plane sees it: who asks, what is known so far, and the way back to the client."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

from llmops.core.asgi import Message, Receive, Send, at_once
from llmops.core.errors import ConsoleError, InvalidRequest
from llmops.core.ids import uuid7_text
from llmops.core.logs import request_id as _logged_request
from llmops.gateway.cache import OFF
from llmops.gateway.errors import JSON_TYPE, Headers, error_body, error_event, error_headers
from llmops.gateway.money.cost_headers import COST, COST_COMMENT, told
from llmops.gateway.throttling.queueing import BATCH, INTERACTIVE
from llmops.gateway.watch import Watch
from llmops.usage.records import LONGEST_REQUEST_ID, Attempt, Origin, Outcome

if TYPE_CHECKING:
    from llmops.core.portions import Portion
    from llmops.gateway.attempts.fitting import Fitting
    from llmops.gateway.attempts.resilience import Plan
    from llmops.gateway.cache import Filling, Kept
    from llmops.gateway.endpoints.base import Asked, Endpoint, Members
    from llmops.gateway.forms.multipart import Form
    from llmops.gateway.plane import Plane
    from llmops.gateway.policing.state import Policing
    from llmops.gateway.routing import Budgets, Resolution
    from llmops.gateway.streaming.events import Relay
    from llmops.gateway.throttling.limits import Ticket
    from llmops.serving.snapshot import BudgetEntry, KeyEntry

#: A shorter credential may be a word like any other ("EMPTY", "none"): it is no secret either.
TELLING_SECRET = 16
MAX_FEATURE, MAX_USER, MAX_SESSION, MAX_TAG, MAX_TAGS = 100, 256, 100, 64, 16

_FALLBACK = {False: (b"x-llmops-fallback", b"false"), True: (b"x-llmops-fallback", b"true")}
_EVENTS_TYPE = (b"content-type", b"text/event-stream; charset=utf-8")
_NO_CACHE = (b"cache-control", b"no-cache")
_NO_BUFFERING = (b"x-accel-buffering", b"no")
_PLAIN = re.compile(r"[^\x00-\x1f\x7f]*")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,%d}" % LONGEST_REQUEST_ID)


class ClientGone(Exception):
    """The client hung up."""


class Follower(Protocol):
    """Who watches a call from its side (``idempotency.lead``), and hears when it is over."""

    def close(self) -> None: ...


class Call:
    """State of one request, filled step by step by the pipeline."""

    __slots__ = (
        "aside",
        "asked",
        "attempts",
        "begun",
        "blocked",
        "budgets",
        "bytes_in",
        "bytes_out",
        "cache_key",
        "cache_word",
        "cap_header",
        "cost",
        "cost_told",
        "ended",
        "endpoint",
        "events",
        "fallbacks",
        "filling",
        "fitting",
        "form",
        "headers",
        "id",
        "in_memory",
        "kept",
        "key",
        "lead",
        "on_disk",
        "origin",
        "outcome",
        "plan",
        "plane",
        "policing",
        "priority",
        "prompt",
        "queue_us",
        "reached",
        "receive",
        "relay",
        "request_id",
        "resolution",
        "resort",
        "retries",
        "secret",
        "send",
        "sound",
        "spare",
        "started",
        "started_ns",
        "started_sending",
        "ticket",
        "turned",
        "unexpanded",
        "user",
        "view",
        "watch",
    )

    def __init__(
        self, plane: Plane, endpoint: Endpoint, scope: Message, receive: Receive, send: Send
    ) -> None:
        self.plane = plane
        self.view = plane.view
        self.endpoint = endpoint
        self.receive = receive
        self.send = send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.started_ns = time.time_ns()
        self.started = time.perf_counter()
        self.id = uuid7_text()
        self.request_id = request_id_of(self.headers, self.id)
        _logged_request.set(self.request_id)
        self.watch = Watch(receive)
        self.key: KeyEntry | None = None
        self.asked: Asked | None = None
        self.resolution: Resolution | None = None
        self.budgets: Budgets = ()
        #: the budget with too little left whose cheaper route the call went
        self.turned: BudgetEntry | None = None
        self.origin: Origin | None = None
        #: name and version of the prompt that the request names
        self.prompt: tuple[str, int] | None = None
        self.plan: Plan | None = None
        #: what policies know about the call; None when none applies
        self.policing: Policing | None = None
        self.ticket: Ticket | None = None
        self.user = ""
        self.priority = INTERACTIVE
        self.attempts: list[Attempt] = []
        self.retries = 0
        self.fallbacks = 0
        self.cost = 0
        self.cost_told = False
        #: what goes out is a stream of events
        self.events = False
        #: what moderation models cost that were asked about it, each a call with a record of its own
        self.aside = 0
        #: of what the caller lets it cost, what the attempt under way leaves at its worst; None where nothing is said
        self.spare: int | None = None
        self.queue_us = 0
        #: what was done to make the input fit into a context window
        self.fitting: Fitting | None = None
        #: what was answered when nothing else could
        self.resort = b""
        #: a piece of the answer is on its way, and not taken yet: how much had gone out with it; 0 when none is
        self.blocked = 0
        #: the credential that the provider was asked with last; empty when it is too short to be told from other words
        self.secret = b""
        #: what is kept of its body, where that is counted
        self.in_memory: Portion | None = None
        self.on_disk: Portion | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.cap_header: int | None = None
        #: the digest under which the answer may be kept, how the cache was used, and the answer on its way into it
        self.cache_key: bytes | None = None
        self.cache_word = OFF
        self.filling: Filling | None = None
        #: the earlier answer that answers this call
        self.kept: Kept | None = None
        #: keeps the answer under the call's ``Idempotency-Key``, where it has one and is the first with it
        self.lead: Follower | None = None
        #: a provider may have done what was asked, and may bill it
        self.reached = False
        #: how the call ended, once that is recorded
        self.outcome: Outcome | None = None
        #: the members of the body as they came, where a named prompt was put in their place
        self.unexpanded: Members | None = None
        #: the outcome is recorded
        self.ended = False
        self.started_sending = False
        #: the form that came in, which lies in a file if it is large
        self.form: Form | None = None
        #: what goes out is neither JSON nor events: no error can be told in it
        self.sound = False
        #: something of an answer went out, not comments alone: nothing can be tried again
        self.begun = False
        #: the reader of the stream that is relayed, or was tried last
        self.relay: Relay | None = None

    def elapsed_us(self) -> int:
        return int((time.perf_counter() - self.started) * 1_000_000)

    def close(self) -> None:
        self.watch.close()
        if self.form is not None:
            self.form.close()
        if self.filling is not None:
            self.filling.end(gone=self.watch.reason == "client")
        if self.lead is not None:
            self.lead.close()
        if self.ticket is not None:
            self.ticket.release()
        if self.in_memory is not None:
            self.in_memory.close()
        if self.on_disk is not None:
            self.on_disk.close()
        self.plane.leave(self)

    # ------------------------------------------------------------------ in

    def header_text(self, name: bytes, longest: int) -> str:
        """A header of ours as text; empty when it was not sent. Raises ``InvalidRequest`` naming it."""
        raw = self.headers.get(name)
        if raw is None:
            return ""
        shown = name.decode()
        try:
            text = raw.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise InvalidRequest(f"{shown}: must be UTF-8 text.", param=shown) from None
        if len(text) > longest:
            raise InvalidRequest(f"{shown}: longer than {longest} characters.", param=shown)
        if not _PLAIN.fullmatch(text):
            raise InvalidRequest(f"{shown}: must not hold control characters.", param=shown)
        return text

    def tags(self) -> list[str]:
        """Tags of ``x-llmops-tags``, separated by commas, each once."""
        text = self.header_text(b"x-llmops-tags", (MAX_TAG + 1) * MAX_TAGS)
        if not text:
            return []
        tags = list(dict.fromkeys(tag for part in text.split(",") if (tag := part.strip())))
        if len(tags) > MAX_TAGS:
            raise InvalidRequest(f"x-llmops-tags: more than {MAX_TAGS} tags.", param="x-llmops-tags")
        if any(len(tag) > MAX_TAG for tag in tags):
            raise InvalidRequest(
                f"x-llmops-tags: a tag is longer than {MAX_TAG} characters.", param="x-llmops-tags"
            )
        return tags

    def read_priority(self, of_key: str) -> str:
        """Who waits first: a batch key's calls are batch calls, and any call may say so of itself."""
        asked = self.header_text(b"x-llmops-priority", 20)
        if asked not in ("", INTERACTIVE, BATCH):
            raise InvalidRequest(
                f"x-llmops-priority: must be {INTERACTIVE} or {BATCH}.", param="x-llmops-priority"
            )
        return BATCH if BATCH in (asked, of_key) else INTERACTIVE

    # ------------------------------------------------------------------ out

    def asks_with(self, secret: str) -> None:
        """A provider is asked with this credential. What it says of it is hidden, as by a server that echoes its requests."""
        self.secret = secret.encode() if len(secret) >= TELLING_SECRET else b""

    def hide(self, data: bytes) -> bytes:
        """What a provider said, without the credential it was asked with; as long as before, so that lengths stay true."""
        secret = self.secret
        return data.replace(secret, b"*" * len(secret)) if secret and secret in data else data

    def hides(self, text: str) -> bool:
        """Whether a short text of the provider's holds the credential."""
        return bool(self.secret) and len(text) >= TELLING_SECRET and self.secret.decode() in text

    def tells_cost(self) -> bool:
        """Whether whoever asks is told what the call cost, which is known now: all its attempts and what policies asked about it."""
        return self.ended and told(self.headers, self.key)

    def answer_headers(self) -> Headers:
        headers: Headers = [
            (b"x-request-id", self.request_id.encode()),
            (b"x-llmops-call-id", self.id.encode()),
            (b"x-llmops-cache", self.cache_word),
        ]
        if self.attempts:
            last = self.attempts[-1]
            headers.append((b"x-llmops-attempts", b"%d" % len(self.attempts)))
            if not self.resort and last.model:
                headers.append((b"x-llmops-model", last.model.encode()))
                headers.append(_FALLBACK[self.fallbacks > 0])
        if self.prompt is not None:
            headers.append((b"x-llmops-prompt", b"%s@%d" % (self.prompt[0].encode(), self.prompt[1])))
        if self.resort:
            headers.append((b"x-llmops-fallback", self.resort))
        if self.kept is not None:
            headers.append((b"x-llmops-model", self.kept.model.encode()))
            headers.append((b"age", b"%d" % (time.monotonic() - self.kept.at)))
        if self.fitting is not None and (word := self.fitting.word):
            headers.append((b"x-llmops-context", word))
        if self.turned is not None:
            headers.append((b"x-llmops-budget", self.turned.slug.encode()))
            headers.append((b"x-llmops-budget-route", self.turned.at_limit_route.encode()))
        if self.cap_header is not None:
            headers.append((b"x-llmops-output-cap", b"%d" % self.cap_header))
        ticket = self.ticket
        if ticket is not None:
            headers += ticket.headers(time.time())
        if self.tells_cost():
            headers.append((COST, b"%d" % (self.cost + self.aside)))
            self.cost_told = True
        return headers

    async def send_whole(
        self,
        status: int,
        body: bytes,
        *,
        headers: Headers | None = None,
        kind: tuple[bytes, bytes] = JSON_TYPE,
    ) -> None:
        """An answer in one piece, JSON unless its header ``kind`` says otherwise."""
        self.started_sending = self.begun = True
        if self.filling is not None:
            self.filling.add(body)
        sent = self.answer_headers()
        sent.append(kind)
        sent.append((b"content-length", b"%d" % len(body)))
        if headers:
            sent += headers
        await self._send({"type": "http.response.start", "status": status, "headers": sent})
        await self._send({"type": "http.response.body", "body": body})

    async def send_again(self, status: int, headers: Headers, body: bytes, first: str) -> None:
        """What the call ``first`` was answered with, to a request that was sent again under its key."""
        self.started_sending = self.begun = True
        self.bytes_out += len(body)
        sent: Headers = [
            (b"x-request-id", self.request_id.encode()),
            (b"x-llmops-call-id", self.id.encode()),
            (b"idempotent-replayed", b"true"),
            (b"x-llmops-replay-of", first.encode()),
            *(self._with_aside(headers) if self.aside and self.tells_cost() else headers),
        ]
        if status >= 400:
            # To ask once more brings the same once more.
            sent.append((b"x-should-retry", b"false"))
        await self._send({"type": "http.response.start", "status": status, "headers": sent})
        await self._send({"type": "http.response.body", "body": body})

    def _with_aside(self, headers: Headers) -> Headers:
        """What the first answer cost, and what policies of a later revision asked about it before it was given again."""
        first = next((int(value) for name, value in headers if name == COST), 0)
        rest = [(name, value) for name, value in headers if name != COST]
        return [*rest, (COST, b"%d" % (first + self.aside))]

    async def start_events(self) -> None:
        """The head of a stream."""
        self.started_sending = self.events = True
        headers = self.answer_headers()
        headers += (_EVENTS_TYPE, _NO_CACHE, _NO_BUFFERING)
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def start_sound(self, kind: tuple[bytes, bytes], length: int | None) -> None:
        """The head of a body of bytes, of which ``length`` are said to come."""
        self.started_sending = self.sound = True
        headers = self.answer_headers()
        headers.append(kind)
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send_piece(self, data: bytes, *, last: bool = False) -> None:
        rest = self.begin_piece(data, last=last)
        if rest is not None:
            await self.wait_for(rest)

    def begin_piece(self, data: bytes, *, last: bool = False) -> Awaitable[None] | None:
        """As ``send_piece`` for who cannot wait. What is left of it for ``wait_for``; None when nothing is."""
        secret = self.secret
        if secret and secret in data:
            data = self.hide(data)
        self.bytes_out += len(data)
        if self.filling is not None:
            self.filling.add(data)
        if last and self.events and not self.cost_told and self.tells_cost():
            data = b"%s%d\n\n%s" % (COST_COMMENT, self.cost + self.aside, data)
        try:
            rest = at_once(self.send({"type": "http.response.body", "body": data, "more_body": not last}))
        except OSError as error:
            raise ClientGone from error
        self.blocked = 0 if rest is None else self.bytes_out
        return rest

    async def wait_for(self, rest: Awaitable[None]) -> None:
        """The rest of a piece that was begun."""
        try:
            await rest
        except OSError as error:
            raise ClientGone from error
        self.blocked = 0

    async def send_comment(self, data: bytes) -> None:
        """Part of a stream that is not part of its answer."""
        self.bytes_out += len(data)
        # Nothing else goes out meanwhile; a client that does not take even this does not read.
        self.blocked = self.bytes_out
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self.blocked = 0

    async def _send(self, message: Message) -> None:
        try:
            await self.send(message)
        except OSError as error:
            # So the specification of ASGI tells that the client is gone; some servers say nothing at all.
            raise ClientGone from error

    def error_event(self, error: ConsoleError) -> bytes:
        """The event that tells a client in a stream what an error body would have told it."""
        return error_event(error) if self.relay is None else self.relay.error_event(error)

    async def end_with(self, error: ConsoleError) -> None:
        """Tell a client whose answer has begun that it breaks off: by an event, or, in the middle of a sound, by leaving
        it without its end."""
        if not self.sound:
            await self.send_piece(self.error_event(error), last=True)

    async def send_error(self, error: ConsoleError) -> None:
        body = error_body(error)
        self.bytes_out += len(body)
        await self.send_whole(error.status, body, headers=error_headers(error))


def request_id_of(headers: dict[bytes, bytes], call_id: str) -> str:
    """The caller's ``x-request-id`` when it is a sane one, else one made of the call's id."""
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return "req_" + call_id.replace("-", "")
