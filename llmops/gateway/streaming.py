"""Relaying server-sent events: whole events only, their bytes untouched where nothing has to change.

``Relay`` is fed the provider's bytes in whatever pieces they come and returns what may go out. It reads usage, finish
reason and text on the way, hides the usage that the console asked for and the client did not, holds ``[DONE]`` back until
the call is settled, and knows at every moment whether the stream is whole. Format: HTML Standard, section 9.2.6; OpenAI
API reference, "Chat streaming".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

#: An event longer than this is not an event.
MAX_EVENT_BYTES = 8 * 1024 * 1024
_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_JOIN_AFTER = 512

_PASS, _DROP = "pass", "drop"


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    model: str | None = None
    service_tier: str | None = None


_decode = msgspec.json.Decoder(_Chunk).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_NULL = b"null"


class Relay:
    """State of one stream. ``done``: ``[DONE]`` came, and is in ``tail``. ``broken``: why no more of it is relayed."""

    __slots__ = (
        "_buffer",
        "_buffered",
        "_hide_usage",
        "broken",
        "done",
        "events",
        "finish",
        "model",
        "parts",
        "provider_error",
        "tail",
        "tier",
        "usage",
    )

    def __init__(self, *, hide_usage: bool) -> None:
        self._hide_usage = hide_usage
        self._buffer: list[bytes] = []
        self._buffered = 0
        self.done = False
        self.broken = ""
        #: the provider itself ended the stream, with an error event; ``broken`` has its words, as it wrote them
        self.provider_error = False
        self.tail = b""
        #: events with data that were relayed
        self.events = 0
        self.finish = ""
        self.model = ""
        #: the service tier that the answer named, empty for the default one
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
            if b"\n" not in data and b"\r" not in data:
                return self._keep_on(data)
            data = b"".join((*self._buffer, data))
        out: list[bytes] = []
        start = 0
        changed = False
        for end in _event_ends(data):
            event = data[start:end]
            verdict = self._event(event)
            if self.done or self.broken:
                start = len(data)
                changed = True
                break
            start = end
            if verdict is _PASS:
                out.append(event)
            else:
                changed = True
                if verdict is not _DROP:
                    out.append(verdict)  # type: ignore[arg-type]
        self._buffer.clear()
        self._buffered = 0
        if start == len(data):
            return data if not changed else b"".join(out)
        self._keep_on(data[start:])
        return b"".join(out)

    def end(self) -> None:
        """The provider's bytes are over. A last ``[DONE]`` counts even without its blank line."""
        rest = b"".join(self._buffer)
        self._buffer.clear()
        if not self.done and not self.broken:
            if _payload(rest.rstrip(b"\r\n") + b"\n\n") == b"[DONE]":
                self.done = True
                self.tail = b"data: [DONE]\n\n"
            else:
                self.broken = "it ended before it was complete"

    def _keep_on(self, rest: bytes) -> bytes:
        self._buffer.append(rest)
        self._buffered += len(rest)
        if self._buffered > MAX_EVENT_BYTES:
            self.broken = "an event is larger than any real one"
            self._buffer.clear()
        return b""

    def text(self) -> str:
        """What the answer said so far: text, refusals, names and arguments of tool calls."""
        if len(self.parts) > 1:
            self.parts[:] = ["".join(self.parts)]
        return self.parts[0] if self.parts else ""

    def _event(self, event: bytes) -> object:
        payload = _payload(event)
        if payload is None:
            return _PASS
        if payload == b"[DONE]":
            self.done = True
            self.tail = event
            return _DROP
        try:
            chunk = _decode(payload)
        except msgspec.ValidationError:
            return self._odd(payload, event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.broken = "an event is not JSON"
            return _DROP
        if chunk.error and bytes(chunk.error) != _NULL:
            self.broken = f"the provider reported an error{_said(bytes(chunk.error))}"
            self.provider_error = True
            return _DROP
        self._read(chunk)
        self.events += 1
        if chunk.usage:
            usage = bytes(chunk.usage)
            if usage != _NULL:
                self.usage = usage
                if self._hide_usage and not chunk.choices:
                    self.events -= 1
                    return _DROP
            if self._hide_usage:
                return _without_usage(event, payload, usage)
        return _PASS

    def _read(self, chunk: _Chunk) -> None:
        if chunk.model and not self.model:
            self.model = chunk.model
        if chunk.service_tier and chunk.service_tier != "default":
            self.tier = chunk.service_tier[:16]
        for choice in chunk.choices or ():
            if choice.finish_reason:
                self.finish = choice.finish_reason
            delta = choice.delta
            if delta is None:
                continue
            parts = self.parts
            if delta.content:
                parts.append(delta.content)
            if delta.tool_calls:
                for call in delta.tool_calls:
                    if call.function is not None:
                        parts.append(f"{call.function.name or ''}{call.function.arguments or ''}")
            if delta.refusal:
                parts.append(delta.refusal)
            if delta.reasoning_content:
                parts.append(delta.reasoning_content)
            if len(parts) > _JOIN_AFTER:
                parts[:] = ["".join(parts)]

    def _odd(self, payload: bytes, event: bytes) -> object:
        """JSON of another shape than OpenAI's: relayed as it is, and counted as if all of it were text."""
        try:
            msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.broken = "an event is not JSON"
            return _DROP
        self.events += 1
        self.parts.append(payload.decode("utf-8", "replace"))
        return _PASS


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


def _payload(event: bytes) -> bytes | None:
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


_decode_error = msgspec.json.Decoder(_Error).decode


def _said(error: bytes) -> str:
    try:
        message = _decode_error(error).message
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return f": {message[:300]}" if message else ""


def _without_usage(event: bytes, payload: bytes, usage: bytes) -> bytes:
    """The event without its top-level ``usage`` member; every other byte stays where the member stands alone."""
    if payload.count(b'"usage"') == 1:
        for member in (b',"usage":' + usage, b'"usage":' + usage + b",", b', "usage": ' + usage):
            if event.count(member) == 1:
                return event.replace(member, b"")
    members = _decode_members(payload)
    members.pop("usage", None)
    return b"data: " + _encode(members) + b"\n\n"
