"""Policies on streams: what may still become a match waits, what is decided goes out, everything else keeps its bytes.

A watcher is the ``Guard`` of a ``Relay``: it gets each event before it goes out. An event whose texts need not change goes
out as it came. A text is kept back in part, then its event goes out with the part that may; what was kept back comes out
with the next event of that text, or in an event of its own before the text ends.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llmops.gateway.endpoints.base import decode_any
from llmops.gateway.policing.texts import (
    Path,
    log_probabilities,
    rewritten,
    says_no_log_probabilities,
)
from llmops.gateway.streaming.delta_shape import DeltaShape
from llmops.gateway.streaming.events import Relay, payload_of
from llmops.gateway.streaming.shape import Shape
from llmops.policies.checks.base import Answer, AnswerCheck, Remote
from llmops.policies.decisions import Decision, Placeholders
from llmops.policies.engine import Guard
from llmops.policies.streams import Stream

#: A stream that is kept back whole may not be longer.
MAX_WITHHELD_BYTES = 8 * 1024 * 1024
#: Each choice, tool call and item of an answer has texts of its own; none has so many.
MAX_TEXTS = 4_096
BLOCKED = "a policy stopped it"
UNREADABLE = "an event has a shape that policies cannot read"


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
        #: whether log probabilities, which nobody asked for, would tell what is taken out
        self._hides = guard.redacts or guard.stops
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

    def plain(self, event: bytes) -> bool:
        raise NotImplementedError

    def feed(self, event: bytes, relay: Relay) -> bytes:
        payload = payload_of(event)
        try:
            out = event if payload is None else self._event(event, payload, relay)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # Relayed unread it could say anything.
            relay.broken = UNREADABLE
            return b""
        if self.blocked:
            relay.broken = BLOCKED
            return b""
        if self.stream.many > MAX_TEXTS:
            relay.broken = "it has more texts than any answer"
            return b""
        return self._withhold(out, relay)

    def feed_text(self, event: bytes, text: str, shape: Shape, relay: Relay) -> bytes:
        return self.feed(shape.shown(event), relay)

    def feed_delta(self, event: bytes, text: str, shape: DeltaShape, relay: Relay) -> bytes:
        return self.feed(event, relay)

    def end(self, relay: Relay) -> bytes:
        try:
            out = self._rest(relay)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            relay.done, relay.broken = False, UNREADABLE
            return b""
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

    def _silenced(self, event: bytes, payload: bytes) -> tuple[bytes, bytes]:
        """An event and its data without log probabilities."""
        if not self._hides or says_no_log_probabilities(payload):
            return event, payload
        payload = rewritten(payload, log_probabilities(decode_any(payload)))
        return with_data(event, payload), payload

    def _event(self, event: bytes, payload: bytes, relay: Relay) -> bytes:
        """What goes out for an event. Raises what decoding raises."""
        raise NotImplementedError

    def _rest(self, relay: Relay) -> bytes:
        """What was kept back of texts that did not end by themselves. Raises what decoding raises."""
        raise NotImplementedError


def changed(event: bytes, payload: bytes, changes: dict[Path, Any]) -> bytes:
    """The event with other values in its data; its other lines stay."""
    return with_data(event, rewritten(payload, changes))


def with_data(event: bytes, payload: bytes) -> bytes:
    """The event with other data; its other lines stay."""
    lines = [line for line in event.splitlines() if line and not line.startswith(b"data")]
    return b"".join(line + b"\n" for line in lines) + b"data: " + payload + b"\n\n"
