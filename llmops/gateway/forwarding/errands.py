"""One request to a provider and its answer, as they came: sent with the caller's headers, tried again where that is safe,
relayed byte-true, written down before its last byte."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from llmops.gateway import settle
from llmops.gateway.attempts.failures import AUTH, MALFORMED, Failure, describe
from llmops.gateway.attempts.resilience import backoff
from llmops.gateway.attempts.upstream import (
    BROKE,
    Failed,
    Response,
    failure_of,
    failure_of_status,
    read_whole,
    said_id,
)
from llmops.gateway.call import Call
from llmops.gateway.endpoints.base import Members
from llmops.gateway.errors import Headers
from llmops.gateway.forms.spool import Upload as SpooledUpload
from llmops.gateway.forwarding.uploading import Upload
from llmops.gateway.kept.places import Place
from llmops.gateway.masking import masked
from llmops.gateway.money import charging
from llmops.usage.records import Attempt, Ended, Outcome, Tokens

if TYPE_CHECKING:
    from llmops.serving.snapshot import CredentialEntry

#: A call without a body that has no answer after this long is given up, retries included.
PATIENCE_S = 120.0
ATTEMPTS = 3
IDEMPOTENT = frozenset(("GET", "HEAD", "DELETE"))
#: Headers of the caller that stay here: credentials, whose account it is, the connection, what the transport decides.
_STAYS = frozenset(
    (
        b"accept-encoding",
        b"api-key",
        b"authorization",
        b"connection",
        b"content-length",
        b"cookie",
        b"expect",
        b"forwarded",
        b"host",
        # Of our callers: two projects with the same one would meet at the provider.
        b"idempotency-key",
        b"keep-alive",
        b"openai-organization",
        b"openai-project",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"user-agent",
        b"via",
        b"x-api-key",
        b"x-goog-api-key",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
    )
)
#: Some servers take another path or method from such as the last two.
_STAYS_PREFIXES = (b"x-llmops-", b"x-forwarded-", b"x-real-", b"sec-", b"x-original-", b"x-rewrite-")
#: Headers of an answer that go on.
_GOES_ON = (
    "content-type",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-range",
    "accept-ranges",
    "etag",
    "last-modified",
)
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_EMPTY = frozenset((204, 205, 304))


@dataclass(slots=True)
class Errand:
    """One request to a provider. ``path`` follows its base URL and is escaped; ``query`` is raw."""

    method: str
    path: str
    query: bytes = b""
    body: bytes | Upload | None = None
    #: a form that was read, in place of a body
    form: SpooledUpload | None = None


@dataclass(slots=True)
class Fetched:
    """A whole answer: its bytes as they came, and its members where it is a JSON object."""

    status: int
    headers: Headers
    body: bytes
    members: Members = field(default_factory=dict)

    def text(self, name: str) -> str:
        """A member that is text; empty when it is not."""
        try:
            value = msgspec.json.decode(self.members[name])
        except (KeyError, msgspec.DecodeError):
            return ""
        return value if isinstance(value, str) else ""


class Trying:
    """An attempt as the transport sees it."""

    __slots__ = ("sent", "whose")

    def __init__(self, whose: str) -> None:
        self.sent = False
        self.whose = whose


class GaveUp(Exception):
    """The last failure at a provider."""

    def __init__(self, failure: Failure, place: Place) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.place = place


class BrokeOff(Exception):
    """An answer broke off after its head went out: the connection ends as well, without an end of the body."""


def record(
    call: Call,
    *,
    status: str,
    http: int,
    code: str = "",
    message: str = "",
    tokens: Tokens | None = None,
    cost: int = 0,
    soft: list[str] | None = None,
    model: str = "",
) -> None:
    """Write the call down, once."""
    if call.ended or call.key is None:
        return
    call.ended = True
    call.cost = cost
    outcome = call.outcome = Outcome(status=status, http=http, code=code[:60], message=message[:300])
    outcome.attempts = call.attempts
    outcome.retries = call.retries
    outcome.cost = cost
    outcome.total_us = call.elapsed_us()
    outcome.bytes_out = call.bytes_out
    if tokens is not None:
        outcome.tokens = tokens
    if call.policing is not None:
        outcome.verdicts = call.policing.told()
    if call.attempts:
        last = call.attempts[-1]
        # What a provider only keeps, no model worked for: the place's own name may be a route's.
        outcome.model, outcome.provider = model, last.provider
        outcome.provider_us, outcome.provider_request = last.provider_us, last.provider_request
        outcome.upstream_us = sum(one.total_us for one in call.attempts)
    origin = call.origin or settle.origin_of(call)
    origin.bytes_in = call.bytes_in
    call.plane.record_end(
        Ended(
            n=0,
            at=time.time_ns(),
            attempt=0,
            origin=origin,
            soft=soft or [],
            cost=cost,
            outcome=outcome,
        )
    )


def see_through(call: Call) -> None:
    """Whoever leaves from now on does not undo what the provider is asked to make: whose it is, and what it costs, is to be known."""
    if call.watch.stays is None:
        call.watch.stays = _goes_on


def _goes_on() -> bool:
    return True


async def fetch(call: Call, place: Place, errand: Errand) -> Fetched:
    """The whole answer of a provider, a JSON object. Raises ``GaveUp``."""

    async def whole(response: Response, attempt: Attempt) -> Fetched:
        body = call.hide(await read_whole(response))
        fetched = Fetched(response.status, _head(call, response), body)
        if response.status not in _EMPTY:
            try:
                fetched.members = _decode_object(body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise Failed(Failure(MALFORMED, "the answer is not a JSON object")) from None
        return fetched

    fetched: Fetched = await attempts(call, place, errand, whole)
    return fetched


async def reply(call: Call, fetched: Fetched, body: bytes | None = None) -> None:
    """The answer goes to the client; ``body`` in place of its own where it had to change."""
    sent = fetched.body if body is None else body
    call.bytes_out = len(sent)
    record(call, status=settle.OK, http=fetched.status)
    await send(call, fetched, sent)


async def send(call: Call, fetched: Fetched, body: bytes) -> None:
    call.started_sending = True
    headers = [*call.answer_headers(), *fetched.headers, (b"content-length", b"%d" % len(body))]
    await call._send({"type": "http.response.start", "status": fetched.status, "headers": headers})
    await call._send({"type": "http.response.body", "body": body})


async def relay(call: Call, place: Place, errand: Errand) -> None:
    """The answer of a provider in pieces, as they come, whatever they are. Raises ``GaveUp`` before, ``BrokeOff`` after
    the head of the answer went out."""

    async def pieces(response: Response, attempt: Attempt) -> None:
        headers = [*call.answer_headers(), *_head(call, response)]
        length = response.headers.get("content-length", "")
        if length.isdigit():
            headers.append((b"content-length", length.encode()))
        content = response.content

        async def start() -> None:
            # With the first piece and no sooner: what breaks off before it can still be answered, or tried again.
            call.started_sending = True
            await call._send({"type": "http.response.start", "status": response.status, "headers": headers})

        coming = masked(content, call.secret)
        held = await anext(coming, b"")
        call.watch.open_end()
        while held:
            # One piece is kept back until it is known whether it is the last: the call is written down before that.
            following = await anext(coming, b"")
            if not following:
                break
            if not call.started_sending:
                await start()
            await call.send_piece(held)
            held = following
        if not call.started_sending:
            await start()
        call.bytes_out += len(held)
        _timed(call, attempt, response)
        record(call, status=settle.OK, http=response.status)
        call.bytes_out -= len(held)
        await call.send_piece(held, last=True)

    await attempts(call, place, errand, pieces)


async def attempts(
    call: Call, place: Place, errand: Errand, use: Callable[[Response, Attempt], Awaitable[Any]]
) -> Any:
    """Try until an answer could be used. Only idempotent requests are tried again, and only with nothing relayed."""
    again = errand.method in IDEMPOTENT and not isinstance(errand.body, Upload)
    if not isinstance(errand.body, Upload):
        call.watch.start(PATIENCE_S)
    credentials = iter(place.credentials)
    credential, why, tries = next(credentials), "", 0
    while True:
        tries += 1
        failure = await _attempt(call, place, errand, credential, why, use)
        if not isinstance(failure, Failure):
            return failure
        if call.started_sending:
            attempt = call.attempts[-1]
            record(
                call, status=settle.INTERRUPTED, http=200, code="stream_interrupted", message=failure.message
            )
            attempt.code = charging.code_of(failure)
            raise BrokeOff
        if not again or call.watch.reason is not None:
            raise GaveUp(failure, place)
        if failure.kind == AUTH:
            following = next(credentials, None)
            if following is None:
                raise GaveUp(failure, place)
            credential, why = following, f"with the credential {following.name!r}"
        elif failure.retryable and tries < ATTEMPTS:
            delay = backoff(tries, failure.retry_after)
            if delay > 10.0:
                raise GaveUp(failure, place)
            await asyncio.sleep(delay)
            why = f"again after {describe(failure)}"
        else:
            raise GaveUp(failure, place)
        call.retries += 1


async def _attempt(
    call: Call,
    place: Place,
    errand: Errand,
    credential: CredentialEntry,
    why: str,
    use: Callable[[Response, Attempt], Awaitable[Any]],
) -> Any:
    """What ``use`` makes of the answer, or the ``Failure``."""
    began = time.perf_counter()
    attempt = Attempt(
        n=len(call.attempts) + 1,
        model=place.model,
        provider=place.provider.slug,
        credential=credential.id,
        started_us=int((began - call.started) * 1_000_000),
        why=why,
    )
    call.attempts.append(attempt)
    call.asks_with(credential.secret)
    channel = call.plane.transport.channel(place.provider)
    channel.in_flight += 1
    response: Response | None = None
    failure: Failure | None = None
    try:
        response = await _send(call, channel, errand, credential, attempt)
        attempt.status = response.status
        _note(call, attempt, response, credential)
        if not 200 <= response.status < 300:
            failure = await failure_of_status(response, credential, names_model=False)
            if failure.status < 400:
                failure = Failure(MALFORMED, f"it answered with status {failure.status}")
            return failure
        call.plane.credential_forwarded(credential.id, call.endpoint.name, None)
        return await use(response, attempt)
    except Failed as failed:
        failure = failed.failure
        return failure
    except BROKE as error:
        failure = failure_of(error)
        return failure
    except BaseException:
        if response is not None:
            response.close()
        raise
    finally:
        attempt.total_us = int((time.perf_counter() - began) * 1_000_000)
        if failure is not None:
            attempt.code = charging.code_of(failure)
            call.plane.credential_forwarded(credential.id, call.endpoint.name, failure)
        channel.in_flight -= 1
        if response is not None:
            response.release()


async def _send(
    call: Call, channel: Any, errand: Errand, credential: CredentialEntry, attempt: Attempt
) -> Response:
    headers = _sent_headers(call)
    name = f"{call.id}.{attempt.n}"
    trying = Trying(call.key.project if call.key is not None else "")
    upload = errand.body
    if errand.form is not None:
        sized = [(one, value) for one, value in headers if one != "content-type"]
        sized += [("content-type", errand.form.content_type), ("content-length", str(errand.form.size))]
        formed: Response = await channel.forward(
            errand.method, errand.path, errand.query, sized, errand.form.pieces(), credential, name, trying
        )
        return formed
    if not isinstance(upload, Upload):
        response: Response = await channel.forward(
            errand.method, errand.path, errand.query, headers, upload, credential, name, trying
        )
        return response
    if upload.length is not None:
        headers.append(("content-length", str(upload.length)))
    try:
        async with upload.clock:
            data: AsyncIterator[bytes] = upload.pieces()
            response = await channel.forward(
                errand.method, errand.path, errand.query, headers, data, credential, name, trying
            )
    except TimeoutError:
        raise upload.over() from None
    except Failed:
        if upload.clock.expired():
            raise upload.over() from None
        if upload.problem is not None:
            raise upload.problem from None
        raise
    return response


def _sent_headers(call: Call) -> list[tuple[str, str]]:
    """The caller's headers, without those that stay here. Names in ``connection`` stay too (RFC 9110, section 7.6.1)."""
    named = {one.strip() for one in call.headers.get(b"connection", b"").lower().split(b",")}
    return [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in call.headers.items()
        if name not in _STAYS and name not in named and not name.startswith(_STAYS_PREFIXES)
    ]


def _note(call: Call, attempt: Attempt, response: Response, credential: CredentialEntry) -> None:
    attempt.provider_request = said_id(response.headers, credential)
    _timed(call, attempt, response)


def _timed(call: Call, attempt: Attempt, response: Response) -> None:
    took = response.headers.get("openai-processing-ms", "")
    if took.isdecimal() and len(took) < 10:
        attempt.provider_us = int(took) * 1000
    attempt.total_us = call.elapsed_us() - attempt.started_us


def _head(call: Call, response: Response) -> Headers:
    return [
        (name.encode(), value.encode("latin-1", "replace"))
        for name in _GOES_ON
        if (value := response.headers.get(name)) is not None and not call.hides(value)
    ]
