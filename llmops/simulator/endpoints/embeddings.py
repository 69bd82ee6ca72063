"""POST /v1/embeddings. Vectors of unit length that depend on the words of a text only, so that texts which share
words are near each other: enough for search to find something, and no model."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import re
import sys
from array import array
from functools import lru_cache
from typing import Any

import msgspec

from llmops.core.tokens import upper_bound
from llmops.simulator.asking import behaviour_of
from llmops.simulator.counting import counted
from llmops.simulator.delivery import Pace, before_answering, falsified, in_one_piece, wait
from llmops.simulator.errors import too_long, wrong, wrong_shape
from llmops.simulator.exchange import Exchange
from llmops.simulator.ledger import Usage

_MOST_INPUTS = 2_048
_MOST_DIMENSIONS = 3_072
_WORD = re.compile(r"\w+")
_PLACES = 16
_NOISE = 0.02


class EmbeddingsRequest(msgspec.Struct):
    model: str
    input: str | list[str | int | list[int]]
    encoding_format: str | None = None
    dimensions: int | None = None


_decode = msgspec.json.Decoder(EmbeddingsRequest).decode
_encode = msgspec.json.Encoder().encode


async def create(exchange: Exchange) -> None:
    body = await exchange.body()
    try:
        request = _decode(body)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise wrong_shape(error) from error
    exchange.model = request.model
    behaviour, profile = behaviour_of(exchange, request.model, "embedding")
    inputs = _inputs(request.input)
    dimensions = profile.dimensions if request.dimensions is None else request.dimensions
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise wrong(
            f"Invalid 'dimensions': {dimensions} is not between 1 and {_MOST_DIMENSIONS}.",
            "dimensions",
            "invalid_value",
        )
    if request.encoding_format not in (None, "float", "base64"):
        raise wrong(
            "Invalid 'encoding_format': it is 'float' or 'base64'.", "encoding_format", "invalid_value"
        )
    # Counting and hashing many texts takes long enough to make others wait.
    total = await asyncio.to_thread(_tokens, inputs, profile.context_window)
    pace = Pace.of(behaviour, profile, len(body))
    if await before_answering(exchange, behaviour, pace):
        return
    if not await wait(exchange, pace.first, lambda share: Usage(prompt=total)):
        return
    as_base64 = request.encoding_format == "base64"
    served = falsified({"prompt_tokens": total, "total_tokens": total}, behaviour.fault.wrong_usage)
    answer = await asyncio.to_thread(_answer, request.model, inputs, dimensions, as_base64, served)
    await in_one_piece(exchange, behaviour.fault, answer, Usage(prompt=total), served)


def _inputs(given: str | list[Any]) -> list[str | tuple[int, ...]]:
    """Texts, or lists of token numbers; a list of numbers is one input."""
    inputs: list[str | tuple[int, ...]]
    if isinstance(given, str):
        inputs = [given]
    elif given and all(isinstance(one, int) for one in given):
        inputs = [tuple(given)]
    elif any(isinstance(one, int) for one in given):
        raise wrong("Invalid 'input': it mixes token numbers with texts.", "input", "invalid_type")
    else:
        inputs = [one if isinstance(one, str) else tuple(one) for one in given]
    if not inputs or not all(inputs):
        raise wrong("Invalid 'input': it is empty, or one of its items is.", "input", "invalid_value")
    if len(inputs) > _MOST_INPUTS:
        raise wrong(
            f"Invalid 'input': {len(inputs)} items are more than {_MOST_INPUTS}.",
            "input",
            "array_above_max_length",
        )
    return inputs


def _tokens(inputs: list[str | tuple[int, ...]], window: int) -> int:
    total = 0
    for one in inputs:
        tokens = counted(one) if isinstance(one, str) else len(one)
        if (len(one) > window if isinstance(one, tuple) else upper_bound(one) > window) and tokens > window:
            raise too_long(window, tokens)
        total += tokens
    return total


def _answer(
    model: str,
    inputs: list[str | tuple[int, ...]],
    dimensions: int,
    as_base64: bool,
    usage: dict[str, Any] | None,
) -> bytes:
    data = []
    for index, one in enumerate(inputs):
        values = vector(one if isinstance(one, str) else " ".join(map(str, one)), dimensions)
        shown = _packed(values) if as_base64 else [round(value, 9) for value in values]
        data.append({"object": "embedding", "index": index, "embedding": shown})
    made: dict[str, Any] = {"object": "list", "data": data, "model": model, "system_fingerprint": "simulator"}
    return _encode(made if usage is None else made | {"usage": usage})


def _packed(values: array[float]) -> str:
    if sys.byteorder == "big":
        values = array("f", values)
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode()


@lru_cache(maxsize=8192)
def _places(word: str, dimensions: int) -> tuple[tuple[int, float], ...]:
    """Feature hashing (Weinberger et al. 2009): where a word counts, and with which sign."""
    digest = hashlib.shake_128(word.encode("utf-8", "surrogatepass")).digest(4 * _PLACES)
    numbers = [int.from_bytes(digest[start : start + 4], "big") for start in range(0, 4 * _PLACES, 4)]
    return tuple(((number >> 1) % dimensions, 1.0 if number & 1 else -1.0) for number in numbers)


def vector(text: str, dimensions: int) -> array[float]:
    """32-bit floats of unit length: the words' places, and a little noise from the whole text so that no two are equal."""
    noise = hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(dimensions)
    values = [(byte - 127.5) * (_NOISE / 127.5) for byte in noise]
    for word in _WORD.findall(text.lower()):
        for place, sign in _places(word, dimensions):
            values[place] += sign
    length = math.sqrt(math.fsum(value * value for value in values))
    return array("f", [value / length for value in values])
