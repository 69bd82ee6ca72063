"""POST /v1/rerank: texts in the order of how near they are to a query. Not an address of OpenAI's: Jina, Cohere and vLLM have
it, and it is here so that a path can be passed through. Fields: vLLM's and Jina's, "Rerank"."""

from __future__ import annotations

import asyncio
from operator import mul
from typing import Any

import msgspec

from llmops.simulator.asking import behaviour_of
from llmops.simulator.counting import counted
from llmops.simulator.delivery import Pace, before_answering, falsified, in_one_piece, wait
from llmops.simulator.endpoints.embeddings import vector
from llmops.simulator.errors import wrong, wrong_shape
from llmops.simulator.exchange import Exchange
from llmops.simulator.ledger import Usage

_MOST_DOCUMENTS = 1_000
_DIMENSIONS = 256


class _Document(msgspec.Struct):
    text: str


class RerankRequest(msgspec.Struct):
    model: str
    query: str
    documents: list[str | _Document]
    top_n: int | None = None
    return_documents: bool = True


async def create(exchange: Exchange) -> None:
    body = await exchange.body()
    try:
        request = msgspec.json.decode(body, type=RerankRequest)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise wrong_shape(error) from error
    exchange.model = request.model
    behaviour, profile = behaviour_of(exchange, request.model, "rerank")
    texts = [one if isinstance(one, str) else one.text for one in request.documents]
    if not request.query or not texts or len(texts) > _MOST_DOCUMENTS:
        raise wrong(
            f"Invalid 'documents': a query needs between 1 and {_MOST_DOCUMENTS} of them.",
            "documents",
            "invalid_value",
        )
    results, total = await asyncio.to_thread(_ranked, request.query, texts)
    pace = Pace.of(behaviour, profile, len(body))
    if await before_answering(exchange, behaviour, pace):
        return
    if not await wait(exchange, pace.first, lambda share: Usage(prompt=total)):
        return
    if not request.return_documents:
        for one in results:
            del one["document"]
    served = falsified({"prompt_tokens": total, "total_tokens": total}, behaviour.fault.wrong_usage)
    answer_id = exchange.new_id("rerank-")
    made: dict[str, Any] = {
        "id": answer_id,
        "model": request.model,
        "results": results[: request.top_n],
        "system_fingerprint": "simulator",
    }
    if served is not None:
        made["usage"] = served
    await in_one_piece(
        exchange, behaviour.fault, msgspec.json.encode(made), Usage(prompt=total), served, answer_id
    )


def _ranked(query: str, texts: list[str]) -> tuple[list[dict[str, Any]], int]:
    """Results, the nearest first, and the tokens of all texts, each with the query."""
    asked = vector(query, _DIMENSIONS)
    found = [
        {
            "index": index,
            "document": {"text": text},
            "relevance_score": round((1 + sum(map(mul, asked, vector(text, _DIMENSIONS)))) / 2, 6),
        }
        for index, text in enumerate(texts)
    ]
    found.sort(key=lambda one: -one["relevance_score"])
    return found, len(texts) * counted(query) + sum(map(counted, texts))
