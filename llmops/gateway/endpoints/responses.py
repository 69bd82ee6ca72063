"""POST /v1/responses, and its sisters that compact and count. Fields: OpenAI API reference, "Responses"; those not named here
go through untouched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from llmops.core.errors import InvalidRequest
from llmops.core.tokens import count_chat
from llmops.gateway.endpoints.base import (
    FREE,
    MAX_TOKENS,
    MAX_USAGE_TOKENS,
    MAX_USER,
    NULL,
    Asked,
    Members,
    Raw,
    Whole,
    asked_of,
    count_member,
    encode,
    flag_member,
    member,
    naming_a_prompt,
    read_members,
    text_member,
    tier_of,
    whole_from,
    whole_of,
    with_defaults,
)
from llmops.gateway.endpoints.response_input import (
    NONE,
    UNBOUNDED,
    given,
    messages_of,
    part_bound,
    parts_of,
    read_input,
    unmetered,
)
from llmops.gateway.kept.owners import RESPONSE
from llmops.gateway.routing import Target
from llmops.gateway.streaming.events import Relay, tool_names
from llmops.gateway.streaming.responses import FINISHES, ResponsesRelay
from llmops.usage.records import Tokens

CAP = "max_output_tokens"
#: How much a count is raised to be a bound: the shape in which items are shown to a model is not published.
_MARGIN = 0.25
_MARGIN_TOKENS = 64


class Responses:
    name = "responses"
    path = "/responses"
    has_output = True
    forms = False
    capability = "chat"

    def read(self, body: bytes) -> Asked:
        members = read_members(body)
        if "prompt" in members and (named := naming_a_prompt(members, len(body))) is not None:
            return named
        return self._read(members, len(body))

    def read_whole(self, body: bytes) -> Asked:
        """The same, of a body whose prompt is in it already, or is one that the provider keeps."""
        return self._read(read_members(body), len(body))

    @staticmethod
    def _read(members: Members, size: int) -> Asked:
        asked = asked_of(members, size)
        read_input(asked)
        asked.stream = flag_member(members, "stream")
        if CAP in members:
            asked.cap, asked.cap_field = count_member(members, CAP, largest=MAX_TOKENS), CAP
        if not asked.user and "safety_identifier" in members:
            asked.user = text_member(members, "safety_identifier", longest=MAX_USER)
        if "service_tier" in members:
            asked.tier = tier_of(member(members, "service_tier"))
        asked.background = "background" in members and flag_member(members, "background")
        if not given(members, "store") or flag_member(members, "store"):
            asked.keeps = RESPONSE
        if asked.background and not asked.keeps:
            raise InvalidRequest("background: needs store to be true.", param="background")
        asked.unmetered = unmetered(members)
        return asked

    def encode(self, asked: Asked, target: Target, cap: int | None) -> bytes:
        sent = with_defaults(asked.members, target)
        if cap is not None and cap != asked.cap:
            sent[CAP] = cap
        return encode(sent)

    def input_bound(self, asked: Asked, target: Target) -> int:
        window = target.entry.context_window
        if asked.media == NONE:
            return min(asked.size, window)
        if asked.media == UNBOUNDED:
            return window
        size = asked.size
        for part in parts_of(member(asked.members, "input")):
            tokens, data = part_bound(part, target.entry.upstream_model)
            if tokens is None:
                return window
            size += tokens - data
        return min(size, window)

    def count_input(self, asked: Asked, target: Target) -> int:
        bound = self.input_bound(asked, target)
        if asked.media == UNBOUNDED:
            return bound
        tools = member(asked.members, "tools")
        counted = count_chat(
            messages_of(asked.members),
            target.entry.upstream_model,
            tools if isinstance(tools, list) else None,
        )
        shown = sum(len(bytes(asked.members.get(name, b""))) for name in ("text", "tool_choice"))
        return min(counted + int(counted * _MARGIN) + _MARGIN_TOKENS + shown, bound)

    def usage(self, raw: bytes | None) -> Tokens | None:
        return usage_of(raw)

    def whole(self, body: bytes) -> Whole | None:
        try:
            answer = _decode_answer(body)
        except msgspec.ValidationError:
            return whole_of(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if answer.object != "response" and not answer.status:
            return whole_from(answer)
        found = whole_from(answer, error_inside=False)
        found.status = answer.status or ""
        found.finish = FINISHES.get(found.status, "")
        if answer.incomplete_details is not None and answer.incomplete_details.reason:
            found.finish = answer.incomplete_details.reason
        if found.status == "failed":
            found.failed = _code_of(answer.error)
        if answer.output:
            found.tools = tool_names(_tools_of(answer.output))
            found.thought = any(item.type == "reasoning" for item in answer.output)
            found.items = [
                name
                for item in answer.output
                for name in (item.id, item.container_id)
                if name and isinstance(name, str)
            ]
        return found

    def text(self, body: bytes) -> str:
        """Text, refusals, reasoning that is shown, tool calls."""
        try:
            output = _decode_output(body).output
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return body.decode("utf-8", "replace")
        return "".join(text for item in output or () for text in _said(item))

    def relay(self, asked: Asked) -> Relay:
        return ResponsesRelay()


class Compact(Responses):
    """A pass of the model over a conversation that makes it shorter. Its output has no cap: the model's largest bounds it."""

    name = "responses.compact"
    path = "/responses/compact"

    def read(self, body: bytes) -> Asked:
        members = read_members(body)
        asked = asked_of(members, len(body))
        read_input(asked)
        if "service_tier" in members:
            asked.tier = tier_of(member(members, "service_tier"))
        asked.uncapped = True
        return asked

    def encode(self, asked: Asked, target: Target, cap: int | None) -> bytes:
        return encode(with_defaults(asked.members, target, parameters=False))


