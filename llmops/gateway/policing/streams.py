"""Policies on streams: what may still become a match waits, what is decided goes out, everything else keeps its bytes.

A watcher is the ``Guard`` of a ``Relay``: it gets each event before it goes out. An event whose texts need not change goes
out as it came. A text is kept back in part, then its event goes out with the part that may; what was kept back comes out
with the next event of that text, or in an event of its own before the text ends.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from llmops.core.verdicts import BLOCK
from llmops.gateway.endpoints.base import Raw, encode
from llmops.gateway.policing.texts import Path, answer_places, answers_of, rewritten, where
from llmops.gateway.streaming.delta_shape import DeltaShape
from llmops.gateway.streaming.events import Relay, payload_of
from llmops.gateway.streaming.shape import Shape
from llmops.policies.checks.base import Answer, AnswerCheck, Remote, Text
from llmops.policies.decisions import Decision, Placeholders
from llmops.policies.engine import Guard
from llmops.policies.streams import Stream

#: A stream that is kept back whole may not be longer.
MAX_WITHHELD_BYTES = 8 * 1024 * 1024
BLOCKED = "a policy stopped it"
_decode_any = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


class Watcher:
    """Of any stream. ``blocked``: a policy stopped it."""

    def __init__(self, guard: Guard, placeholders: Placeholders) -> None:
        self.guard = guard
        self.placeholders = placeholders
        self.stream: Stream = guard.stream(placeholders)
        #: what was found in a text that came whole, without deltas
        self._late: Decision | None = None
        self._withheld: list[bytes] | None = [] if guard.withholds else None
        self._withheld_bytes = 0
        #: whether whole texts are needed at the end
        self.keeps = any(isinstance(rule.check, AnswerCheck | Remote) for rule in guard.after)

    @property
    def blocked(self) -> bool:
        return self.stream.blocked

    def decision(self) -> Decision:
        decision = self.stream.decision()
        for verdict in self._late.verdicts if self._late is not None else ():
            decision.add(verdict)
        return decision

    def answers(self, schema: Any) -> list[Answer]:
        raise NotImplementedError

    def feed(self, event: bytes, relay: Relay) -> bytes:
        payload = payload_of(event)
        out = event if payload is None else self._event(event, payload, relay)
        if self.blocked:
            relay.broken = BLOCKED
            return b""
        return self._withhold(out, relay)

    def feed_text(self, event: bytes, text: str, shape: Shape, relay: Relay) -> bytes:
        return self.feed(shape.shown(event), relay)

    def feed_delta(self, event: bytes, text: str, shape: DeltaShape, relay: Relay) -> bytes:
        return self.feed(event, relay)

    def end(self, relay: Relay) -> bytes:
        out = self._rest(relay)
        if self.blocked:
            relay.done, relay.broken = False, BLOCKED
            return b""
        if self._withheld is None:
            return out
        self._withheld.append(out)
        return b"".join(self._withheld)

    def _withhold(self, out: bytes, relay: Relay) -> bytes:
        if self._withheld is None:
            return out
        self._withheld.append(out)
        self._withheld_bytes += len(out)
        if self._withheld_bytes > MAX_WITHHELD_BYTES:
            relay.broken = "the answer is longer than what can be kept back for a policy"
            self._withheld.clear()
        return b""

    def _event(self, event: bytes, payload: bytes, relay: Relay) -> bytes:
        """What goes out for an event."""
        raise NotImplementedError

    def _rest(self, relay: Relay) -> bytes:
        """What was kept back of texts that did not end by themselves."""
        raise NotImplementedError


# ---------------------------------------------------------------------- chat


class _Function(msgspec.Struct):
    arguments: str | None = None


class _Custom(msgspec.Struct):
    input: str | None = None


class _ToolCall(msgspec.Struct):
    index: int = 0
    function: _Function | None = None
    custom: _Custom | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
#: choice, member of its delta, tool call
Key = tuple[int, str, int]


class _Said:
    """What a choice has said so far, for whoever judges it as a whole."""

    __slots__ = ("finish", "refusal", "text", "tools")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.finish = ""
        self.tools = False


class ChatWatcher(Watcher):
    """Chunks of chat. A choice's texts end with its finish reason."""

    def __init__(self, guard: Guard, placeholders: Placeholders) -> None:
        super().__init__(guard, placeholders)
        self._said: dict[int, _Said] = {}
        #: the last event with choices, for one of our own
        self._last = b"data: {}\n\n"
        self._ended: set[Key] = set()

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

    def _event(self, event: bytes, payload: bytes, relay: Relay) -> bytes:
        try:
            choices = _decode_chunk(payload).choices
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # Relayed unread it could say anything.
            relay.broken = "an event has a shape that policies cannot read"
            return b""
        if not choices:
            return event
        self._last = event
        changes: dict[Path, str] = {}
        before: list[bytes] = []
        silent = True
        for place, choice in enumerate(choices):
            if choice.finish_reason is not None:
                silent = False
            delta = choice.delta
            if delta is not None and self._delta(("choices", place, "delta"), choice.index, delta, changes):
                silent = False
            if choice.finish_reason is not None:
                if self.keeps:
                    self._of(choice.index).finish = choice.finish_reason
                before += self._end_choice(choice.index)
        if self.blocked:
            return b""
        out = event
        if changes:
            if silent and not any(changes.values()) and b'"usage":{' not in payload:
                # Nothing of it may go out yet, and it says nothing else.
                out = b""
            else:
                out = b"data: " + rewritten(payload, changes) + b"\n\n"
        return b"".join((*before, out)) if before else out

    def _delta(self, at: Path, index: int, delta: _Delta, changes: dict[Path, str]) -> bool:
        """Feed the texts of a delta; true when it says more than texts."""
        more = False
        if self.keeps:
            said = self._of(index)
            said.tools = said.tools or bool(delta.tool_calls or delta.function_call)
            if delta.content:
                said.text.append(delta.content)
            if delta.refusal:
                said.refusal.append(delta.refusal)
        for name in _TEXTS:
            text = getattr(delta, name)
            if text:
                self._feed((index, name, 0), (*at, name), text, changes)
        for place, call in enumerate(delta.tool_calls or ()):
            more = True
            if call.function is not None and call.function.arguments:
                path = (*at, "tool_calls", place, "function", "arguments")
                self._feed((index, "function", call.index), path, call.function.arguments, changes)
            if call.custom is not None and call.custom.input:
                path = (*at, "tool_calls", place, "custom", "input")
                self._feed((index, "custom", call.index), path, call.custom.input, changes)
        if delta.function_call is not None:
            more = True
            if delta.function_call.arguments:
                path = (*at, "function_call", "arguments")
                self._feed((index, "function_call", 0), path, delta.function_call.arguments, changes)
        return more

    def _feed(self, key: Key, path: Path, text: str, changes: dict[Path, str]) -> None:
        self._ended.discard(key)
        out = self.stream.feed(key, _where(key), text)
        if out != text:
            changes[path] = out

    def _end_choice(self, index: int) -> list[bytes]:
        """Events with what was kept back of a choice's texts."""
        out = []
        for key in self.stream.texts():
            if key[0] == index and key not in self._ended:
                self._ended.add(key)
                rest = self.stream.feed(key, _where(key), "", last=True)
                if rest:
                    out.append(self._own(key, rest))
        return out

    def _rest(self, relay: Relay) -> bytes:
        return b"".join(
            event
            for index in sorted({key[0] for key in self.stream.texts()})
            for event in self._end_choice(index)
        )

    def _of(self, index: int) -> _Said:
        said = self._said.get(index)
        if said is None:
            said = self._said[index] = _Said()
        return said

    def _own(self, key: Key, text: str) -> bytes:
        """A chunk that says ``text`` alone, like those of the provider."""
        index, name, call = key
        delta: dict[str, Any]
        if name == "function":
            delta = {"tool_calls": [{"index": call, "function": {"arguments": text}}]}
        elif name == "custom":
            delta = {"tool_calls": [{"index": call, "custom": {"input": text}}]}
        elif name == "function_call":
            delta = {"function_call": {"arguments": text}}
        else:
            delta = {name: text}
        members: dict[str, Any] = dict(_decode_members(payload_of(self._last) or b"{}"))
        members.pop("usage", None)
        members["choices"] = [{"index": index, "delta": delta, "finish_reason": None}]
        return b"data: " + encode(members) + b"\n\n"


