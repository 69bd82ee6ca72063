"""The transport to providers: one channel for each, with its time-outs, its proxy and its guard against inside addresses.

No redirect is followed, no cookie kept, no proxy taken from the environment, nothing sent twice. An answer is asked for
uncompressed, so that it can be relayed byte by byte. ``http1`` carries what goes straight to a provider, ``proxied`` the rest.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from yarl import URL

from llmops.gateway.attempts import refusals
from llmops.gateway.attempts.failures import CONNECT, CUT, EXHAUSTED, FORBIDDEN, MALFORMED, TIMEOUT, Failure
from llmops.gateway.attempts.refusals import failure_of_error, retry_after
from llmops.gateway.attempts.sending import BROKE, OURS, Broken, Failed, Response, Sending
from llmops.gateway.forms.spool import Upload
from llmops.gateway.http1.answer import Answer, NotHttp
from llmops.gateway.http1.connection import PIECE, Connection
from llmops.gateway.http1.dialing import Dialer, Origin
from llmops.gateway.http1.pool import NoConnectionInTime, Pool
from llmops.providers.guarded_names import AddressRefused
from llmops.providers.network_guard import host_refusal
from llmops.serving.snapshot import CredentialEntry, ProviderEntry

if TYPE_CHECKING:
    from llmops.gateway.attempts.proxied import ProxiedRoad

__all__ = ["BROKE", "Channel", "Failed", "Response", "Sending", "Transport", "failure_of", "read_whole"]

USER_AGENT = "llmops-console"
MAX_ANSWER_BYTES = 256 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
#: Heads of requests that are kept ready: some for each credential and endpoint.
_MAX_HEADS = 256
_TARGET = re.compile(r"/[\x21-\x7e]*")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
#: Methods whose requests have no body unless one is given, so that no length is said of none.
_BODILESS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))

Headers = list[tuple[str, str]]


class Channel:
    """The connections to one provider as it is configured now."""

    def __init__(self, provider: ProviderEntry) -> None:
        self.provider = provider
        self.in_flight = 0
        self.retired = False
        base = URL(provider.base_url)
        self._refusal = host_refusal(base.raw_host or "", allow_private=provider.allow_private_network)
        self._names_attempts = provider.kind == "simulator"
        self._key_header = "api-key" if provider.kind == "azure" else "Authorization"
        self._headers: Headers = [
            ("Accept", "*/*"),
            ("Content-Type", "application/json"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", USER_AGENT),
        ]
        if provider.organization:
            self._headers.append(("OpenAI-Organization", provider.organization))
        if provider.provider_project:
            self._headers.append(("OpenAI-Project", provider.provider_project))
        self._proxied = _proxied(provider) if provider.proxy_url else None
        self._pool: Pool | None = None
        self._prefix = base.raw_path.rstrip("/")
        self._authority = ""
        #: by path and secret: a request's head up to the figure of its length
        self._heads: dict[tuple[str, str], bytes] = {}
        if self._proxied is None and base.scheme in ("http", "https") and base.raw_host and base.port:
            origin = Origin(base.scheme == "https", base.raw_host, base.port)
            self._authority = origin.authority
            self._pool = Pool(
                Dialer(origin, allow_private=provider.allow_private_network),
                largest=provider.max_connections,
                pool_s=provider.pool_timeout_ms / 1000,
                connect_s=provider.connect_timeout_ms / 1000,
                read_s=provider.read_timeout_ms / 1000,
                write_s=provider.write_timeout_ms / 1000,
            )

    async def send(
        self, path: str, body: bytes | Upload, credential: CredentialEntry, attempt_id: str, sending: Sending
    ) -> Response:
        """POST ``body``; the answer's head. Raises ``Failed``, never for a status. Marks ``sending`` as sent in time."""
        pool = self._pool
        if (
            pool is None
            or self._refusal is not None
            or self._names_attempts
            or not isinstance(body, bytes)
            or len(body) > PIECE
        ):
            return await self._send(path, body, credential, attempt_id, sending)
        secret = credential.secret
        head = self._heads.get((path, secret))
        if head is None:
            head = self._head_before_length(path, secret)
        connection = pool.take()
        if connection is None:
            connection = await _connection(pool, sending.whose)
        sending.sent = True
        answer = connection.ask(b"%b%d\r\n\r\n%b" % (head, len(body), body))
        try:
            await answer.coming()
        except BaseException:
            # Cancelled: the provider is to learn it now.
            answer.close()
            raise
        if not answer.status:
            error = answer.error
            assert error is not None
            raise Failed(failure_of(error)) from error
        return answer

    def _head_before_length(self, path: str, secret: str) -> bytes:
        headers = [*self._headers, self._credential(secret)]
        head = self._render("POST", path, headers)[:-2] + b"Content-Length: "
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        self._heads[path, secret] = head
        return head

    async def _send(
        self, path: str, body: bytes | Upload, credential: CredentialEntry, attempt_id: str, sending: Sending
    ) -> Response:
        """What is not ordinary: large bodies, forms from a file, proxies, attempts that are named."""
        headers: Headers = []
        data: bytes | AsyncIterator[bytes] = body if isinstance(body, bytes) else body.pieces()
        if isinstance(body, Upload):
            headers = [("Content-Type", body.content_type), ("Content-Length", str(body.size))]
        return await self._request("POST", path, headers, data, credential, attempt_id, sending)

    async def forward(
        self,
        method: str,
        path: str,
        query: bytes,
        headers: Headers,
        data: bytes | AsyncIterator[bytes] | None,
        credential: CredentialEntry,
        attempt_id: str,
        sending: Sending,
    ) -> Response:
        """The head of the answer to a request of any method, sent as it came. Raises ``Failed``, never for a status.

        ``path`` is escaped, ``query`` raw; ``headers`` go beside those of the provider, whose credential is added. A body
        in pieces is sent with the ``Content-Length`` that ``headers`` say, or chunked.
        """
        target = path + ("?" + query.decode("latin-1") if query else "")
        return await self._request(method, target, headers, data, credential, attempt_id, sending)

    async def _request(
        self,
        method: str,
        target: str,
        given: Headers,
        data: bytes | AsyncIterator[bytes] | None,
        credential: CredentialEntry,
        attempt_id: str,
        sending: Sending,
    ) -> Response:
        if self._refusal is not None:
            raise Failed(Failure(FORBIDDEN, self._refusal))
        named = {name.lower() for name, _ in given}
        headers = [one for one in self._headers if one[0].lower() not in named]
        key_header = self._key_header.lower()
        headers += [one for one in given if one[0].lower() != key_header]
        headers.append(self._credential(credential.secret))
        if self._names_attempts:
            headers.append(("x-llmops-attempt-id", attempt_id))
        if self._proxied is not None:
            return await self._proxied.send(method, target, headers, data, sending)
        pool = self._pool
        if pool is None:
            raise Failed(Failure(CONNECT, "no connection could be made"))
        length: int | None = None
        if isinstance(data, bytes):
            length = len(data)
        elif data is not None and "content-length" in named:
            length = int(next(value for name, value in given if name.lower() == "content-length"))
        headers = [one for one in headers if one[0].lower() not in ("content-length", "transfer-encoding")]
        if length is not None or (data is None and method not in _BODILESS):
            headers.append(("Content-Length", str(length or 0)))
        elif data is not None:
            headers.append(("Transfer-Encoding", "chunked"))
        head = self._render(method, target, headers)
        connection = pool.take()
        if connection is None:
            connection = await _connection(pool, sending.whose)
        sending.sent = True
        bodiless = method == "HEAD"
        if isinstance(data, bytes) and len(data) > PIECE:
            data = _slices(data)
        if data is None or isinstance(data, bytes):
            answer = connection.ask(head + (data or b""), bodiless=bodiless)
        else:
            answer = connection.ask_in_pieces(head, data, length, bodiless=bodiless)
        return await _head_of(answer)

    def _credential(self, secret: str) -> tuple[str, str]:
        return self._key_header, secret if self._key_header == "api-key" else f"Bearer {secret}"

    def _render(self, method: str, target: str, headers: Headers) -> bytes:
        """The head of a request. Raises ``Failed`` for what would be read as something else; nothing was sent then."""
        where = self._prefix + target
        lines = [f"{method} {where} HTTP/1.1", f"Host: {self._authority}"]
        sane = _NAME.fullmatch(method) and _TARGET.fullmatch(where)
        for name, value in headers:
            sane = sane and _NAME.fullmatch(name) and _VALUE.fullmatch(value)
            lines.append(f"{name}: {value}")
        if not sane:
            raise Failed(Failure(CONNECT, "the request holds characters that cannot be sent"))
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def close(self) -> None:
        if self._proxied is not None:
            await self._proxied.close()
        if self._pool is not None:
            await self._pool.close()


