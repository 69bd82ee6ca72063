"""POST /v1/embeddings. Fields: OpenAI API reference, "Embeddings"; those not named here go through untouched."""

from __future__ import annotations

from typing import Any

from llmops.core.errors import InvalidRequest
from llmops.core.tokens import count_text
from llmops.gateway.endpoints.base import (
    Asked,
    Whole,
    asked_of,
    believable_usage,
    encode,
    member,
    read_members,
    whole_of,
    with_defaults,
)
from llmops.gateway.routing import Target
from llmops.gateway.streaming.events import Relay
from llmops.usage.records import Tokens

MAX_INPUTS = 2048


class Embeddings:
    name = "embeddings"
    path = "/embeddings"
    has_output = False
    forms = False
    capability = "embeddings"

    def read(self, body: bytes) -> Asked:
        members = read_members(body)
        asked = asked_of(members, len(body))
        if "input" not in members:
            raise InvalidRequest(
                "input: missing; it is needed.", param="input", code="missing_required_parameter"
            )
        _check(member(members, "input"))
        return asked

    def encode(self, asked: Asked, target: Target, cap: int | None) -> bytes:
        return encode(with_defaults(asked.members, target))

    def input_bound(self, asked: Asked, target: Target) -> int:
        # Each input may fill the window of the model, so the window bounds nothing here. A token given as a number takes
        # at least two bytes ("1,").
        return asked.size

    def count_input(self, asked: Asked, target: Target) -> int:
        given = member(asked.members, "input")
        inputs = given if isinstance(given, list) else [given]
        if inputs and isinstance(inputs[0], int):
            return len(inputs)
        model = target.entry.upstream_model
        return sum(len(one) if isinstance(one, list) else count_text(one, model) for one in inputs)

    def usage(self, raw: bytes | None) -> Tokens | None:
        return believable_usage(raw)

    def whole(self, body: bytes) -> Whole | None:
        return whole_of(body)

    def text(self, body: bytes) -> str:
        return ""

    def relay(self, asked: Asked) -> Relay:
        raise NotImplementedError("embeddings are not streamed")


def _check(given: Any) -> None:
    """Text, a list of texts, a list of tokens, or a list of lists of tokens."""
    if isinstance(given, str):
        if not given:
            raise InvalidRequest("input: must not be empty.", param="input")
        return
    if not isinstance(given, list):
        raise InvalidRequest("input: must be text or a list.", param="input", code="invalid_type")
    if not given:
        raise InvalidRequest("input: must not be empty.", param="input")
    if all(_is_token(one) for one in given):
        return
    if len(given) > MAX_INPUTS:
        raise InvalidRequest(f"input: more than {MAX_INPUTS} inputs.", param="input")
    for index, one in enumerate(given):
        good = isinstance(one, str) or (isinstance(one, list) and all(_is_token(token) for token in one))
        if not good or type(one) is not type(given[0]):
            raise InvalidRequest(
                f"input[{index}]: must be text, or a list of tokens, the same for all.",
                param=f"input[{index}]",
                code="invalid_type",
            )
        if not one:
            raise InvalidRequest(f"input[{index}]: must not be empty.", param=f"input[{index}]")


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


EMBEDDINGS = Embeddings()