@lru_cache(maxsize=256)
def _where(key: Key) -> str:
    index, name, call = key
    path: Path = ("choices", index, "message", name)
    if name in ("function", "custom"):
        path = ("choices", index, "message", "tool_calls", call)
    return where(path)


# ---------------------------------------------------------------------- responses


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    item_id: str | None = None
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0


_decode_event = msgspec.json.Decoder(_Event).decode
#: Events that only name what is under way.
_NAMING = frozenset(("response.created", "response.in_progress", "response.queued"))


class ResponsesWatcher(Watcher):
    """Events of a response. A text comes in deltas, then whole in its ``done`` events and in the last event of all."""

    def __init__(self, guard: Guard, placeholders: Placeholders) -> None:
        super().__init__(guard, placeholders)
        #: of each text: its last delta event, in which the rest can go out
        self._deltas: dict[Any, bytes] = {}
        #: the deltas that are known at sight, and of which text they are
        self._known: tuple[DeltaShape | None, Any] = None, None
        self._answer: dict[str, Any] = {}

    def answers(self, schema: Any) -> list[Answer]:
        return answers_of(self._answer, schema)

    def feed_delta(self, event: bytes, text: str, shape: DeltaShape, relay: Relay) -> bytes:
        known, key = self._known
        if known is not shape:
            key = _key_of(_decode_event(payload_of(event) or b"{}"))
            self._known = shape, key
        out = self.stream.feed(key, _where_item(key), text)
        self._deltas[key] = event
        if self.blocked:
            relay.broken = BLOCKED
            return b""
        if out == text:
            return self._withhold(event, relay)
        return self._withhold(shape.with_text(event, encode(out)[1:-1]), relay) if out else b""

    def _event(self, event: bytes, payload: bytes, relay: Relay) -> bytes:
        if payload == b"[DONE]":
            return event
        try:
            read = _decode_event(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            relay.broken = "an event has a shape that policies cannot read"
            return b""
        kind = read.type
        if kind in _NAMING:
            return event
        key = _key_of(read)
        if kind.endswith(".delta"):
            if not isinstance(read.delta, str):
                return event
            out = self.stream.feed(key, _where_item(key), read.delta)
            self._deltas[key] = event
            if out == read.delta:
                return event
            return _changed(event, payload, {("delta",): out}) if out else b""
        rest = self._end_text(key) if kind.endswith(".done") else b""
        return rest + self._whole(event, payload)

    def _end_text(self, key: Any) -> bytes:
        last = self._deltas.pop(key, None)
        if last is None:
            return b""
        rest = self.stream.feed(key, _where_item(key), "", last=True)
        if not rest:
            return b""
        kind, payload = key[1] + ".delta", payload_of(last) or b"{}"
        return f"event: {kind}\n".encode() + b"data: " + rewritten(payload, {("delta",): rest}) + b"\n\n"

    def _whole(self, event: bytes, payload: bytes) -> bytes:
        """Texts that are repeated whole were all decided before, so that they are changed in the same way."""
        value = _decode_any(payload)
        places = answer_places(value)
        if not places:
            return event
        texts = [Text("assistant", place.text.text, place.text.where) for place in places]
        decision = self.guard.check_texts(texts, self.placeholders)
        if decision.action == BLOCK and not self.blocked:
            self._late, self.stream.blocked = decision, True
            return b""
        if not decision.texts:
            return event
        changes = {
            place.path: decision.texts[place.text.where]
            for place in places
            if place.text.where in decision.texts
        }
        return _changed(event, payload, changes)

    def _rest(self, relay: Relay) -> bytes:
        out = [self._end_text(key) for key in list(self._deltas)]
        payload = payload_of(relay.tail)
        if payload is not None and payload != b"[DONE]":
            value = _decode_any(payload)
            answer = value.get("response") if isinstance(value, dict) else None
            self._answer = answer if isinstance(answer, dict) else {}
            relay.tail = self._whole(relay.tail, payload)
        return b"".join(out)


def _key_of(read: _Event) -> Any:
    """Of which text an event is."""
    return (read.output_index, read.type.rpartition(".")[0], read.content_index, read.summary_index)


def _changed(event: bytes, payload: bytes, changes: dict[Path, Any]) -> bytes:
    """The event with other values in its data; its other lines stay."""
    lines = [line for line in event.splitlines() if line and not line.startswith(b"data")]
    return b"".join(line + b"\n" for line in lines) + b"data: " + rewritten(payload, changes) + b"\n\n"


@lru_cache(maxsize=256)
def _where_item(key: Any) -> str:
    return where(("output", key[0], "content", key[2]))
