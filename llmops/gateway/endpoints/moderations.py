"""POST /v1/moderations. Fields: OpenAI API reference, "Moderations". Free at the providers known; a price makes it cost."""

from __future__ import annotations

from typing import Any

from llmops.core.errors import InvalidRequest
from llmops.core.tokens import count_text
from llmops.gateway.endpoints.base import (
    MAX_MODEL,
    MAX_USER,
    UNLESS_FREE,
    Asked,
    Whole,
    believable_usage,
    encode,
    member,
    read_members,
    text_member,
    whole_of,
    with_defaults,
)
from llmops.gateway.routing import Target
from llmops.gateway.streaming.events import Relay
from llmops.usage.records import Tokens

#: What OpenAI takes when a request names no model: the route or model of that name here.
DEFAULT_MODEL = "omni-moderation-latest"


class Moderations:
    name = "moderations"
    path = "/moderations"
    has_output = False
    forms = False
    capability = "moderation"

    def read(self, body: bytes) -> Asked:
        members = read_members(body)
        if "input" not in members:
            raise InvalidRequest(
                "input: missing; it is needed.", param="input", code="missing_required_parameter"
            )
        _check(member(members, "input"))
        asked = Asked(
            members,
            len(body),
            model=text_member(members, "model", longest=MAX_MODEL) or DEFAULT_MODEL,
            user=text_member(members, "user", longest=MAX_USER),
        )
        asked.billing = UNLESS_FREE
        return asked

    def encode(self, asked: Asked, target: Target, cap: int | None) -> bytes:
        return encode(with_defaults(asked.members, target))

    def input_bound(self, asked: Asked, target: Target) -> int:
        # Each text may fill the model's window, so only the bytes bound them all.
        return asked.size

    def count_input(self, asked: Asked, target: Target) -> int:
        given = member(asked.members, "input")
        texts = [given] if isinstance(given, str) else given
        if not all(isinstance(one, str) for one in texts):
            return asked.size
        return sum(count_text(one, target.entry.upstream_model) for one in texts)

    def usage(self, raw: bytes | None) -> Tokens | None:
        return believable_usage(raw)

    def whole(self, body: bytes) -> Whole | None:
        return whole_of(body)

    def text(self, body: bytes) -> str:
        return ""

    def relay(self, asked: Asked) -> Relay:
        raise NotImplementedError("moderations are not streamed")


def _check(given: Any) -> None:
    """Text, a list of texts, or a list of parts."""
    if isinstance(given, str):
        return
    if not isinstance(given, list):
        raise InvalidRequest("input: must be text or a list.", param="input", code="invalid_type")
    for index, one in enumerate(given):
        if not isinstance(one, (str, dict)):
            raise InvalidRequest(
                f"input[{index}]: must be text, or a part with its type.",
                param=f"input[{index}]",
                code="invalid_type",
            )


MODERATIONS = Moderations()
