"""What the events of a response say. Fields: OpenAI API reference, "Responses", "Streaming events".

Every event names its ``type`` in its data; ``event:`` lines, ids and comments around it are relayed as they are.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llmops.core.errors import ConsoleError
from llmops.gateway.errors import error_members
from llmops.gateway.streaming.delta_shape import DeltaShape, learned
from llmops.gateway.streaming.events import DROP, NOT_JSON, NULL, PASS, Relay, ToolCall, payload_of

#: Events after which nothing follows, with the finish reason of an answer that ended so.
#: status of a response that has ended -> the finish reason it is recorded with
FINISHES = {"completed": "stop", "incomplete": "incomplete", "failed": "failed", "cancelled": "cancelled"}
#: Events after which nothing follows.
ENDS = {f"response.{status}": finish for status, finish in FINISHES.items() if status != "cancelled"}
_encode = msgspec.json.Encoder().encode
#: A stream's deltas are looked at so often for what they have in common: each text of an answer has a look of its own.
_LESSONS = 16


class _Item(msgspec.Struct):
    type: str = ""
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: Any = None
    input: Any = None
    container_id: Any = None


class _Event(msgspec.Struct):
    type: str = ""
    sequence_number: int | None = None
    delta: Any = None
    output_index: int | None = None
    item: _Item | None = None
    response: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _IncompleteDetails(msgspec.Struct):
    reason: str | None = None


class _Failure(msgspec.Struct):
    code: str | None = None


class _Response(msgspec.Struct):
    id: str | None = None
    status: str | None = None
    model: str | None = None
    service_tier: Any = None
    usage: msgspec.Raw = msgspec.Raw()
    incomplete_details: _IncompleteDetails | None = None
    error: _Failure | None = None


_decode = msgspec.json.Decoder(_Event).decode
_decode_response = msgspec.json.Decoder(_Response).decode


class ResponsesRelay(Relay):
    """Ends with ``response.completed``, ``response.incomplete`` or ``response.failed``; an ``error`` event breaks it."""

    __slots__ = ("_lessons", "_shape", "last", "sequence")

    def __init__(self) -> None:
        super().__init__()
        self._shape: DeltaShape | None = None
        self._lessons = _LESSONS
        #: number of the last event that was relayed
        self.sequence = -1
        #: the response as the event that ends it tells it, as JSON
        self.last = b""

    def feed(self, data: bytes) -> bytes:
        shape = self._shape
        if shape is None or self._buffer or self.done or self.broken or (read := shape.read(data)) is None:
            return super().feed(data)
        text, self.sequence = read
        self.events += 1
        self._said(text)
        return data if self.guard is None else self.guard.feed_delta(data, text, shape, self)

    def error_event(self, error: ConsoleError) -> bytes:
        """In the documented flat shape, and with the ``error`` member that makes official clients raise."""
        said = error_members(error)
        event = {
            "type": "error",
            "code": said["code"],
            "message": said["message"],
            "param": said["param"],
            "sequence_number": self.sequence + 1,
            "error": said,
        }
        return b"event: error\ndata: " + _encode(event) + b"\n\n"

    def _ends(self, event: bytes) -> bool:
        payload = payload_of(event)
        if payload is None:
            return False
        try:
            if _decode(payload).type not in ENDS:
                return False
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        self._event(event)
        if not event.endswith((b"\n", b"\r")):
            self.tail = event + b"\n\n"
        return self.done

    def _event(self, event: bytes) -> object:
        if self._shape is not None and (known := self._shape.read(event)) is not None:
            text, self.sequence = known
            self.events += 1
            self._said(text)
            return PASS
        payload = _payload(event)
        if payload is None or payload == b"[DONE]":
            # Some servers end these streams like those of chat; it says nothing here.
            return PASS
        try:
            read = _decode(payload)
        except msgspec.ValidationError:
            return self._odd(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.broken = NOT_JSON
            return DROP
        kind = read.type
        if kind == "error" or (not kind and read.error and bytes(read.error) != NULL):
            self._provider_error(bytes(read.error) if read.error and bytes(read.error) != NULL else payload)
            return DROP
        if kind in ENDS:
            self.finish = ENDS[kind]
            self.last = bytes(read.response)
            self._response(self.last)
            if kind == "response.failed":
                self.failed = self.failed or "response_failed"
            self.done = True
            self.tail = event
            return DROP
        self.events += 1
        if read.sequence_number is not None:
            self.sequence = read.sequence_number
        delta = read.delta
        if delta is not None:
            if type(delta) is str:
                self._said(delta)
                if kind.endswith(("arguments.delta", "input.delta")):
                    self._argued(read.output_index, delta)
                elif self._lessons and delta:
                    self._learn(event, read, delta)
        elif read.item is not None:
            for name in (read.item.id, read.item.container_id):
                if name and isinstance(name, str):
                    self._holds(name)
            if read.item.type == "reasoning":
                self.thought = True
            self._item(read.output_index, read.item, done=kind == "response.output_item.done")
        elif read.response and not self.id:
            self._response(bytes(read.response))
        return PASS

    def _learn(self, event: bytes, read: _Event, text: str) -> None:
        """Know the next delta at sight that says a piece of the same text and nothing else, as this one does."""
        number = read.sequence_number
        if number is None or read != _Event(read.type, number, text, read.output_index):
            return
        if self.guard is not None and not self.guard.plain(event):
            return

        def reads_alike(probe: bytes, text: str, number: int) -> bool:
            payload = payload_of(probe)
            return payload is not None and _decode(payload) == _Event(
                read.type, number, text, read.output_index
            )

        self._lessons -= 1
        self._shape = learned(event, text, number, reads_alike) or self._shape

    def _argued(self, output: int | None, delta: str) -> None:
        called = self._tools.get(output)
        if called is not None:
            called.add(delta)

    def _item(self, output: int | None, item: _Item, *, done: bool) -> None:
        """A tool call begins or ends. What other items hold came, or comes, in deltas."""
        kind = item.type
        if not kind.endswith("_call"):
            return
        called = self._tools.get(output)
        if called is None:
            # A provider's own tool has no name but its kind.
            name = item.name or kind.removesuffix("_call")
            called = self._tools[output] = ToolCall(
                kind.removesuffix("_call"), item.call_id or item.id or "", name
            )
            self._said(name)
        if done:
            whole = item.arguments if item.arguments is not None else item.input
            if isinstance(whole, str):
                called.arguments = whole

    def _response(self, raw: bytes) -> None:
        try:
            response = _decode_response(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if response.id and not self.id:
            self.id = response.id
        if response.model and not self.model:
            self.model = response.model
        if response.service_tier and isinstance(response.service_tier, str):
            self.tier = response.service_tier
        if response.usage and bytes(response.usage) != NULL:
            self.usage = bytes(response.usage)
        if response.incomplete_details is not None and response.incomplete_details.reason:
            self.finish = response.incomplete_details.reason
        if response.error is not None and response.error.code:
            self.failed = response.error.code


def _payload(event: bytes) -> bytes | None:
    if event.startswith(b"event: ") and b"\r" not in event:
        first = event.find(b"\n")
        if event.startswith(b"data: ", first + 1) and event.find(b"\n", first + 1) == len(event) - 2:
            return event[first + 7 : -2]
    return payload_of(event)
