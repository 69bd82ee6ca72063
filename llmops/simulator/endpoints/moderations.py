"""POST /v1/moderations: flags by a short list of words, so that a test knows what will be flagged."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from llmops.simulator.asking import behaviour_of
from llmops.simulator.delivery import Pace, before_answering, in_one_piece, wait
from llmops.simulator.errors import wrong, wrong_shape
from llmops.simulator.exchange import Exchange
from llmops.simulator.ledger import Usage

_WORDS = {
    "harassment": r"idiot|stupid",
    "harassment/threatening": r"i will hurt you",
    "hate": r"i hate them all",
    "hate/threatening": r"they all must go",
    "illicit": r"pick a lock|fake passport",
    "illicit/violent": r"build a bomb",
    "self-harm": r"hurt myself",
    "self-harm/intent": r"i want to hurt myself",
    "self-harm/instructions": r"how to hurt myself",
    "sexual": r"explicit scene",
    "sexual/minors": r"explicit minors",
    "violence": r"kill|murder|bomb",
    "violence/graphic": r"blood everywhere",
}
_PATTERNS = {category: re.compile(words, re.IGNORECASE) for category, words in _WORDS.items()}


class ModerationRequest(msgspec.Struct):
    input: str | list[str | dict[str, Any]]
    model: str | None = None


async def create(exchange: Exchange) -> None:
    try:
        request = msgspec.json.decode(await exchange.body(), type=ModerationRequest)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise wrong_shape(error) from error
    exchange.model = request.model or "sim-moderation"
    behaviour, profile = behaviour_of(exchange, exchange.model, "moderation")
    if not request.input:
        raise wrong("Invalid 'input': it is empty.", "input", "invalid_value")
    pace = Pace.of(behaviour, profile, len(request.input))
    if await before_answering(exchange, behaviour, pace):
        return
    if not await wait(exchange, pace.first, lambda share: Usage()):
        return
    answer_id = exchange.new_id("modr-")
    made = {
        "id": answer_id,
        "model": exchange.model,
        "results": [_result(said, behaviour.flag) for said in _said(request.input)],
        "system_fingerprint": "simulator",
    }
    await in_one_piece(exchange, behaviour.fault, msgspec.json.encode(made), Usage(), None, answer_id)


def _said(given: str | list[Any]) -> list[tuple[str, list[str]]]:
    """Each text to judge with the kinds of input it came as: a list of parts is one text."""
    if isinstance(given, str):
        return [(given, ["text"])]
    if all(isinstance(one, str) for one in given):
        return [(one, ["text"]) for one in given]
    parts = [part for part in given if isinstance(part, dict)]
    kinds = {"image" if part.get("type") == "image_url" else "text" for part in parts}
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    return [(" ".join(texts), sorted(kinds))]


def _result(said: tuple[str, list[str]], all_of_them: bool) -> dict[str, Any]:
    text, kinds = said
    found = {category: all_of_them or bool(pattern.search(text)) for category, pattern in _PATTERNS.items()}
    return {
        "flagged": any(found.values()),
        "categories": found,
        "category_scores": {category: 0.98 if hit else 0.0001 for category, hit in found.items()},
        "category_applied_input_types": dict.fromkeys(found, kinds),
    }
