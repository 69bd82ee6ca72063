"""The transport to providers behind a proxy: aiohttp's, which knows tunnels and absolute forms.

No redirect is followed, no cookie kept, no proxy taken from the environment.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from llmops.gateway.attempts.failures import CONNECT, CUT, EXHAUSTED, FORBIDDEN, MALFORMED, TIMEOUT, Failure
from llmops.gateway.attempts.sending import OURS, Broken, Failed, Response, Sending
from llmops.gateway.http1.connection import PIECE
from llmops.gateway.http1.pool import KEEP_S
from llmops.providers.guarded_resolver import AddressRefused, GuardedResolver
from llmops.serving.snapshot import ProviderEntry

_DNS_TTL_S = 30

_sending: ContextVar[Sending] = ContextVar("gateway sending")


class _Connector(aiohttp.TCPConnector):
    """Notes when a request has a connection: from then on the provider may begin to work."""

    async def connect(self, *given: Any, **named: Any) -> Any:
        connection = await super().connect(*given, **named)
        _sending.get().sent = True
        return connection


class ProxiedRoad:
    """The connections to one provider by way of its proxy."""

    def __init__(self, provider: ProviderEntry) -> None:
        connect = provider.connect_timeout_ms / 1000
        self._base = provider.base_url.rstrip("/")
        self._session = aiohttp.ClientSession(
            connector=_Connector(
                limit=provider.max_connections,
                # A proxy resolves the provider's name itself, and may be on a private network.
                resolver=GuardedResolver(allow_private=True),
                ttl_dns_cache=_DNS_TTL_S,
                keepalive_timeout=KEEP_S,
            ),
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=provider.pool_timeout_ms / 1000 + connect,
                sock_connect=connect,
                # Runs from the moment the request is being written, so it bounds a stalled upload as well.
                sock_read=provider.read_timeout_ms / 1000,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            proxy=provider.proxy_url,
        )
        # aiohttp would send an idempotent request twice by itself, and nobody would know of it.
        self._session._retry_connection = False

    async def send(
        self,
        method: str,
        path: str,
        headers: list[tuple[str, str]],
        body: bytes | AsyncIterator[bytes] | None,
        sending: Sending,
    ) -> Response:
        """The head of the answer. Raises ``Failed``."""
        data: Any = body
        if isinstance(body, bytes) and len(body) > PIECE:
            # Written in pieces, so that other calls get their turn.
            data = io.BytesIO(body)
        _sending.set(sending)
        try:
            answer = await self._session.request(
                method,
                URL(self._base + path, encoded=True),
                data=data,
                headers=CIMultiDict(headers),
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Failed(failure_of(error)) from error
        return _Answer(answer)

    async def close(self) -> None:
        await self._session.close()


class _Answer:
    """aiohttp's answer, and its body, whose errors are told as everybody's are: a ``Response``."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.status = answer.status
        self.headers = answer.headers
        self.content_length = answer.content_length
        self.content = _Body(answer.content)

    async def read(self) -> bytes:
        with _told():
            return await self._answer.read()

    def close(self) -> None:
        self._answer.close()

    def release(self) -> object:
        return self._answer.release()


class _Body:
    def __init__(self, stream: aiohttp.StreamReader) -> None:
        self._stream = stream

    async def readany(self) -> bytes:
        with _told():
            return await self._stream.readany()

    async def read(self, most: int = -1) -> bytes:
        with _told():
            return await self._stream.read(most)

    async def iter_any(self) -> AsyncIterator[bytes]:
        with _told():
            async for piece in self._stream.iter_any():
                yield piece

    def at_eof(self) -> bool:
        return self._stream.at_eof()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except aiohttp.ClientError as error:
        raise Broken(failure_of(error)) from error


def failure_of(error: BaseException) -> Failure:
    """What an error of aiohttp means: above all whether the provider may have begun to work (and to bill)."""
    if isinstance(error, aiohttp.ClientConnectorDNSError) and isinstance(error.os_error, AddressRefused):
        return Failure(FORBIDDEN, str(error.os_error))
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Failure(TIMEOUT, "no connection within the time-out")
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno in OURS:
        return Failure(EXHAUSTED, "this server has no room for another connection")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL):
        return Failure(CONNECT, "no connection could be made")
    if isinstance(error, TimeoutError):
        return Failure(TIMEOUT, "nothing came for longer than the read time-out", billed=None)
    if isinstance(error, aiohttp.ClientResponseError):
        return Failure(MALFORMED, "the answer is not HTTP", billed=None)
    return Failure(CUT, "the connection broke", billed=None)
