"""Trying a provider key with a real call. One of the two things that speak to a provider directly.

``GET {base_url}/models`` is free; where a provider does not have it, one chat completion of one token is asked for.
Nothing of an answer is repeated in the outcome, since providers echo parts of keys in their errors.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmops.providers.models import Provider
from llmops.providers.rules import url_problem

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

DEADLINE_S = 15.0


@dataclass(frozen=True)
class Outcome:
    """What came of a probe; ``message`` is a sentence that holds no part of the key or the answer. ``status``: what the
    provider answered with when it refused, 0 when nothing came."""

    works: bool
    message: str
    status: int = 0


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
    # Loading the HTTP client takes every process that holds this app a fifth of its start; hardly any probes a key.
    from llmops.providers.probing_calls import ask

    try:
        return asyncio.run(ask(provider, secret, chat_model, deadline_s, resolver))
    except TimeoutError:
        return Outcome(False, f"No complete answer came within {deadline_s:g} s.")


def authorization(kind: str, secret: str) -> dict[str, str]:
    """The header that carries a key to a provider of ``kind``."""
    return {"api-key": secret} if kind == "azure" else {"Authorization": f"Bearer {secret}"}
