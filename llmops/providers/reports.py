"""Asking a provider what it says was used: pages of OpenAI's organisation API, with an administrator's key.

Beside the probe the one thing of the control plane that speaks to a provider, through the same guarded client: only to the
configured address, without redirects, never to an address that the network guard refuses. It asks for figures and runs no
model, so that there is nothing to meter. Nothing of a refusal is repeated, since providers echo parts of keys in their errors.

Shapes (openai 3.x, ``resources/admin/organization/usage.py``): ``GET /organization/usage/completions?group_by=model`` and
``GET /organization/costs?group_by=line_item`` take ``start_time`` and ``end_time`` (Unix seconds), at most 31 daily buckets a
page, and go on with ``page=<next_page>`` while ``has_more``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver

from llmops.core.errors import InvalidRequest, UpstreamError
from llmops.providers.guarded_session import guarded_session
from llmops.providers.models import Provider
from llmops.providers.probing_calls import network_sentence
from llmops.providers.rules import url_problem

#: For one page; pages and bytes of a report. A month by model is some 50 kB.
DEADLINE_S, MOST_PAGES, MOST_BYTES = 45.0, 100, 20 * 1024 * 1024

Told = Callable[[int], None]


class ReportRefused(UpstreamError):
    """A provider gave no report; the message says why and what to do, and holds no part of the key or the answer."""

    code = "report_refused"


def fetch_report(
    provider: Provider,
    secret: str,
    path: str,
    query: Mapping[str, str | int],
    *,
    told: Told = lambda pages: None,
    deadline_s: float = DEADLINE_S,
    resolver: AbstractResolver | None = None,
) -> str:
    """Every page of ``path`` (below the base URL), one after the other as they came; ``told`` hears how many there are by then.

    Raises ``ReportRefused``. Must not be called on an event loop.
    """
    if problem := url_problem(provider.base_url, allow_private=provider.allow_private_network):
        raise InvalidRequest(f"Nothing was sent: base URL of {provider.slug}: {problem}.")
    query, pages, size = dict(query), list[str](), 0
    while True:
        try:
            text = asyncio.run(_fetch(provider, secret, path, query, MOST_BYTES - size, deadline_s, resolver))
        except TimeoutError:
            raise ReportRefused(
                f"{provider.slug} did not answer completely within {deadline_s:g} s. Fetch fewer days, or try again later."
            ) from None
        pages.append(text)
        size += len(text)
        told(len(pages))
        following = _next(provider, path, text)
        if following is None:
            return "\n".join(pages)
        if len(pages) >= MOST_PAGES or following == query.get("page"):
            raise ReportRefused(f"{_asked(provider, path)} does not come to an end. Fetch fewer days.")
        query["page"] = following


async def _fetch(
    provider: Provider,
    secret: str,
    path: str,
    query: Mapping[str, str | int],
    room: int,
    deadline_s: float,
    resolver: AbstractResolver | None,
) -> str:
    """One page, over a connection of its own: there are few, and whoever hears of them may ask a database."""
    async with (
        asyncio.timeout(deadline_s),
        guarded_session(
            provider, secret, deadline_s=deadline_s, resolver=resolver, of_project=False
        ) as session,
    ):
        try:
            return await _page(session, provider, path, query, room)
        except aiohttp.ClientError as failed:
            raise ReportRefused(f"{network_sentence(failed)} Try again later.") from None


async def _page(
    session: aiohttp.ClientSession,
    provider: Provider,
    path: str,
    query: Mapping[str, str | int],
    room: int,
) -> str:
    async with session.get(
        provider.base_url + path, params=query, proxy=provider.proxy_url or None, allow_redirects=False
    ) as response:
        if response.status != 200:
            raise ReportRefused(_status_sentence(provider, path, response.status))
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > room:
                raise ReportRefused(
                    f"{_asked(provider, path)} answered with more than {MOST_BYTES // 1024 // 1024} MiB. Fetch fewer days."
                )
        try:
            return body.decode()
        except UnicodeDecodeError:
            raise ReportRefused(
                f"{_asked(provider, path)} answered with something that is no text."
            ) from None


def _next(provider: Provider, path: str, text: str) -> str | None:
    """Where the report goes on; None with its last page."""
    try:
        page = json.loads(text)
    except (ValueError, RecursionError):
        page = None
    if not isinstance(page, dict) or not isinstance(page.get("data"), list):
        raise ReportRefused(
            f"{_asked(provider, path)} answered with something else than a page of figures. Import a CSV instead."
        )
    following = page.get("next_page")
    return str(following) if page.get("has_more") and following else None


def _asked(provider: Provider, path: str) -> str:
    return f"GET {urlsplit(provider.base_url).path}{path}"


def _status_sentence(provider: Provider, path: str, status: int) -> str:
    asked = f"{_asked(provider, path)} answered {status}"
    if status in (401, 403):
        return (
            f"{provider.slug} refused the key: {asked}. It takes an administrator's key of the organisation (at OpenAI "
            "sk-admin-..., under Settings, Admin keys), not one for calls. Add it under Credentials and choose it."
        )
    if status in (404, 405, 501):
        return f"{provider.slug} does not tell figures this way: {asked}. Export a CSV there and import it."
    if status == 429:
        return f"{provider.slug} limits this key now: {asked}. Try again in some minutes."
    if 300 <= status < 400:
        return f"{asked}, a redirect, which is not followed: keys go to the configured address only. Mend the base URL."
    if status == 400:
        return f"{asked}: it does not take these days. Choose others, none older than it keeps."
    return f"{asked}. Try again later."
