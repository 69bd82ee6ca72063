"""Policies on the chunks of chat. A choice's texts end with its finish reason.

Most texts stand where OpenAI's API has them. A provider may say the same once more in members of its own (what a model thought,
in parts; what a sound says): under the names that all texts have these are texts as well, each with a place for its key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from llmops.core.once import told_once
from llmops.gateway.endpoints.base import Raw, decode_any, encode
from llmops.gateway.policing.streams import BLOCKED, UNREADABLE, Watcher, changed
from llmops.gateway.policing.texts import (
    Path,
    answer_places,
    is_text,
    may_say_more,
    says_no_log_probabilities,
    where,
)
from llmops.gateway.streaming.events import NULL, Relay, payload_of
from llmops.gateway.streaming.shape import Shape
from llmops.policies.checks.base import Answer
from llmops.policies.decisions import Placeholders
from llmops.policies.engine import Guard


class _Function(msgspec.Struct):
    arguments: str | None = None


class _Custom(msgspec.Struct):
    input: str | None = None


class _ToolCall(msgspec.Struct):
    index: int = 0
    function: _Function | None = None
    custom: _Custom | None = None


class _Delta(msgspec.Struct):
    role: Any = None
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Sequence[_ToolCall] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: Sequence[_Choice] | None = None
    usage: Raw = Raw()


class _UsualFunction(_Function, forbid_unknown_fields=True):
    name: str | None = None


class _UsualCustom(_Custom, forbid_unknown_fields=True):
    name: str | None = None


class _UsualCall(_ToolCall, forbid_unknown_fields=True):
    id: str | None = None
    type: str | None = None
    function: _UsualFunction | None = None
    custom: _UsualCustom | None = None


class _UsualDelta(_Delta, forbid_unknown_fields=True):
    tool_calls: Sequence[_UsualCall] | None = None
    function_call: _UsualFunction | None = None


class _UsualChoice(_Choice, forbid_unknown_fields=True):
    delta: _UsualDelta | None = None
    logprobs: None = None


class _UsualChunk(_Chunk):
    """With choices that say nothing but what is known here."""

    choices: Sequence[_UsualChoice] | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_usual = msgspec.json.Decoder(_UsualChunk).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
_NAMES: dict[str | int, bytes] = {name: f'"{name}"'.encode() for name in (*_TEXTS, "arguments", "input")}
#: Beside a text that nobody knows: members that say what it is, no longer than this.
_SHORT = 64
#: choice; member of its delta, or the place of a text that stands elsewhere; tool call
Key = tuple[int, str, int]
_ELSEWHERE = -1


class _Said:
    """What a choice has said so far, for whoever judges it as a whole."""

    __slots__ = ("finish", "refusal", "text", "tools")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.finish = ""
        self.tools = False


class ChatWatcher(Watcher):
    def __init__(self, guard: Guard, placeholders: Placeholders) -> None:
        super().__init__(guard, placeholders)
        self._said: dict[int, _Said] = {}
        #: the last event with choices, for one of our own
        self._last = b"data: {}\n\n"
        #: of each text that stands where nobody knows: its place, and the last choice that had it
        self._elsewhere: dict[Key, tuple[Path, Any]] = {}
        self._ended: set[Key] = set()
        #: choices of which it is known who speaks
        self._begun: set[int] = set()

    def answers(self, schema: Any) -> list[Answer]:
        return [
            Answer("".join(one.text), one.finish, "".join(one.refusal), one.tools, schema)
            for _, one in sorted(self._said.items())
        ]

    def feed_text(self, event: bytes, text: str, shape: Shape, relay: Relay) -> bytes:
        index = shape.index
        if self.keeps:
            self._of(index).text.append(text)
        self._last = event
        key = (index, "content", 0)
        self._ended.discard(key)
        out = self.stream.feed(key, _where(key), text)
        if self.blocked:
            relay.broken = BLOCKED
            return b""
        if out == text:
            return self._withhold(shape.shown(event), relay)
        return self._withhold(shape.with_text(event, encode(out)[1:-1]), relay) if out else b""

    def plain(self, event: bytes) -> bool:
        return not may_say_more(event, 1) and (not self._hides or says_no_log_probabilities(event))

    def _event(self, event: bytes, payload: bytes, relay: Relay) -> bytes:
        chunk: _Chunk
        try:
            chunk, usual = _decode_usual(payload), True
        except msgspec.ValidationError:
            event, payload = self._silenced(event, payload)
            chunk, usual = _decode_chunk(payload), False
        choices = chunk.choices
        if not choices:
            return event
        self._last = event
        texts: dict[Path, tuple[Key, str]] = {}
        more = bool(chunk.usage) and bytes(chunk.usage) != NULL
        for place, choice in enumerate(choices):
            more = self._read(place, choice, texts) or more
        if len(texts) == 1 and usual and choices[0].finish_reason is None and len(choices) == 1:
            # As nearly all are.
            ((path, (key, text)),) = texts.items()
            if payload.count(_NAMES[path[-1]]) == 1 and b"\\u00" not in payload:
                said = self._feed(key, text)
                if said == text:
                    return event
                return changed(event, payload, {path: said}) if said or more else b""
        if not usual or may_say_more(payload, len(texts)):
            value = decode_any(payload)
            if not told_once(payload, value):
                relay.broken = UNREADABLE
                return b""
            more = self._read_elsewhere(value["choices"], choices, texts) or more
        outs = {path: self._feed(key, text) for path, (key, text) in texts.items()}
        before = []
        for choice in choices:
            if choice.finish_reason is not None:
                before += self._end_choice(choice.index, texts, outs)
        if self.blocked:
            return b""
        changes = {path: out for path, out in outs.items() if out != texts[path][1]}
        out = event
        if changes:
            # If nothing of it may go out yet, and it says nothing else, it can be left out.
            out = changed(event, payload, changes) if more or any(outs.values()) else b""
        return b"".join((*before, out)) if before else out

    def _read(self, place: int, choice: _Choice, texts: dict[Path, tuple[Key, str]]) -> bool:
        """Find the texts of a choice; true when it says more than texts."""
        index, delta = choice.index, choice.delta
        more = choice.finish_reason is not None
        if self.keeps:
            self._keep(choice)
        if delta is None:
            return more
        at: Path = ("choices", place, "delta")
        for name in _TEXTS:
            if text := getattr(delta, name):
                texts[*at, name] = (index, name, 0), text
        for number, call in enumerate(delta.tool_calls or ()):
            more = True
            path = (*at, "tool_calls", number)
            if call.function is not None and call.function.arguments:
                key = (index, "function", call.index)
                texts[*path, "function", "arguments"] = key, call.function.arguments
            if call.custom is not None and call.custom.input:
                texts[*path, "custom", "input"] = (index, "custom", call.index), call.custom.input
        if delta.function_call is not None:
            more = True
            if delta.function_call.arguments:
                key = (index, "function_call", 0)
                texts[*at, "function_call", "arguments"] = key, delta.function_call.arguments
        if delta.role and index not in self._begun:
            # Who speaks is told once.
            self._begun.add(index)
            more = True
        return more

    def _keep(self, choice: _Choice) -> None:
        said, delta = self._of(choice.index), choice.delta
        if choice.finish_reason is not None:
            said.finish = choice.finish_reason
        if delta is None:
            return
        said.tools = said.tools or bool(delta.tool_calls or delta.function_call)
        if delta.content:
            said.text.append(delta.content)
        if delta.refusal:
            said.refusal.append(delta.refusal)

    def _read_elsewhere(
        self, values: list[Any], choices: Sequence[_Choice], texts: dict[Path, tuple[Key, str]]
    ) -> bool:
        """Find the texts that stand where nobody knows; true when there are any."""
        found = False
        for path, text in answer_places({"choices": values}):
            if path not in texts:
                found = True
                place = int(path[1])
                key = (choices[place].index, where(path[2:]), _ELSEWHERE)
                self._elsewhere[key] = path[2:], values[place]
                texts[path] = key, text.text
        return found

    def _feed(self, key: Key, text: str) -> str:
        self._ended.discard(key)
        return self.stream.feed(key, _where(key), text)

    def _end_choice(
        self, index: int, texts: dict[Path, tuple[Key, str]], outs: dict[Path, str]
    ) -> list[bytes]:
        """Events with what was kept back of a choice's texts; of those of this very event it goes out in it."""
        here = {key: path for path, (key, _) in texts.items()}
        before = []
        for key in self.stream.texts():
            if key[0] == index and key not in self._ended:
                self._ended.add(key)
                rest = self.stream.feed(key, _where(key), "", last=True)
                if not rest:
                    continue
                if key in here:
                    outs[here[key]] += rest
                else:
                    before.append(self._own(key, rest))
        return before

    def _rest(self, relay: Relay) -> bytes:
        return b"".join(
            event
            for index in sorted({key[0] for key in self.stream.texts()})
            for event in self._end_choice(index, {}, {})
        )

    def _of(self, index: int) -> _Said:
        said = self._said.get(index)
        if said is None:
            said = self._said[index] = _Said()
        return said

    def _own(self, key: Key, text: str) -> bytes:
        """A chunk that says ``text`` alone, like those of the provider."""
        index, name, call = key
        choice: dict[str, Any]
        if call == _ELSEWHERE:
            path, last = self._elsewhere[key]
            choice = _alone(last, path, text)
        elif name == "function":
            choice = {"delta": {"tool_calls": [{"index": call, "function": {"arguments": text}}]}}
        elif name == "custom":
            choice = {"delta": {"tool_calls": [{"index": call, "custom": {"input": text}}]}}
        elif name == "function_call":
            choice = {"delta": {"function_call": {"arguments": text}}}
        else:
            choice = {"delta": {name: text}}
        members: dict[str, Any] = dict(_decode_members(payload_of(self._last) or b"{}"))
        members.pop("usage", None)
        members["choices"] = [{**choice, "index": index, "finish_reason": None}]
        return b"data: " + encode(members) + b"\n\n"


def _alone(value: Any, path: Path, text: str) -> Any:
    """Nothing of ``value`` but ``text`` at ``path``, and beside it the short members that say what it is."""
    if not path:
        return text
    step, below = path[0], path[1:]
    inner = _alone(value[step], below, text)
    if not isinstance(value, Mapping):
        return [inner]
    beside = {
        name: one
        for name, one in value.items()
        if not below
        and not is_text(name)
        and (isinstance(one, int) or (isinstance(one, str) and len(one) <= _SHORT))
    }
    return beside | {step: inner}


@lru_cache(maxsize=256)
def _where(key: Key) -> str:
    index, name, call = key
    path: Path = ("choices", index, "message", name)
    if call == _ELSEWHERE:
        return f"choices[{index}].{name}"
    if name in ("function", "custom"):
        path = ("choices", index, "message", "tool_calls", call)
    return where(path)
