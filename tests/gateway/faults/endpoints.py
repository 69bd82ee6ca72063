"""What the matrix knows of each endpoint: how it is asked, what a provider rightly answers, and how the SDK calls it.

To put an endpoint into the matrix: an entry in ``ENDPOINTS``, and rows in ``table.py`` where it differs from the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import openai

from tests.gateway.rig import DONE, chunk, completion, usage

#: The member is left out.
ABSENT: Any = object()
Call = Callable[[openai.AsyncOpenAI, str, bool], Awaitable[Any]]


@dataclass(frozen=True)
class Endpoint:
    """``whole`` makes the body of an answer and ``events`` the pieces of a stream, the last one its proper end, both with
    the given ``usage`` member. ``call`` makes the SDK ask for a model, streamed or not, and read to the end.

    ``usage`` states tokens (input, output) in the provider's words; ``cost`` is what they cost in nanodollars at the rig's
    prices.
    """

    name: str
    path: str
    call: Call
    whole: Callable[[Any], dict[str, Any]]
    events: Callable[[Any], list[bytes]] | None = None
    usage: Callable[[int, int], dict[str, Any]] = usage
    has_output: bool = True

    def cost(self, tokens: tuple[int, int]) -> int:
        return tokens[0] * 1_000 + (tokens[1] * 10_000 if self.has_output else 0)


def _with_usage(answer: dict[str, Any], used: Any) -> dict[str, Any]:
    return {name: value for name, value in (answer | {"usage": used}).items() if value is not ABSENT}


async def _chat(client: openai.AsyncOpenAI, model: str, streamed: bool) -> Any:
    messages: list[Any] = [{"role": "user", "content": "Say hello"}]
    if not streamed:
        return await client.chat.completions.create(model=model, messages=messages)
    stream = await client.chat.completions.create(model=model, messages=messages, stream=True)
    return [one async for one in stream]


def _chat_whole(used: Any) -> dict[str, Any]:
    return _with_usage(completion("Hello there, who asks?"), used)


def _chat_events(used: Any) -> list[bytes]:
    pieces = [chunk(text) for text in ("Hello", " there", ", who", " asks?")]
    pieces.append(chunk(finish="stop"))
    if used is not ABSENT:
        pieces.append(chunk(choices=[], used=used))
    return [*pieces, DONE]


def _embedding_usage(prompt: int, output: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "total_tokens": prompt}


async def _embed(client: openai.AsyncOpenAI, model: str, streamed: bool) -> Any:
    return await client.embeddings.create(model=model, input="Say hello", encoding_format="float")


def _embedded(used: Any) -> dict[str, Any]:
    answer = {
        "object": "list",
        "model": "sim-small-2024",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
    }
    return _with_usage(answer, used)


ENDPOINTS = {
    one.name: one
    for one in (
        Endpoint("chat", "/chat/completions", _chat, _chat_whole, _chat_events),
        Endpoint("embeddings", "/embeddings", _embed, _embedded, usage=_embedding_usage, has_output=False),
    )
}
