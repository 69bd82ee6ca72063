"""Relaying server-sent events: whole events only, their bytes untouched where nothing has to change.

``Relay`` is fed the provider's bytes in whatever pieces they come and returns what may go out. It splits them into events,
keeps the last one back until the call is settled, and knows at every moment whether the stream is whole. What an event
says is read by the endpoint's own relay (``streaming_chat``, ``streaming_responses``). Format: HTML Standard, section 9.2.6.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import msgspec

from llmops.core.errors import ConsoleError
from llmops.gateway.errors import error_event
from llmops.gateway.streaming.delta_shape import DeltaShape
from llmops.gateway.streaming.shape import Shape
from llmops.usage.records import MAX_TOOL_NAME, MAX_TOOLS

#: An event longer than this is not an event.
MAX_EVENT_BYTES = 8 * 1024 * 1024
#: A comment that says that the stream lives; clients read over it.
KEEP_ALIVE = b": keep-alive\n\n"
NOT_JSON = "an event is not JSON"
NULL = b"null"
_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
#: So long is a blank line at most.
_EDGE = 4
_LINE_END = re.compile(rb"\r\n|\n|\r")
_JOIN_AFTER = 512
#: Characters of a piece that is looked at by itself, and of the longest answer that is one: it is kept while it comes.
_LONG, MAX_TEXT = 64 * 1024, 32 * 1024 * 1024

#: Names of what is inside of an answer that are kept.
MAX_ITEMS = 2_048

PASS, DROP = "pass", "drop"

decode_any = msgspec.json.Decoder().decode


class Guard(Protocol):
    """Whoever may hold events back, change or stop them on their way: a policy."""

    def plain(self, event: bytes) -> bool:
        """Whether events like this one may be known at sight: beside their one text they say nothing to look at."""
        ...

    def feed(self, event: bytes, relay: Relay) -> bytes:
        """What may go out now in place of this event, which ``relay`` has read: its bytes, or others, or none yet.

        A guard that wants the stream to end sets ``relay.broken``.
        """
        ...

    def feed_text(self, event: bytes, text: str, shape: Shape, relay: Relay) -> bytes:
        """The same for an event that says ``text`` and nothing else; unchanged it is shown as ``shape`` shows it."""
        ...

    def feed_delta(self, event: bytes, text: str, shape: DeltaShape, relay: Relay) -> bytes:
        """The same for the delta of a response."""
        ...

    def end(self, relay: Relay) -> bytes:
        """The stream is over: what was held back, and may go out before its last event."""
        ...


class ToolCall:
    """A tool that the model called, as far as it is known."""

    __slots__ = ("_pieces", "id", "kind", "name")

    def __init__(self, kind: str = "function", call_id: str = "", name: str = "") -> None:
        self.kind = kind
        self.id = call_id
        self.name = name
        self._pieces: list[str] = []

    def add(self, arguments: str) -> None:
        self._pieces.append(arguments)
        if len(self._pieces) > _JOIN_AFTER:
            self._pieces[:] = ["".join(self._pieces)]

    @property
    def arguments(self) -> str:
        """So far, as the model wrote them: JSON, if it wrote JSON."""
        return "".join(self._pieces)

    @arguments.setter
    def arguments(self, whole: str) -> None:
        self._pieces[:] = [whole]


class Relay:
    """State of one stream.

    ``done``: the event that ends an answer came, and is in ``tail``. ``broken``: why no more of it is relayed.
    """

    __slots__ = (
        "_buffer",
        "_buffered",
        "_edge",
        "_tools",
        "broken",
        "code",
        "done",
        "events",
        "failed",
        "finish",
        "guard",
        "id",
        "items",
        "model",
        "parts",
        "provider_error",
        "tail",
        "thought",
        "tier",
        "usage",
    )

    #: bytes of the largest event that is one
    largest = MAX_EVENT_BYTES

    def __init__(self) -> None:
        self._buffer: list[bytes] = []
        self._buffered = 0
        #: the last bytes that are kept, in which a blank line may have begun
        self._edge = b""
        self._tools: dict[Any, ToolCall] = {}
        self.guard: Guard | None = None
        self.done = False
        self.broken = ""
        #: the provider itself ended the stream, with an error event; ``broken`` has its words, ``code`` its code
        self.provider_error = False
        self.code = ""
        #: the answer came to its end, and says that it failed: the code
        self.failed = ""
        self.tail = b""
        #: events with data that were relayed
        self.events = 0
        self.finish = ""
        self.model = ""
        #: under which the provider may keep the answer
        self.id = ""
        #: ids of what is inside of it, by which later requests may name it
        self.items: list[str] = []
        #: it shows that the model thinks, not what
        self.thought = False
        #: the service tier that answered
        self.tier = ""
        #: the last usage seen, as JSON
        self.usage: bytes | None = None
        #: the text of the answer so far, in pieces
        self.parts: list[str] = []

    def feed(self, data: bytes) -> bytes:
        """What may be relayed now. Nothing more once ``done`` or ``broken``."""
        if self.done or self.broken:
            return b""
        if self._buffer:
            if not self._ends_an_event(data):
                return self._keep_on(data)
            data = b"".join((*self._buffer, data))
        out: list[bytes] = []
        start = 0
        changed = False
        guard = self.guard
        for end in _event_ends(data):
            event = data[start:end]
            verdict = self._event(event)
            if self.done or self.broken:
                start = len(data)
                changed = True
                break
            start = end
            if verdict is DROP:
                changed = True
                continue
            if verdict is not PASS:
                changed = True
                event = verdict  # type: ignore[assignment]
            if guard is not None:
                changed = True
                event = guard.feed(event, self)
                if self.broken:
                    start = len(data)
                    out.append(event)
                    break
            out.append(event)
        if guard is not None and self.done:
            out.append(guard.end(self))
        self._buffer.clear()
        self._buffered = 0
        self._edge = b""
        if start == len(data):
            return data if not changed else b"".join(out)
        self._keep_on(data[start:])
        return b"".join(out)

    def end(self) -> bytes:
        """The provider's bytes are over. The event that ends an answer counts even without its blank line.

        Returns what a guard had held back, if the stream is whole.
        """
        rest = b"".join(self._buffer)
        self._buffer.clear()
        if self.done or self.broken:
            return b""
        stripped = rest.rstrip(b"\r\n")
        last = rest if _BLANK_LINE.search(rest, len(stripped)) else stripped
        # An event that is cut short says nothing, except when it is the one that says it all.
        if stripped and self._ends(last):
            return self.guard.end(self) if self.guard is not None else b""
        if not self.broken:
            self.broken = "it ended before it was complete"
        return b""

    def text(self) -> str:
        """What the answer said so far: text, refusals, names and arguments of tool calls."""
        if len(self.parts) > 1:
            self.parts[:] = ["".join(self.parts)]
        return self.parts[0] if self.parts else ""

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tools that were called so far, in the order in which their calls began."""
        return list(self._tools.values())

    @property
    def tools(self) -> list[str]:
        """Their names, each once."""
        return tool_names(call.name for call in self._tools.values()) if self._tools else []

    def error_event(self, error: ConsoleError) -> bytes:
        """The event that tells the client that its stream broke off, as the endpoint's clients know it."""
        return error_event(error)

    # ------------------------------------------------------------------ for the relay of an endpoint

    def _event(self, event: bytes) -> object:
        """Read an event: ``PASS``, ``DROP``, or other bytes to send in its place. Sets ``done`` (with ``tail``) or ``broken``."""
        raise NotImplementedError

    def _ends(self, event: bytes) -> bool:
        """Whether this last event, perhaps without its blank line, ends the answer; sets ``done`` and ``tail`` if so."""
        raise NotImplementedError

    def _said(self, text: str) -> None:
        parts = self.parts
        parts.append(text)
        if len(parts) > _JOIN_AFTER or len(text) > _LONG:
            parts[:] = ["".join(parts)]
            if len(parts[0]) > MAX_TEXT:
                self.broken = "it says more than any answer holds"

    def _holds(self, item: str) -> None:
        """The answer has something inside of it that bears a name."""
        if len(self.items) < MAX_ITEMS and item not in self.items:
            self.items.append(item)

    def _odd(self, payload: bytes) -> object:
        """JSON of another shape than OpenAI's: relayed as it is, and counted as if all of it were text."""
        try:
            decode_any(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.broken = NOT_JSON
            return DROP
        self.events += 1
        self._said(payload.decode("utf-8", "replace"))
        return PASS

    def _provider_error(self, error: bytes) -> None:
        """The provider ends the stream with an error: its members, as JSON."""
        said = _error_said(error)
        self.broken = f"the provider reported an error{f': {said.message[:300]}' if said.message else ''}"
        self.code = "" if said.code is None else str(said.code)[:60]
        self.provider_error = True

    def _ends_an_event(self, data: bytes) -> bool:
        """Whether a blank line ends in ``data``, behind what is kept. What is kept is put together for one only: not again and
        again, however small the pieces are."""
        edge = self._edge
        if b"\r" not in data and b"\r" not in edge:
            return b"\n\n" in data or (data[:1] == b"\n" and edge[-1:] == b"\n")
        return any(_event_ends(edge + data[:_EDGE])) or any(_event_ends(data))

    def _keep_on(self, rest: bytes) -> bytes:
        self._buffer.append(rest)
        self._buffered += len(rest)
        self._edge = rest[-_EDGE:] if len(rest) >= _EDGE else (self._edge + rest)[-_EDGE:]
        if self._buffered > self.largest:
            self.broken = "an event is larger than any real one"
            self._buffer.clear()
        return b""


def tool_names(names: Iterable[str]) -> list[str]:
    """Names for the record of a call: each once, in order, not endlessly many nor endlessly long."""
    return list(dict.fromkeys(name[:MAX_TOOL_NAME] for name in names if name))[:MAX_TOOLS]


def _event_ends(data: bytes) -> Iterator[int]:
    """Where each complete event (with its blank line) ends."""
    if b"\r" not in data:
        position = data.find(b"\n\n")
        while position >= 0:
            yield position + 2
            position = data.find(b"\n\n", position + 2)
        return
    for match in _BLANK_LINE.finditer(data):
        if match.end() == len(data) and data.endswith(b"\r"):
            # Half of a line end, perhaps: the next piece tells.
            return
        yield match.end()


def payload_of(event: bytes) -> bytes | None:
    """The data of an event, its lines joined; None for a comment or an event without data."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[6:-2]
    lines = []
    for line in _LINE_END.split(event):
        if line.startswith(b"data:"):
            lines.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line == b"data":
            lines.append(b"")
    return b"\n".join(lines) if lines else None


class _Error(msgspec.Struct):
    message: str = ""
    code: str | int | None = None


_decode_error = msgspec.json.Decoder(_Error).decode


def _error_said(error: bytes) -> _Error:
    try:
        return _decode_error(error)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Error()
