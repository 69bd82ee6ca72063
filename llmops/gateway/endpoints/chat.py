"""POST /v1/chat/completions. Fields: OpenAI API reference, "Chat"; those not named here go through untouched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec

from llmops.core.errors import InvalidRequest
from llmops.core.tokens import count_chat, encoding_for, media_upper_bound
from llmops.gateway.endpoints.base import (
    ESCAPED,
    MAX_MODEL,
    MAX_TOKENS,
    MAX_USER,
    NULL,
    Asked,
    Members,
    Reference,
    Whole,
    asked_of,
    believable_usage,
    count_member,
    encode,
    flag_member,
    member,
    naming_a_prompt,
    read_members,
    tier_of,
    voice_of,
    whole_from,
    whole_of,
    with_defaults,
)
from llmops.gateway.kept.owners import AUDIO, FILE
from llmops.gateway.kept.owners import CHAT as CHAT_COMPLETION
from llmops.gateway.routing import Target
from llmops.gateway.streaming.chat import ChatRelay
from llmops.gateway.streaming.events import Relay, tool_names
from llmops.providers.pricing import AUDIO_IN, AUDIO_OUT, IMAGE_IN
from llmops.usage.records import Tokens

MAX_CHOICES = 128
CAP_FIELDS = ("max_completion_tokens", "max_tokens")
#: What a provider shows to its model beyond the messages: with any of these the exact count is an estimate.
_EXTRA = ("tools", "functions", "response_format", "prediction", "web_search_options", "audio")
#: How much an estimate is raised to be a bound.
_MARGIN = 0.25
_MARGIN_TOKENS = 64


_WEB_SEARCH = "web_search_options"
#: What messages hold beside text: nothing, content in parts, something whose tokens are not in the request.
NONE, PARTS, UNBOUNDED = 0, 1, 2
_LIST = ord("[")


class _Message(msgspec.Struct):
    """Only enough of a message to know that it is one, and whether it is all text."""

    role: str
    content: msgspec.Raw = msgspec.Raw()
    audio: msgspec.Raw = msgspec.Raw()


_check_messages = msgspec.json.Decoder(list[_Message]).decode
_Cap = Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS)]


class _Ordinary(msgspec.Struct):
    """A body in which everything that is looked at has the right type and bounds, which nearly all have."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_MODEL)]
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: msgspec.Raw = msgspec.Raw()
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)] | None = None
    max_completion_tokens: _Cap | None = None
    max_tokens: _Cap | None = None
    user: Annotated[str, msgspec.Meta(max_length=MAX_USER)] | None = None
    service_tier: str | None = None
    audio: msgspec.Raw = msgspec.Raw()
    store: bool | None = None
    web_search_options: msgspec.Raw = msgspec.Raw()


_decode_ordinary = msgspec.json.Decoder(_Ordinary).decode


