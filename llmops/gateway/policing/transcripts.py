"""Policies on the stream of a transcript, which tells everything twice or three times: in deltas, in parts, and whole."""

from __future__ import annotations

from typing import Any

from llmops.gateway.endpoints.base import decode_any
from llmops.gateway.policing.response_streams import ResponsesWatcher
from llmops.gateway.policing.texts import answers_of
from llmops.gateway.streaming.events import Relay, payload_of
from llmops.policies.checks.base import Answer, Text
from llmops.policies.decisions import Decision, Placeholders
from llmops.policies.engine import Guard

_SEGMENT = b"transcript.text.segment"
#: Parts that are looked at with the next one: what is looked for is no longer than that.
_PARTS = 3


class TranscriptWatcher(ResponsesWatcher):
    """Events of a transcript: deltas of one text, its parts, and the whole in the last event.

    A part comes whole, and what is looked for may begin in one and end in the next. So each waits for the one behind it: where
    they tell together what they do not tell apart, nothing more goes out.
    """

    def __init__(self, guard: Guard, placeholders: Placeholders) -> None:
        super().__init__(guard, placeholders)
        self._said = ""
        self._part = b""
        #: what the last parts said, and what the one that waits does
        self._spoken: list[str] = []

    def answers(self, schema: Any) -> list[Answer]:
        return answers_of({"text": self._said}, schema)

    def _event(self, event: bytes, payload: bytes, relay: Relay) -> bytes:
        out = super()._event(event, payload, relay)
        if _SEGMENT not in payload or self.blocked or relay.broken:
            return out
        value = decode_any(payload)
        said = value.get("text") if isinstance(value, dict) else None
        if value.get("type") != _SEGMENT.decode() or not isinstance(said, str):
            return out
        parts = [*self._spoken, said]
        together = self._looked_at([" ".join(parts)])
        if _found(together) > _found(self._looked_at(parts)):
            self._late, self.stream.blocked = together, True
            return b""
        self._spoken = parts[-_PARTS:]
        waited, self._part = self._part, out
        return waited

    def _looked_at(self, parts: list[str]) -> Decision:
        texts = [Text("assistant", part, f"segments[{index}].text") for index, part in enumerate(parts)]
        return self.guard.check_texts(texts, Placeholders())

    def _rest(self, relay: Relay) -> bytes:
        out = super()._rest(relay)
        value = decode_any(payload_of(relay.tail) or b"null")
        self._said = str(value.get("text") or "") if isinstance(value, dict) else ""
        return out + self._part


def _found(decision: Decision) -> int:
    return sum(one.count for verdict in decision.verdicts for one in verdict.findings)