class InputTokens(Responses):
    """How many tokens an input has, as the provider counts them. Free."""

    name = "responses.input_tokens"
    path = "/responses/input_tokens"
    has_output = False
    forms = False

    def read(self, body: bytes) -> Asked:
        members = read_members(body)
        asked = asked_of(members, len(body))
        read_input(asked)
        asked.billing = FREE
        return asked

    def encode(self, asked: Asked, target: Target, cap: int | None) -> bytes:
        return encode(with_defaults(asked.members, target, parameters=False))

    def usage(self, raw: bytes | None) -> Tokens | None:
        # Nothing was used: what is counted is the answer.
        return Tokens()

    def whole(self, body: bytes) -> Whole | None:
        return whole_of(body)


RESPONSES, COMPACT, INPUT_TOKENS = Responses(), Compact(), InputTokens()


# ---------------------------------------------------------------------- what is answered


class _Reason(msgspec.Struct):
    reason: str | None = None


class _OutputItem(msgspec.Struct):
    type: str = ""
    name: str | None = None
    id: Any = None
    container_id: Any = None


class _Answer(msgspec.Struct):
    model: Any = ""
    usage: Raw = Raw()
    error: Raw = Raw()
    id: Any = ""
    service_tier: Any = None
    object: Any = ""
    status: str | None = None
    incomplete_details: _Reason | None = None
    output: list[_OutputItem] | None = None


class _Part(msgspec.Struct):
    text: str | None = None
    refusal: str | None = None


class _Spoken(msgspec.Struct):
    type: str = ""
    content: list[_Part] | None = None
    summary: list[_Part] | None = None
    name: str | None = None
    arguments: Any = None
    input: Any = None


class _Output(msgspec.Struct):
    output: list[_Spoken] | None = None


class _Error(msgspec.Struct):
    code: str | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_output = msgspec.json.Decoder(_Output).decode
_decode_error = msgspec.json.Decoder(_Error).decode


def _tools_of(output: list[_OutputItem]) -> Iterator[str]:
    for item in output:
        if item.type.endswith("_call"):
            yield item.name or item.type.removesuffix("_call")


def _said(item: _Spoken) -> Iterator[str]:
    for part in (*(item.content or ()), *(item.summary or ())):
        yield part.text or part.refusal or ""
    if item.type.endswith("_call"):
        yield item.name or ""
        for given in (item.arguments, item.input):
            if given is not None:
                yield given if isinstance(given, str) else encode(given).decode()


def _code_of(error: Raw) -> str:
    try:
        return _decode_error(error).code or "failed"
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "failed"


_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_USAGE_TOKENS)]


class _InputDetails(msgspec.Struct):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: _Count | None = None


class _Usage(msgspec.Struct):
    input_tokens: Annotated[int, msgspec.Meta(ge=1, le=MAX_USAGE_TOKENS)]
    output_tokens: _Count = 0
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


_decode_usage = msgspec.json.Decoder(_Usage).decode


def usage_of(raw: bytes | None) -> Tokens | None:
    """Tokens of a response's ``usage``, as ``believable_usage`` reads those of chat."""
    if not raw or raw == NULL:
        return None
    try:
        usage = _decode_usage(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    asked, answered = usage.input_tokens_details, usage.output_tokens_details
    cached = asked.cached_tokens or 0 if asked is not None else 0
    written = asked.cache_write_tokens or 0 if asked is not None else 0
    reasoned = answered.reasoning_tokens or 0 if answered is not None else 0
    return Tokens(
        input=usage.input_tokens,
        cached=min(cached, usage.input_tokens),
        cache_write=min(written, max(0, usage.input_tokens - cached)),
        output=usage.output_tokens,
        reasoning=min(reasoned, usage.output_tokens),
    )