def _ordinary(body: bytes, members: Members) -> Asked | None:
    """An ordinary body, read at once; None when it is not one, for whatever reason."""
    try:
        found = _decode_ordinary(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if found.stream_options:
        return None
    asked = Asked(members, len(body), model=found.model, user=found.user or "")
    asked.media = _media_of(found.messages)
    if asked.media:
        asked.uses = AUDIO_IN | IMAGE_IN
        asked.refers = _kept(members)
    if found.audio:
        asked.uses |= AUDIO_OUT
        asked.refers += _voice(members)
    if found.service_tier is not None:
        asked.tier = tier_of(found.service_tier)
    if found.store:
        asked.keeps = CHAT_COMPLETION
    if found.web_search_options and bytes(found.web_search_options) != NULL:
        asked.unmetered = _WEB_SEARCH
    asked.stream = found.stream is True
    asked.choices = found.n or 1
    new, old = found.max_completion_tokens, found.max_tokens
    if new is not None:
        asked.cap, asked.cap_field = new if old is None else min(new, old), CAP_FIELDS[0]
    elif old is not None:
        asked.cap, asked.cap_field = old, CAP_FIELDS[1]
    return asked


class Chat:
    name = "chat.completions"
    path = "/chat/completions"
    has_output = True
    forms = False
    capability = "chat"

    def read(self, body: bytes) -> Asked:
        members = read_members(body)
        if "prompt" in members and (named := naming_a_prompt(members, len(body))) is not None:
            return named
        return _ordinary(body, members) or self._read_with_care(body, members)

    def read_whole(self, body: bytes) -> Asked:
        """The same, of a body whose prompt is in it already."""
        members = read_members(body)
        return _ordinary(body, members) or self._read_with_care(body, members)

    @staticmethod
    def _read_with_care(body: bytes, members: Members) -> Asked:
        """Member by member, naming the one that is wrong."""
        asked = asked_of(members, len(body))
        asked.media = _media_of(_checked_messages(members))
        if asked.media:
            asked.uses = AUDIO_IN | IMAGE_IN
            asked.refers = _kept(members)
        if "store" in members and flag_member(members, "store"):
            asked.keeps = CHAT_COMPLETION
        if member(members, "web_search_options") is not None:
            asked.unmetered = _WEB_SEARCH
        if member(members, "audio") is not None:
            asked.uses |= AUDIO_OUT
            asked.refers += _voice(members)
        if "service_tier" in members:
            asked.tier = tier_of(member(members, "service_tier"))
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
            for field in fields or [cap_field(target)]:
                sent[field] = cap
        if asked.stream and not asked.wants_usage:
            options = member(asked.members, "stream_options") or {}
            sent["stream_options"] = {**options, "include_usage": True}
        return encode(sent)

    def input_bound(self, asked: Asked, target: Target) -> int:
        window = target.entry.context_window
        if asked.media == NONE:
            return min(asked.size, window)
        if asked.media == UNBOUNDED:
            return window
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

    def whole(self, body: bytes) -> Whole | None:
        try:
            head = _decode_head(body)
        except msgspec.ValidationError:
            return whole_of(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        found = whole_from(head)
        choices = head.choices
        if choices:
            found.finish = choices[0].finish_reason or ""
            for choice in choices:
                if (said := choice.message) is None:
                    continue
                if not found.tools and (said.tool_calls or said.function_call):
                    found.tools = tool_names(_tools_of(choices))
                if said.audio is not None and said.audio.id:
                    found.items.append(said.audio.id)
        return found

    def text(self, body: bytes) -> str:
        """Reasoning that is shown, text, refusals, tool calls."""
        try:
            answer = _decode_answer(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return body.decode("utf-8", "replace")
        parts = []
        for choice in answer.choices:
            if (message := choice.message) is not None:
                thought = message.reasoning_content or message.reasoning
                parts += [
                    thought if isinstance(thought, str) else "",
                    message.content or "",
                    message.refusal or "",
                ]
                if message.tool_calls:
                    parts.append(encode(message.tool_calls).decode())
        return "".join(parts)

    def relay(self, asked: Asked) -> Relay:
        return ChatRelay(hide_usage=not asked.wants_usage)


def _checked_messages(members: Members) -> list[_Message]:
    raw = members.get("messages")
    if raw is None:
        raise InvalidRequest(
            "messages: missing; it is needed.", param="messages", code="missing_required_parameter"
        )
    try:
        if messages := _check_messages(raw):
            return messages
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


def _media_of(messages: list[_Message]) -> int:
    """Whether the messages may hold anything else than text, without decoding what they hold."""
    found = NONE
    for message in messages:
        if message.audio:
            return UNBOUNDED
        content = message.content
        if content and memoryview(content)[0] == _LIST:
            found = PARTS
    return found


def _kept(members: Members) -> tuple[Reference, ...]:
    """The files at the provider that the messages name, and what assistants said aloud before."""
    raw = bytes(members["messages"])
    if b'"file_id"' not in raw and b'"audio"' not in raw and not ESCAPED.search(raw):
        return ()
    found = []
    for index, message in enumerate(_messages(members)):
        sound = message.get("audio")
        name = sound.get("id") if isinstance(sound, Mapping) else None
        if isinstance(name, str) and name:
            found.append(Reference(AUDIO, name, f"messages[{index}].audio.id", "not_found", "sound"))
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            file = part.get("file") if isinstance(part, Mapping) else None
            name = file.get("file_id") if isinstance(file, Mapping) else None
            if isinstance(name, str) and name:
                found.append(Reference(FILE, name, f"messages[{index}].content", "not_found", "file"))
    return tuple(found)


def _voice(members: Members) -> tuple[Reference, ...]:
    """The voice in which to answer, where it is one that the provider keeps."""
    audio = member(members, "audio")
    return voice_of(audio.get("voice"), "audio.voice.id") if isinstance(audio, Mapping) else ()


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


def cap_field(target: Target) -> str:
    # OpenAI's reasoning models know the new name only; most compatible servers know the old one only.
    return "max_tokens" if target.provider.kind == "compatible" else "max_completion_tokens"


class _AnswerMessage(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: Any = None
    reasoning_content: Any = None
    reasoning: Any = None


class _AnswerChoice(msgspec.Struct):
    message: _AnswerMessage | None = None


class _Answer(msgspec.Struct):
    choices: list[_AnswerChoice] = []


class _HeadName(msgspec.Struct):
    name: str = ""


class _HeadTool(msgspec.Struct):
    function: _HeadName | None = None
    custom: _HeadName | None = None


class _HeadSound(msgspec.Struct):
    id: str | None = None


class _HeadMessage(msgspec.Struct):
    audio: _HeadSound | None = None
    tool_calls: list[_HeadTool] | None = None
    function_call: _HeadName | None = None


class _HeadChoice(msgspec.Struct):
    finish_reason: str | None = None
    message: _HeadMessage | None = None


class _Head(msgspec.Struct):
    model: str = ""
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    id: Any = ""
    service_tier: Any = None
    choices: list[_HeadChoice] = []


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_head = msgspec.json.Decoder(_Head).decode


def _tools_of(choices: list[_HeadChoice]) -> Iterator[str]:
    for choice in choices:
        message = choice.message
        if message is None:
            continue
        for tool in message.tool_calls or ():
            called = tool.function or tool.custom
            if called is not None:
                yield called.name
        if message.function_call is not None:
            yield message.function_call.name


CHAT = Chat()
