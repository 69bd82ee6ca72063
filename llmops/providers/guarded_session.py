"""The client with which the control plane itself speaks to a provider: one request or two, with one of its keys.

Only addresses that the network guard lets through, no proxy but the provider's own, no cookies, and a connection that is closed
afterwards. Whoever uses it follows no redirects: keys go to the configured address only.
"""

from __future__ import annotations

import aiohttp
from aiohttp.abc import AbstractResolver

from llmops.providers.guarded_resolver import GuardedResolver
from llmops.providers.models import Provider
from llmops.providers.probing import authorization


def guarded_session(
    provider: Provider,
    secret: str,
    *,
    deadline_s: float,
    resolver: AbstractResolver | None,
    of_project: bool = True,
    unpacks: bool = True,
) -> aiohttp.ClientSession:
    """``of_project``: whether requests name the provider's project, as calls of models do and reports of the organisation do not.
    ``unpacks``: whether compressed answers are unpacked as they come, whatever they grow to.
    """
    headers = {
        **authorization(provider.kind, secret),
        "Accept": "application/json",
        "User-Agent": "llmops-console",
    }
    if provider.organization:
        headers["OpenAI-Organization"] = provider.organization
    if of_project and provider.provider_project:
        headers["OpenAI-Project"] = provider.provider_project
    # A proxy may stand on a private network, and resolves the provider's name itself.
    guard = GuardedResolver(
        allow_private=provider.allow_private_network or bool(provider.proxy_url), inner=resolver
    )
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=guard, use_dns_cache=False, force_close=True),
        timeout=aiohttp.ClientTimeout(
            total=None,
            sock_connect=min(provider.connect_timeout_ms / 1000, deadline_s),
            sock_read=min(provider.read_timeout_ms / 1000, deadline_s),
        ),
        headers=headers,
        trust_env=False,
        auto_decompress=unpacks,
        cookie_jar=aiohttp.DummyCookieJar(),
    )
