"""POST /v1/chat/completions. Fields: OpenAI API reference, "Chat"; those not named here go through untouched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from llmops.core.errors import InvalidRequest
from llmops.core.tokens import count_chat, encoding_for, media_upper_bound
from llmops.gateway.endpoints.base import (
    MAX_TOKENS,
    Asked,
    Members,
    believable_usage,
    count_member,
    encode,
    flag_member,
    member,
    read_members,
    with_defaults,
)
from llmops.gateway.routing import Target
from llmops.usage.records import Tokens

MAX_CHOICES = 128
CAP_FIELDS = ("max_completion_tokens", "max_tokens")
#: What a provider shows to its model beyond the messages: with any of these the exact count is an estimate.
_EXTRA = ("tools", "functions", "response_format", "prediction", "web_search_options", "audio")
#: How much an estimate is raised to be a bound.
_MARGIN = 0.25
_MARGIN_TOKENS = 64


#: The letters of a part's type may be written as escapes.
_ESCAPED_LETTER = re.compile(rb"\\u00[567]")


class _Message(msgspec.Struct):
    """Only enough of a message to know that it is one."""

    role: str


_check_messages = msgspec.json.Decoder(list[_Message]).decode


class Chat:
    name = "chat.completions"
    path = "/chat/completions"
    has_output = True

    def read(self, body: bytes) -> Asked:
        members = read_members(body)
        asked = Asked(members, len(body))
        _check(members)
        asked.media = _may_hold_media(members)
        asked.stream = flag_member(members, "stream")
        asked.choices = count_member(members, "n", largest=MAX_CHOICES) or 1
        if "stream_options" in members:
            options = member(members, "stream_options")
            if options is not None:
                if not isinstance(options, dict):
                    raise InvalidRequest(
                        "stream_options: must be an object.", param="stream_options", code="invalid_type"
                    )
                if not asked.stream:
                    raise InvalidRequest(
                        "stream_options: only allowed when stream is true.", param="stream_options"
                    )
                asked.wants_usage = options.get("include_usage") is True
        for field in CAP_FIELDS:
            if field in members and (cap := count_member(members, field, largest=MAX_TOKENS)) is not None:
                asked.cap = cap if asked.cap is None else min(cap, asked.cap)
                asked.cap_field = asked.cap_field or field
        return asked

    def encode(self, asked: Asked, target: Target, cap: int | None) -> bytes:
        sent = with_defaults(asked.members, target)
        if cap is not None and cap != asked.cap:
            fields = [field for field in CAP_FIELDS if member(asked.members, field) is not None]
            for field in fields or [_cap_field(target)]:
                sent[field] = cap
        if asked.stream and not asked.wants_usage:
            options = member(asked.members, "stream_options") or {}
            sent["stream_options"] = {**options, "include_usage": True}
        return encode(sent)

    def input_bound(self, asked: Asked, target: Target) -> int:
        window = target.entry.context_window
        if not asked.media:
            return min(asked.size, window)
        messages = _messages(asked.members)
        media = media_upper_bound(messages, target.entry.upstream_model)
        if media is None:
            return window
        # The bytes of an image in base64 say nothing about its tokens; all other bytes bound theirs.
        return min(asked.size - _data_bytes(messages) + media, window)

    def count_input(self, asked: Asked, target: Target) -> int:
        model = target.entry.upstream_model
        tools = member(asked.members, "tools")
        counted = count_chat(_messages(asked.members), model, tools if isinstance(tools, list) else None)
        exact = encoding_for(model).exact and not any(name in asked.members for name in _EXTRA)
        if not exact or asked.media or b"tool_calls" in bytes(asked.members["messages"]):
            schema = asked.members.get("response_format", b"")
            counted += int(counted * _MARGIN) + _MARGIN_TOKENS + len(bytes(schema))
        return min(counted, self.input_bound(asked, target))

    def usage(self, raw: bytes | None) -> Tokens | None:
        return believable_usage(raw)


def _check(members: Members) -> None:
    raw = members.get("messages")
    if raw is None:
        raise InvalidRequest(
            "messages: missing; it is needed.", param="messages", code="missing_required_parameter"
        )
    try:
        if _check_messages(raw):
            return
    except msgspec.ValidationError as error:
        where = str(error).partition("`$")[2].rstrip("`")
        if not where:
            raise InvalidRequest(
                "messages: must be a list of messages.", param="messages", code="invalid_type"
            ) from None
        raise InvalidRequest(
            f"messages{where}: each message must be an object with a role as text.",
            param=f"messages{where}",
            code="invalid_type",
        ) from None
    except RecursionError:
        raise InvalidRequest("messages: nested too deeply.", param="messages") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest("messages: not valid JSON.", param="messages", code="invalid_json") from None
    raise InvalidRequest("messages: must not be empty.", param="messages")


def _messages(members: Members) -> list[Mapping[str, Any]]:
    return [one for one in member(members, "messages") if isinstance(one, Mapping)]


def _may_hold_media(members: Members) -> bool:
    """Whether any part of the messages could be something else than text; an escape might hide its type."""
    raw = bytes(members["messages"])
    return (
        b"image_url" in raw
        or b"input_" in raw
        or b'"file"' in raw
        or (b"\\u00" in raw and _ESCAPED_LETTER.search(raw) is not None)
    )


def _data_bytes(messages: list[Mapping[str, Any]]) -> int:
    """Characters of base64 data in the parts that ``media_upper_bound`` knows."""
    total = 0
    for message in messages:
        content = message.get("content")
        if not isinstance(content, list):
            continue
        for part in content:
            if not isinstance(part, Mapping):
                continue
            image, sound = part.get("image_url"), part.get("input_audio")
            url = image.get("url") if isinstance(image, Mapping) else image
            if (
                part.get("type") in ("image_url", "input_image")
                and isinstance(url, str)
                and url.startswith("data:")
            ):
                total += len(url)
            elif part.get("type") == "input_audio" and isinstance(sound, Mapping):
                data = sound.get("data")
                total += len(data) if isinstance(data, str) else 0
    return total


def _cap_field(target: Target) -> str:
    # OpenAI's reasoning models know the new name only; most compatible servers know the old one only.
    return "max_tokens" if target.provider.kind == "compatible" else "max_completion_tokens"


class _AnswerMessage(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: Any = None


class _AnswerChoice(msgspec.Struct):
    message: _AnswerMessage | None = None


class _Answer(msgspec.Struct):
    choices: list[_AnswerChoice] = []


_decode_answer = msgspec.json.Decoder(_Answer).decode


def answer_text(body: bytes) -> str:
    """What a whole answer says, for counting: text, refusals, tool calls; the body itself when it has another shape."""
    try:
        answer = _decode_answer(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body.decode("utf-8", "replace")
    parts = []
    for choice in answer.choices:
        if (message := choice.message) is not None:
            parts += [message.content or "", message.refusal or ""]
            if message.tool_calls:
                parts.append(encode(message.tool_calls).decode())
    return "".join(parts)


CHAT = Chat()
