"""GET /v1/models and /v1/models/{id}; GET /simulator/models for the demo's windows and prices."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import msgspec

from llmops.simulator.asking import behaviour_of
from llmops.simulator.catalogue import CREATED, PROFILES
from llmops.simulator.exchange import Exchange


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "simulator"}


async def listing(exchange: Exchange) -> None:
    data = [_model(profile.name) for profile in PROFILES]
    await exchange.whole(msgspec.json.encode({"object": "list", "data": data}))


async def one(exchange: Exchange) -> None:
    name = unquote(exchange.path.removeprefix("/v1/models/"))
    exchange.model = name
    kind = next(
        (profile.kind for profile in PROFILES if name.startswith(profile.name)),
        "chat",
    )
    behaviour_of(exchange, name, kind)
    await exchange.whole(msgspec.json.encode(_model(name)))


async def suggested(exchange: Exchange) -> None:
    """What the demo may write into its model configs; prices in USD per million tokens."""
    data = [
        {
            "id": profile.name,
            "kind": profile.kind,
            "context_window": profile.context_window,
            "max_output_tokens": profile.max_output_tokens,
            "prices": profile.prices,
            "dimensions": profile.dimensions or None,
            "latency_ms": profile.latency,
            "tokens_per_second": profile.tps,
        }
        for profile in PROFILES
    ]
    await exchange.unrecorded(msgspec.json.encode({"object": "list", "data": data}))
