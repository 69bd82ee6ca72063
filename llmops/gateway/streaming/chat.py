"""What the chunks of a chat stream say. Fields: OpenAI API reference, "Chat streaming".

Usage is asked for by the console on every stream; where the client had not asked for it, it is hidden again.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llmops.gateway.streaming.events import DROP, NOT_JSON, NULL, PASS, Relay, ToolCall, payload_of
from llmops.gateway.streaming.shape import Shape, learned

_DONE = b"[DONE]"
_LEGACY = "function_call"


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Custom(msgspec.Struct):
    name: str | None = None
    input: str | None = None


class _ToolCall(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _Function | None = None
    custom: _Custom | None = None


class _Sound(msgspec.Struct):
    id: str | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    audio: _Sound | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None
    index: int = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    model: str | None = None
    id: Any = None
    service_tier: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


#: A tool's name comes in pieces, perhaps; longer ones are no names.
MAX_NAME = 1_024
#: A stream's chunks are looked at so often for what they have in common.
_LESSONS = 4


class ChatRelay(Relay):
    """Ends with ``[DONE]``."""

    __slots__ = ("_hide_usage", "_lessons", "_shape")

    def __init__(self, *, hide_usage: bool) -> None:
        super().__init__()
        self._hide_usage = hide_usage
        self._shape: Shape | None = None
        self._lessons = _LESSONS

    def feed(self, data: bytes) -> bytes:
        shape = self._shape
        if shape is None or self._buffer or (text := shape.text_in(data)) is None:
            return super().feed(data)
        if self.done or self.broken:
            return b""
        self.events += 1
        self._said(text)
        return shape.shown(data) if self.guard is None else self.guard.feed_text(data, text, shape, self)

    def _ends(self, event: bytes) -> bool:
        if payload_of(event) != _DONE:
            return False
        self.done, self.tail = True, event if event.endswith((b"\n", b"\r")) else b"data: [DONE]\n\n"
        return True

    def _event(self, event: bytes) -> object:
        shape = self._shape
        if shape is not None and (text := shape.text_in(event)) is not None:
            self.events += 1
            self._said(text)
            return shape.shown(event)
        payload = payload_of(event)
        if payload is None:
            return PASS
        if payload == _DONE:
            self.done = True
            self.tail = event
            return DROP
        try:
            chunk = _decode(payload)
        except msgspec.ValidationError:
            return self._odd(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.broken = NOT_JSON
            return DROP
        if chunk.error and bytes(chunk.error) != NULL:
            self._provider_error(bytes(chunk.error))
            return DROP
        self._read(chunk)
        self.events += 1
        if self._lessons:
            self._learn(event, chunk)
        if chunk.usage:
            usage = bytes(chunk.usage)
            if usage != NULL:
                self.usage = usage
                if self._hide_usage and not chunk.choices:
                    self.events -= 1
                    return DROP
            if self._hide_usage:
                return _without_usage(event, payload, usage)
        return PASS

    def _read(self, chunk: _Chunk) -> None:
        if chunk.model and not self.model:
            self.model = chunk.model
        if chunk.id and not self.id and isinstance(chunk.id, str):
            self.id = chunk.id
        if chunk.service_tier and isinstance(chunk.service_tier, str):
            self.tier = chunk.service_tier
        for choice in chunk.choices or ():
            if choice.finish_reason:
                self.finish = choice.finish_reason
            delta = choice.delta
            if delta is None:
                continue
            if delta.content:
                self._said(delta.content)
            if delta.tool_calls:
                for call in delta.tool_calls:
                    self._called(choice.index, call)
            if delta.function_call is not None:
                self._called(choice.index, _ToolCall(index=-1, id=_LEGACY, function=delta.function_call))
            if delta.refusal:
                self._said(delta.refusal)
            if delta.audio is not None and delta.audio.id:
                self._holds(delta.audio.id)
            if delta.reasoning_content:
                self._said(delta.reasoning_content)
            elif delta.reasoning:
                self._said(delta.reasoning)

    def _learn(self, event: bytes, chunk: _Chunk) -> None:
        """Know the next chunk at sight that says a piece of text and nothing else, as this one does."""
        if (
            chunk.choices is None
            or len(chunk.choices) != 1
            or (usage := bytes(chunk.usage)) not in (b"", NULL)
        ):
            return
        choice, hides = chunk.choices[0], self._hide_usage and bool(usage)
        if (
            choice.delta is None
            or not (text := choice.delta.content)
            or choice != _Choice(_Delta(content=text), None, choice.index)
            or (self.guard is not None and not self.guard.plain(event))
        ):
            return

        def read(probe: bytes, text: str) -> bytes | None:
            payload = payload_of(probe)
            assert payload is not None
            choice.delta = _Delta(content=text)
            return (
                None
                if _decode(payload) != chunk
                else _without_usage(probe, payload, usage)
                if hides
                else probe
            )

        self._lessons -= 1
        self._shape = learned(event, choice.index, read, text) or self._shape

    def _called(self, choice: int, call: _ToolCall) -> None:
        known = self._tools.get((choice, call.index))
        if known is None:
            kind = "function" if call.custom is None else "custom"
            known = self._tools[choice, call.index] = ToolCall(kind, call.id or "")
        name = arguments = None
        if call.function is not None:
            name, arguments = call.function.name, call.function.arguments
        elif call.custom is not None:
            name, arguments = call.custom.name, call.custom.input
        if name:
            if len(known.name) < MAX_NAME:
                known.name += name
            self._said(name)
        if arguments:
            known.add(arguments)
            self._said(arguments)


def _without_usage(event: bytes, payload: bytes, usage: bytes) -> bytes:
    """The event without its top-level ``usage`` member; every other byte stays where the member stands alone."""
    if payload.count(b'"usage"') == 1:
        for member in (b',"usage":' + usage, b'"usage":' + usage + b",", b', "usage": ' + usage):
            if event.count(member) == 1:
                return event.replace(member, b"")
    members = _decode_members(payload)
    members.pop("usage", None)
    return b"data: " + _encode(members) + b"\n\n"
