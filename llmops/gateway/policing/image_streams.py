"""Policies on streams of images: what was drawn is not looked at, what is said beside it (``revised_prompt``) is."""

from __future__ import annotations

from typing import Any

from llmops.core.once import told_once
from llmops.core.verdicts import BLOCK
from llmops.gateway.endpoints.base import decode_any
from llmops.gateway.policing.response_streams import ResponsesWatcher
from llmops.gateway.policing.streams import UNREADABLE, changed
from llmops.gateway.policing.texts import Path, answer_places, may_say_more
from llmops.gateway.streaming.events import Relay, payload_of
from llmops.policies.checks.base import Answer, Text
from llmops.policies.decisions import Placeholders
from llmops.policies.engine import Guard


class ImageWatcher(ResponsesWatcher):
    """Every event is whole: its texts end in it."""

    def __init__(self, guard: Guard, placeholders: Placeholders) -> None:
        super().__init__(guard, placeholders)
        # There is no answer to be judged at the end, and images are larger than what may be kept back.
        self._withheld = None

    def answers(self, schema: Any) -> list[Answer]:
        return []

    def _event(self, event: bytes, payload: bytes, relay: Relay) -> bytes:
        # Megabytes of an image are decoded only where something is said beside it.
        if payload == b"[DONE]" or not may_say_more(payload, 0):
            return event
        if not told_once(payload, decode_any(payload)):
            relay.broken = UNREADABLE
            return b""
        return self._whole(event, payload)

    def _rest(self, relay: Relay) -> bytes:
        payload = payload_of(relay.tail)
        if payload is not None:
            relay.tail = self._event(relay.tail, payload, relay)
            relay.done = not relay.broken
        return b""

    def _whole(self, event: bytes, payload: bytes) -> bytes:
        places = answer_places(decode_any(payload))
        texts = [Text("assistant", place.text.text, place.text.where) for place in places]
        decision = self.guard.check_texts(texts, self.placeholders)
        if self._late is None:
            self._late = decision
        else:
            # The prompt of a partial image is told again with the whole one.
            for verdict in decision.verdicts:
                if verdict not in self._late.verdicts:
                    self._late.add(verdict)
        if decision.action == BLOCK:
            self.stream.blocked = True
            return b""
        changes: dict[Path, Any] = {
            place.path: decision.texts[place.text.where]
            for place in places
            if place.text.where in decision.texts
        }
        return changed(event, payload, changes) if changes else event
