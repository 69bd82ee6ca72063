"""The requests of a probe, and a sentence for each way in which they end."""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver

from llmops.providers.guarded_resolver import AddressRefused
from llmops.providers.guarded_session import guarded_session
from llmops.providers.models import Provider
from llmops.providers.probing import Outcome

_MOST_BYTES = 2 * 1024 * 1024


async def ask(
    provider: Provider,
    secret: str,
    chat_model: str | None,
    deadline_s: float,
    resolver: AbstractResolver | None,
) -> Outcome:
    """See ``probing.probe``; raises ``TimeoutError`` after ``deadline_s`` seconds."""
    async with (
        asyncio.timeout(deadline_s),
        guarded_session(provider, secret, deadline_s=deadline_s, resolver=resolver) as session,
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
            return Outcome(False, network_sentence(error))


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
        return Outcome(False, _status_sentence(asked, status), status)


def _status_sentence(asked: str, status: int) -> str:
    if status == 401:
        return f"The provider refused the key: {asked} answered 401."
    if status == 403:
        return f"The key is known but may not do this: {asked} answered 403."
    if status == 429:
        return f"The provider limits this key now: {asked} answered 429 (rate limit, or no credit left)."
    return f"{asked} answered {status}."


def network_sentence(error: aiohttp.ClientError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AddressRefused):
            return f"Nothing was sent: {cause}."
        # aiohttp's own error is one as well, and carries the one that says why.
        if isinstance(cause, ssl.SSLCertVerificationError):
            said = getattr(getattr(cause, "certificate_error", cause), "verify_message", "")
            return f"Nothing was sent: the TLS certificate is not valid ({said or 'it cannot be verified'})."
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
