"""What a turn cost, by the prices that are live: for the bound of a run, before the ledger has the call."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from llmops.providers.pricing import PriceBook
from llmops.runs.asking import Reply
from llmops.serving.snapshot import RevisionDocument
from llmops.usage.records import Tokens


def tokens_of(usage: Mapping[str, Any]) -> Tokens:
    inside, outside = _object(usage, "prompt_tokens_details"), _object(usage, "completion_tokens_details")
    return Tokens(
        input=_count(usage, "prompt_tokens"),
        cached=_count(inside, "cached_tokens"),
        cache_write=_count(inside, "cache_write_tokens"),
        output=_count(usage, "completion_tokens"),
        reasoning=_count(outside, "reasoning_tokens"),
    )


def cost_of(reply: Reply, document: RevisionDocument) -> int:
    """Nanodollars. An answer of the cache costs nothing; a model without a price counts as nothing, too (invariant 9 keeps such a
    one away from every hard budget)."""
    if reply.cache in ("hit", "joined", "stale"):
        return 0
    model = next((one for one in document.models if one.slug == reply.model), None)
    prices = PriceBook(model.prices).at(time.time()) if model is not None else None
    return prices.cost(tokens_of(reply.usage)) if prices is not None else 0


def _object(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = usage.get(name)
    return found if isinstance(found, Mapping) else {}


def _count(usage: Mapping[str, Any], name: str) -> int:
    found = usage.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else 0