async def _connection(pool: Pool, project: str) -> Connection:
    try:
        return await pool.acquire(project)
    except (OSError, ValueError) as error:
        raise Failed(_failure_to_connect(error)) from error


def _failure_to_connect(error: Exception) -> Failure:
    """Nothing was sent, so nothing is billed."""
    if isinstance(error, AddressRefused):
        return Failure(FORBIDDEN, str(error))
    if isinstance(error, NoConnectionInTime):
        return Failure(TIMEOUT, "no connection within the time-out")
    if isinstance(error, OSError) and error.errno in OURS:
        return Failure(EXHAUSTED, "this server has no room for another connection")
    return Failure(CONNECT, "no connection could be made")


async def _head_of(answer: Answer) -> Answer:
    try:
        await answer.until_head()
    except OSError as error:
        raise Failed(failure_of(error)) from error
    except BaseException:
        # Cancelled: the provider is to learn it now.
        answer.close()
        raise
    return answer


async def _slices(data: bytes) -> AsyncIterator[bytes]:
    """A large body in pieces, so that other calls get their turn."""
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


class Transport:
    """All channels of a process. A provider that was configured anew gets a new channel; the old one closes when its
    last call has ended."""

    def __init__(self) -> None:
        self._channels: dict[str, Channel] = {}
        self._retired: list[Channel] = []

    def channel(self, provider: ProviderEntry) -> Channel:
        found = self._channels.get(provider.slug)
        if found is not None and (found.provider is provider or found.provider == provider):
            found.provider = provider
            return found
        if found is not None:
            found.retired = True
            self._retired.append(found)
        channel = self._channels[provider.slug] = Channel(provider)
        return channel

    async def tidy(self) -> None:
        """Close retired channels that nobody uses any more."""
        idle = [channel for channel in self._retired if not channel.in_flight]
        self._retired = [channel for channel in self._retired if channel.in_flight]
        for channel in idle:
            await channel.close()

    async def close(self) -> None:
        for channel in [*self._channels.values(), *self._retired]:
            await channel.close()
        self._channels.clear()
        self._retired.clear()


