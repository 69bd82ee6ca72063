"""The transport to providers: one pool for each, with its time-outs, its proxy and its guard against inside addresses.

No redirect is followed, no cookie kept, no proxy taken from the environment. An answer is asked for uncompressed, so that
it can be relayed byte by byte.
"""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from llmops.gateway.attempts import failures
from llmops.gateway.attempts.failures import (
    CONNECT,
    CUT,
    FORBIDDEN,
    MALFORMED,
    TIMEOUT,
    Failure,
    failure_of_error,
    retry_after,
)
from llmops.gateway.forms.spool import Upload
from llmops.providers.guarded_resolver import AddressRefused, GuardedResolver
from llmops.providers.network_guard import host_refusal
from llmops.serving.snapshot import CredentialEntry, ProviderEntry

USER_AGENT = "llmops-console"
MAX_ANSWER_BYTES = 256 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
#: Bodies beyond this are written in pieces, so that other calls get their turn.
_PIECEWISE_BYTES = 256 * 1024
_KEEP_ALIVE_S = 30.0
_DNS_TTL_S = 30

Response = aiohttp.ClientResponse


class Failed(Exception):
    """An attempt failed before anything of its answer could be used."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Sending(Protocol):
    """Whoever sends a request, and wants to know whether the provider may have got any of it."""

    sent: bool


class _Looking:
    """A request that costs nothing, wherever it got to."""

    sent = False


_sending: ContextVar[Sending] = ContextVar("gateway sending")


class _Connector(aiohttp.TCPConnector):
    """Notes when a request has a connection: from then on the provider may begin to work."""

    async def connect(self, *given: Any, **named: Any) -> Any:
        connection = await super().connect(*given, **named)
        _sending.get().sent = True
        return connection


class Channel:
    """The connections to one provider as it is configured now."""

    def __init__(self, provider: ProviderEntry) -> None:
        self.provider = provider
        self.in_flight = 0
        self.retired = False
        base = URL(provider.base_url)
        self._refusal = host_refusal(base.host or "", allow_private=provider.allow_private_network)
        self._base = provider.base_url.rstrip("/")
        self._urls: dict[str, URL] = {}
        self._names_attempts = provider.kind == "simulator"
        self._key_header = "api-key" if provider.kind == "azure" else "Authorization"
        connect = provider.connect_timeout_ms / 1000
        headers = CIMultiDict(
            {"Content-Type": "application/json", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
        )
        if provider.organization:
            headers["OpenAI-Organization"] = provider.organization
        if provider.provider_project:
            headers["OpenAI-Project"] = provider.provider_project
        self._session = aiohttp.ClientSession(
            connector=_Connector(
                limit=provider.max_connections,
                # A proxy resolves the provider's name itself, and may be on a private network.
                resolver=GuardedResolver(
                    allow_private=provider.allow_private_network or bool(provider.proxy_url)
                ),
                ttl_dns_cache=_DNS_TTL_S,
                keepalive_timeout=_KEEP_ALIVE_S,
            ),
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=provider.pool_timeout_ms / 1000 + connect,
                sock_connect=connect,
                # Runs from the moment the request is being written, so it bounds a stalled upload as well.
                sock_read=provider.read_timeout_ms / 1000,
            ),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            proxy=provider.proxy_url or None,
        )
        # aiohttp would send an idempotent request twice by itself, and nobody would know of it.
        self._session._retry_connection = False

    async def send(
        self, path: str, body: bytes | Upload, credential: CredentialEntry, attempt_id: str, sending: Sending
    ) -> Response:
        """POST ``body``; the answer's head. Raises ``Failed``, never for a status. Marks ``sending`` as sent in time."""
        if self._refusal is not None:
            raise Failed(Failure(FORBIDDEN, self._refusal))
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = URL(self._base + path, encoded=True)
        secret = credential.secret
        headers = {self._key_header: secret if self._key_header == "api-key" else f"Bearer {secret}"}
        if self._names_attempts:
            headers["x-llmops-attempt-id"] = attempt_id
        data: Any = body
        if isinstance(body, Upload):
            headers["Content-Type"], headers["Content-Length"] = body.content_type, str(body.size)
            data = body.pieces()
        elif len(body) > _PIECEWISE_BYTES:
            data = io.BytesIO(body)
        _sending.set(sending)
        try:
            return await self._session.post(
                url,
                data=data,
                headers=headers,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Failed(failure_of(error)) from error

    async def forward(
        self,
        method: str,
        path: str,
        query: bytes,
        headers: list[tuple[str, str]],
        data: bytes | AsyncIterator[bytes] | None,
        credential: CredentialEntry,
        attempt_id: str,
        sending: Sending,
    ) -> Response:
        """The head of the answer to a request of any method, sent as it came. Raises ``Failed``, never for a status.

        ``path`` is escaped, ``query`` raw; ``headers`` go beside those of the provider, whose credential is added.
        """
        if self._refusal is not None:
            raise Failed(Failure(FORBIDDEN, self._refusal))
        url = URL(self._base + path + ("?" + query.decode("latin-1") if query else ""), encoded=True)
        secret = credential.secret
        sent = CIMultiDict(headers)
        sent[self._key_header] = secret if self._key_header == "api-key" else f"Bearer {secret}"
        if self._names_attempts:
            sent["x-llmops-attempt-id"] = attempt_id
        _sending.set(sending)
        try:
            return await self._session.request(method, url, data=data, headers=sent, allow_redirects=False)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Failed(failure_of(error)) from error

    async def close(self) -> None:
        await self._session.close()


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


def failure_of(error: BaseException) -> Failure:
    """What a transport error means: above all whether the provider may have begun to work (and to bill)."""
    if isinstance(error, aiohttp.ClientConnectorDNSError) and isinstance(error.os_error, AddressRefused):
        return Failure(FORBIDDEN, str(error.os_error))
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Failure(TIMEOUT, "no connection within the time-out")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL):
        return Failure(CONNECT, "no connection could be made")
    if isinstance(error, TimeoutError):
        return Failure(TIMEOUT, "nothing came for longer than the read time-out", billed=None)
    if isinstance(error, aiohttp.ClientResponseError):
        return Failure(MALFORMED, "the answer is not HTTP", billed=None)
    return Failure(CUT, "the connection broke", billed=None)


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
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
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
    except (aiohttp.ClientError, TimeoutError, OSError):
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
    return failures.clean(text, credential.secret)
