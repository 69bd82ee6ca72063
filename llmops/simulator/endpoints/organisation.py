"""GET /v1/organization/costs and /v1/organization/usage/{completions,embeddings}: what this process served since it
started, by day and model, as OpenAI's organisation API tells it (openai 3.x, ``types/admin/organization``).

Only for keys that begin with ``sk-admin-``, as at OpenAI, and for days since the simulator was started. Costs are at the catalogue's prices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import msgspec

from llmops.simulator.catalogue import profile_of
from llmops.simulator.errors import ApiError, wrong
from llmops.simulator.exchange import Exchange

_DAY_S = 86_400
#: Daily buckets on a page, unless it is asked for others, and at most.
_USUAL, _MOST = 7, {"usage": 31, "costs": 180}


async def completions(exchange: Exchange) -> None:
    await _usage(exchange, embeds=False)


async def embeddings(exchange: Exchange) -> None:
    await _usage(exchange, embeds=True)


async def costs(exchange: Exchange) -> None:
    def results(day: int) -> Iterator[dict[str, Any]]:
        for (at, endpoint, model), (_, asked, cached, answered) in sorted(exchange.app.ledger.days.items()):
            kind = "embedding" if _embeds(endpoint) else "chat"
            profile = profile_of(model.split("+", 1)[0], kind, exchange.app.any_model)
            if at != day or profile is None:
                continue
            parts = (("input", asked - cached, profile.input), ("cached input", cached, profile.cached_input), ("output", answered, profile.output))  # fmt: skip
            for name, tokens, price in parts:
                if tokens and float(price or 0):
                    yield {
                        "object": "organization.costs.result",
                        "amount": {"value": tokens * float(price) / 1_000_000, "currency": "usd"},
                        "line_item": f"{model}, {name}",
                        "project_id": None,
                    }

    await _page(exchange, "costs", results)


async def _usage(exchange: Exchange, *, embeds: bool) -> None:
    kind = "embeddings" if embeds else "completions"

    def results(day: int) -> Iterator[dict[str, Any]]:
        for (at, endpoint, model), (requests, asked, cached, answered) in sorted(
            exchange.app.ledger.days.items()
        ):
            if at == day and _embeds(endpoint) == embeds:
                found = {
                    "object": f"organization.usage.{kind}.result",
                    "input_tokens": asked,
                    "num_model_requests": requests,
                    "model": model,
                    "project_id": None,
                }
                yield (
                    found
                    if embeds
                    else {
                        **found,
                        "input_cached_tokens": cached,
                        "output_tokens": answered,
                    }
                )

    await _page(exchange, "usage", results)


def _embeds(endpoint: str) -> bool:
    return "embeddings" in endpoint


async def _page(exchange: Exchange, what: str, results: Any) -> None:
    if not exchange.header(b"authorization").partition(" ")[2].strip().startswith("sk-admin-"):
        raise ApiError(
            403,
            "You have insufficient permissions for this operation. Missing scopes: api.usage.read. Check that you have the "
            "correct role in your organization, and if you're using a restricted API key, that it has the necessary scopes.",
        )
    asked = parse_qs(exchange.query.decode("latin-1"))

    def number(name: str, default: int) -> int:
        try:
            return int(asked.get(name, [str(default)])[0])
        except ValueError as error:
            raise wrong(f"'{name}' is a whole number.", name) from error

    start, end = number("start_time", -1), number("end_time", int(exchange.started) + _DAY_S)
    if start < 0:
        raise wrong("Missing required parameter: 'start_time'.", "start_time")
    began = exchange.app.ledger.began // _DAY_S
    if start // _DAY_S < began:
        raise wrong(
            f"This simulator knows what it served since it was started, on day {began} since 1970; choose days from then on.",
            "start_time",
        )
    limit = number("limit", _USUAL)
    if not 1 <= limit <= _MOST[what]:
        raise wrong(f"'limit' is from 1 to {_MOST[what]}.", "limit")
    first, last = start // _DAY_S, -(-end // _DAY_S)
    at = number("page", first)
    until = min(last, at + limit)
    buckets = [
        {
            "object": "bucket",
            "start_time": day * _DAY_S,
            "end_time": (day + 1) * _DAY_S,
            "results": list(results(day)),
        }
        for day in range(max(at, first), until)
    ]
    more = until < last
    body = {
        "object": "page",
        "data": buckets,
        "has_more": more,
        "next_page": str(until) if more else None,
    }
    await exchange.whole(msgspec.json.encode(body))
