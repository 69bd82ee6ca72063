"""Trying a provider key with a real call. One of the two things that speak to a provider directly.

``GET {base_url}/models`` is free; where a provider does not have it, one chat completion of one token is asked for.
Nothing of an answer is repeated in the outcome, since providers echo parts of keys in their errors.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver

from llmops.providers.guarded_resolver import AddressRefused, GuardedResolver
from llmops.providers.models import Provider
from llmops.providers.rules import url_problem

DEADLINE_S = 15.0
_MOST_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True)
class Outcome:
    """What came of a probe; ``message`` is a sentence that holds no part of the key or the answer."""

    works: bool
    message: str


def probe(
    provider: Provider,
    secret: str,
    *,
    chat_model: str | None = None,
    deadline_s: float = DEADLINE_S,
    resolver: AbstractResolver | None = None,
) -> Outcome:
    """Try ``secret`` at ``provider``; returns within ``deadline_s`` seconds and never raises for what a network does.

    ``chat_model`` is asked for one token where the provider lists no models. Must not be called on an event loop.
    """
    if problem := url_problem(provider.base_url, allow_private=provider.allow_private_network):
        return Outcome(False, f"Nothing was sent: base URL: {problem}.")
    try:
        return asyncio.run(_probe(provider, secret, chat_model, deadline_s, resolver))
    except TimeoutError:
        return Outcome(False, f"No complete answer came within {deadline_s:g} s.")


def authorization(kind: str, secret: str) -> dict[str, str]:
    """The header that carries a key to a provider of ``kind``."""
    return {"api-key": secret} if kind == "azure" else {"Authorization": f"Bearer {secret}"}


async def _probe(
    provider: Provider,
    secret: str,
    chat_model: str | None,
    deadline_s: float,
    resolver: AbstractResolver | None,
) -> Outcome:
    headers = {
        **authorization(provider.kind, secret),
        "Accept": "application/json",
        "User-Agent": "llmops-console",
    }
    if provider.organization:
        headers["OpenAI-Organization"] = provider.organization
    if provider.provider_project:
        headers["OpenAI-Project"] = provider.provider_project
    timeout = aiohttp.ClientTimeout(
        total=None,
        sock_connect=min(provider.connect_timeout_ms / 1000, deadline_s),
        sock_read=min(provider.read_timeout_ms / 1000, deadline_s),
    )
    # A proxy may stand on a private network, and resolves the provider's name itself.
    guard = GuardedResolver(
        allow_private=provider.allow_private_network or bool(provider.proxy_url), inner=resolver
    )
    connector = aiohttp.TCPConnector(resolver=guard, use_dns_cache=False, force_close=True)
    async with (
        asyncio.timeout(deadline_s),
        aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            headers=headers,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session,
    ):
        try:
            outcome = await _ask(session, provider, "GET", "/models", None)
            if outcome is None and chat_model:
                body = {"model": chat_model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
                outcome = await _ask(session, provider, "POST", "/chat/completions", body)
            if outcome is None:
                return Outcome(
                    False,
                    "The provider lists no models at this address (404), and no chat model of it is configured that "
                    "could be asked. Check the base URL: it goes up to and including the version, such as /v1.",
                )
            return outcome
        except aiohttp.ClientError as error:
            return Outcome(False, _network_sentence(error))


async def _ask(
    session: aiohttp.ClientSession, provider: Provider, method: str, path: str, body: object
) -> Outcome | None:
    """The outcome of one request, or None where the provider does not know this path."""
    asked = f"{method} {urlsplit(provider.base_url).path}{path}"
    async with session.request(
        method,
        provider.base_url + path,
        json=body,
        proxy=provider.proxy_url or None,
        allow_redirects=False,
    ) as response:
        status = response.status
        if 300 <= status < 400:
            return Outcome(
                False,
                f"{asked} answered {status}, a redirect, which is not followed: keys go to the configured address "
                "only. Write the final address as base URL.",
            )
        if status in (404, 405, 501):
            return None
        if 200 <= status < 300:
            read = 0
            async for chunk in response.content.iter_any():
                read += len(chunk)
                if read > _MOST_BYTES:
                    break
            if "json" not in response.content_type:
                return Outcome(
                    False,
                    f"{asked} answered {status}, but not with JSON: this is not an OpenAI-compatible API.",
                )
            return Outcome(True, f"Works: {asked} answered {status}.")
        return Outcome(False, _status_sentence(asked, status))


def _status_sentence(asked: str, status: int) -> str:
    if status == 401:
        return f"The provider refused the key: {asked} answered 401."
    if status == 403:
        return f"The key is known but may not do this: {asked} answered 403."
    if status == 429:
        return f"The provider limits this key now: {asked} answered 429 (rate limit, or no credit left)."
    return f"{asked} answered {status}."


def _network_sentence(error: aiohttp.ClientError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AddressRefused):
            return f"Nothing was sent: {cause}."
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"Nothing was sent: the TLS certificate is not valid ({cause.verify_message})."
        cause = cause.__cause__ or cause.__context__ or getattr(cause, "os_error", None)
    if isinstance(error, aiohttp.ConnectionTimeoutError | aiohttp.SocketTimeoutError):
        return "The provider did not answer in time."
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "The provider's host name could not be resolved."
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"No connection could be made ({error.os_error.strerror or 'refused'})."
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"The proxy refused the connection with {error.status}."
    return f"The connection failed ({type(error).__name__})."
