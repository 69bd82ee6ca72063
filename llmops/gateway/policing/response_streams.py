"""Policies on the events of a response. A text comes in deltas, then whole in its ``done`` events and in the last event of all."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from llmops.core.once import told_once
from llmops.core.verdicts import BLOCK
from llmops.gateway.endpoints.base import decode_any, encode
from llmops.gateway.policing.streams import BLOCKED, UNREADABLE, Watcher, changed, with_data
from llmops.gateway.policing.texts import (
    Path,
    answer_places,
    answers_of,
    may_say_more,
    rewritten,
    says_no_log_probabilities,
    where,
)
from llmops.gateway.streaming.delta_shape import DeltaShape
from llmops.gateway.streaming.events import Relay, payload_of
from llmops.policies.checks.base import Answer, Text
from llmops.policies.decisions import Placeholders
from llmops.policies.engine import Guard


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    item_id: str | None = None
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0


class _Delta(_Event, forbid_unknown_fields=True):
    """As nearly all are that say a piece of a text."""

    delta: str = ""
    sequence_number: int = 0
    obfuscation: str = ""
    logprobs: Annotated[list[Any], msgspec.Meta(max_length=0)] | None = None


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_delta = msgspec.json.Decoder(_Delta).decode
_DELTA = b'.delta"'
#: Events that only name what is under way.
_NAMING = frozenset(("response.created", "response.in_progress", "response.queued"))
_says_something = re.compile(rb'"output"\s*+:\s*+(?!null|\[\s*+\])').search


class ResponsesWatcher(Watcher):
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

    def plain(self, event: bytes) -> bool:
        return not may_say_more(event, 0) and (not self._hides or says_no_log_probabilities(event))

    def _event(self, event: bytes, payload: bytes, relay: Relay) -> bytes:
        if payload == b"[DONE]":
            return event
        if _DELTA in payload:
            try:
                usual = _decode_delta(payload)
            except msgspec.ValidationError:
                pass
            else:
                if usual.type.endswith(".delta") and payload.count(b'"delta"') == 1:
                    return self._delta(event, payload, _key_of(usual), usual.delta, more=False)
        event, payload = self._silenced(event, payload)
        read = _decode_event(payload)
        kind = read.type
        if kind in _NAMING and _says_something(payload) is None:
            return event
        key = _key_of(read)
        if kind.endswith(".delta") and isinstance(read.delta, str):
            if not told_once(payload, decode_any(payload)):
                relay.broken = UNREADABLE
                return b""
            return self._delta(event, payload, key, read.delta, more=may_say_more(payload, 0))
        rest = self._end_text(key) if kind.endswith(".done") else b""
        return rest + self._whole(event, payload)

    def _delta(self, event: bytes, payload: bytes, key: Any, text: str, *, more: bool) -> bytes:
        """``more``: it may say something beside its delta."""
        out = self.stream.feed(key, _where_item(key), text)
        self._deltas[key] = event
        if out != text:
            if not (out or more):
                return b""
            payload = rewritten(payload, {("delta",): out})
            event = with_data(event, payload)
        # What stands beside a delta is no part of it.
        return self._whole(event, payload) if more else event

    def _end_text(self, key: Any) -> bytes:
        last = self._deltas.pop(key, None)
        if last is None:
            return b""
        rest = self.stream.feed(key, _where_item(key), "", last=True)
        if not rest:
            return b""
        kind, payload = key[1] + ".delta", payload_of(last) or b"{}"
        changes: dict[Path, Any] = {("delta",): rest}
        if may_say_more(payload, 0):
            # What stood beside that delta was told with it.
            changes |= dict.fromkeys((place.path for place in answer_places(decode_any(payload))), "")
        return f"event: {kind}\n".encode() + b"data: " + rewritten(payload, changes) + b"\n\n"

    def _whole(self, event: bytes, payload: bytes) -> bytes:
        """Texts that are repeated whole were all decided before, so that they are changed in the same way."""
        value = decode_any(payload)
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
        return changed(event, payload, changes)

    def _rest(self, relay: Relay) -> bytes:
        out = [self._end_text(key) for key in list(self._deltas)]
        payload = payload_of(relay.tail)
        if payload is not None and payload != b"[DONE]":
            tail, payload = self._silenced(relay.tail, payload)
            value = decode_any(payload)
            answer = value.get("response") if isinstance(value, dict) else None
            self._answer = answer if isinstance(answer, dict) else {}
            relay.tail = self._whole(tail, payload)
        return b"".join(out)


def _key_of(read: _Event) -> Any:
    """Of which text an event is."""
    return (read.output_index, read.type.rpartition(".")[0], read.content_index, read.summary_index)


@lru_cache(maxsize=256)
def _where_item(key: Any) -> str:
    return where(("output", key[0], "content", key[2]))
