"""One request to a provider with one of its keys, for the probe's own purposes: the list of its models, and a test call.

Only to the configured address, without redirects, never to an address that the network guard refuses, bounded in time and bytes:
those that come, and those that a compressed answer unpacks to.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver

from llmops.core.errors import UpstreamError
from llmops.providers.guarded_session import guarded_session
from llmops.providers.models import Provider
from llmops.providers.probing_calls import network_sentence
from llmops.providers.rules import url_problem

DEADLINE_S, MOST_BYTES = 30.0, 4 * 1024 * 1024


class NotAnswered(UpstreamError):
    """No answer came; ``sent``: whether the request may have reached the provider, so that it may bill it. The message holds no
    part of the key or of an answer."""

    code = "provider_not_answering"

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


@dataclass(frozen=True, slots=True)
class Reply:
    """``seconds`` until the whole answer was there."""

    status: int
    body: bytes
    seconds: float


def ask(
    provider: Provider,
    secret: str,
    method: str,
    path: str,
    body: object = None,
    *,
    deadline_s: float = DEADLINE_S,
    resolver: AbstractResolver | None = None,
) -> Reply:
    """``path`` is below the base URL; ``body`` is sent as JSON. Raises ``NotAnswered``. Must not be called on an event loop."""
    if problem := url_problem(provider.base_url, allow_private=provider.allow_private_network):
        raise NotAnswered(f"Nothing was sent: base URL of {provider.slug}: {problem}.", sent=False)
    try:
        return asyncio.run(_ask(provider, secret, method, path, body, deadline_s, resolver))
    except TimeoutError:
        raise NotAnswered(
            f"{provider.slug} did not answer completely within {deadline_s:g} s.", sent=True
        ) from None
    except aiohttp.ClientConnectorError as failed:
        raise NotAnswered(network_sentence(failed), sent=False) from None
    except aiohttp.ClientError as failed:
        raise NotAnswered(network_sentence(failed), sent=True) from None


def asked(provider: Provider, method: str, path: str) -> str:
    """A request in words, such as ``GET /v1/models``."""
    return f"{method} {urlsplit(provider.base_url).path}{path}"


async def _ask(
    provider: Provider,
    secret: str,
    method: str,
    path: str,
    body: object,
    deadline_s: float,
    resolver: AbstractResolver | None,
) -> Reply:
    async with (
        asyncio.timeout(deadline_s),
        guarded_session(provider, secret, deadline_s=deadline_s, resolver=resolver, unpacks=False) as session,
    ):
        began = time.monotonic()
        async with session.request(
            method,
            provider.base_url + path,
            json=body,
            headers={"Accept-Encoding": "gzip"},
            proxy=provider.proxy_url or None,
            allow_redirects=False,
        ) as response:
            read = bytearray()
            async for chunk in response.content.iter_any():
                read += chunk
                if len(read) > MOST_BYTES:
                    raise _too_much(asked(provider, method, path))
            packing = response.headers.get("Content-Encoding", "").strip().lower()
            body = _unpacked(bytes(read), packing, asked(provider, method, path))
            return Reply(response.status, body, time.monotonic() - began)


def _unpacked(read: bytes, packing: str, request: str) -> bytes:
    """An answer as it was before it was compressed; never more of it in memory than may come. Raises ``NotAnswered``."""
    if not read or packing in ("", "identity"):
        return read
    if packing not in ("gzip", "x-gzip", "deflate"):
        raise NotAnswered(f"{request} answered in an encoding that was not asked for.", sent=True)
    # Whether it is gzip or zlib is seen by its first bytes.
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        found = unpacking.decompress(read, MOST_BYTES + 1)
    except zlib.error:
        raise NotAnswered(f"{request} answered with what cannot be unpacked.", sent=True) from None
    if len(found) > MOST_BYTES:
        raise _too_much(request)
    if not unpacking.eof:
        raise NotAnswered(f"{request} answered with what ends in the middle.", sent=True)
    return found


def _too_much(request: str) -> NotAnswered:
    return NotAnswered(f"{request} answered with more than {MOST_BYTES // 1024 // 1024} MiB.", sent=True)


def refusal(provider: Provider, reply: Reply, method: str, path: str) -> str:
    """What a status that is no success means, in a sentence that holds nothing of the answer."""
    told = f"{asked(provider, method, path)} answered {reply.status}"
    if reply.status in (401, 403):
        return f"{provider.slug} refused the key: {told}. Probe its credentials."
    if reply.status == 429:
        return f"{provider.slug} limits this key now, or has no credit left for it: {told}. Try again in some minutes."
    if 300 <= reply.status < 400:
        return f"{told}, a redirect, which is not followed: keys go to the configured address only. Mend the base URL."
    return f"{told}."