def _proxied(provider: ProviderEntry) -> ProxiedRoad:
    # aiohttp (8 MB) is loaded where a provider lies behind a proxy.
    from llmops.gateway.attempts.proxied import ProxiedRoad

    return ProxiedRoad(provider)


def failure_of(error: BaseException) -> Failure:
    """What it means that an answer broke, one of ``BROKE``: above all whether the provider may have begun to work (and to
    bill)."""
    if isinstance(error, Broken):
        return error.failure
    if isinstance(error, TimeoutError):
        return Failure(TIMEOUT, "nothing came for longer than the read time-out", billed=None)
    if isinstance(error, NotHttp):
        return Failure(MALFORMED, "the answer is not HTTP", billed=None)
    return Failure(CUT, "the connection broke", billed=None)


def is_compressed(headers: Mapping[str, str]) -> bool:
    """Whether an answer comes compressed although it was not to. Nobody here unpacks it."""
    coding = headers.get("content-encoding")
    return coding is not None and coding.strip().lower() not in ("", "identity")


async def read_whole(response: Response) -> bytes:
    """The body of an answer. Raises ``Failed``."""
    try:
        length = response.content_length
        if length is not None and length <= MAX_ANSWER_BYTES:
            return await response.read()
        parts, size = [], 0
        async for part in response.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > MAX_ANSWER_BYTES:
                raise Failed(Failure(MALFORMED, "the answer is too large", billed=None))
        return b"".join(parts)
    except BROKE as error:
        raise Failed(failure_of(error)) from error


async def failure_of_status(
    response: Response, credential: CredentialEntry, *, names_model: bool = True
) -> Failure:
    """What a status other than 200 means. The provider's error body is kept where it is for the caller, and cleaned of
    anything that looks like a secret."""
    body = b""
    try:
        body = await response.content.read(MAX_ERROR_BYTES)
        while (more := await response.content.read(MAX_ERROR_BYTES)) and len(body) < MAX_ERROR_BYTES:
            body += more
    except BROKE:
        body = b""
    return failure_of_error(
        response.status,
        body,
        secret=credential.secret,
        retry_after=retry_after(response.headers, time.time()),
        names_model=names_model,
    )


def said_id(headers: Mapping[str, str], credential: CredentialEntry) -> str:
    """The name that a provider gave to a request; empty when it gave none, or its credential in place of one."""
    given = headers.get("x-request-id", "")
    return "" if not given or credential.secret in given else given[:120]


def clean(text: str, credential: CredentialEntry) -> str:
    """What a provider said, without its credential and without anything else that has the shape of a secret."""
    return refusals.clean(text, credential.secret)
