"""Reading ``multipart/form-data`` as it comes, and sending it on byte-true but for the parts that must change.

The whole body is spooled as it is; what is read of it is where each part begins and ends, and the values of its fields.
Files are never looked into. Format: RFC 7578 over RFC 2046, section 5.1. What two readers could understand differently (a
field given twice under its name, a boundary that is none to everybody, folded headers, values that must be decoded first) is
refused, since the provider would then be told something else than was checked here.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from llmops.core.asgi import Receive
from llmops.core.errors import InvalidRequest, RequestTooLarge
from llmops.core.texts import size_words
from llmops.gateway.forms.part_headers import PARAMETER, TOKEN, UTF_8, broken, named, unquoted
from llmops.gateway.forms.spool import Segment, Spool, Upload, declared_length

MAX_PARTS = 256
MAX_HEADERS = 16 * 1024
#: Fields up to this size are kept for reading, and so many bytes of all fields together.
MAX_FIELD = 256 * 1024
MAX_FIELDS = 1024 * 1024
#: Blanks that may stand behind a boundary on its line.
MAX_PADDING = 80
#: A body must come at least this fast (bytes a second), after a grace of so many seconds.
_SLOWEST = 50_000
_GRACE_S = 60.0
_NO_PART = "The body has no part: it does not begin with the boundary that Content-Type names."
_AFTER_BOUNDARY = "Something stands after a boundary on its line."

_PREAMBLE, _DELIMITER, _HEADERS, _CONTENT, _CLOSING, _EPILOGUE = range(6)
_BOUNDARY = re.compile(rb"[^\x00-\x1f\x7f]{0,199}[^\x00-\x20\x7f]")
#: A field of this name says in which charset all others are (RFC 7578, section 4.6).
_CHARSET = "_charset_"


@dataclass(slots=True)
class Part:
    """A part of a form. ``start`` and ``end`` are offsets of its content in the body; ``value`` is the content of a field
    that was kept, None for a file and for a field that is too long. ``latin``: it says that it is no UTF-8."""

    name: str
    file: bool
    start: int
    end: int = 0
    value: bytes | None = None
    latin: bool = False

    @property
    def size(self) -> int:
        return self.end - self.start


def boundary_of(content_type: bytes | None) -> bytes:
    """The boundary that a ``Content-Type`` names. Raises ``InvalidRequest``."""
    kind, _, rest = (content_type or b"").partition(b";")
    if kind.strip().lower() != b"multipart/form-data":
        shown = kind.strip().decode("latin-1")[:80] or "nothing"
        raise InvalidRequest(
            f"This endpoint takes multipart/form-data, and Content-Type says {shown}.",
            param="Content-Type",
            code="invalid_content_type",
        )
    named = [raw for name, raw in PARAMETER.findall(b";" + rest) if name.lower().startswith(b"boundary")]
    if len(named) > 1:
        raise broken("Content-Type names more than one boundary.", "Content-Type")
    for raw in named:
        boundary = unquoted(raw)
        if _BOUNDARY.fullmatch(boundary):
            return bytes(boundary)
    raise broken("Content-Type names no boundary; let your HTTP client set this header.", "Content-Type")


class Parser:
    """Finds the parts of a body that is fed in whatever pieces. Raises ``InvalidRequest``."""

    def __init__(self, boundary: bytes) -> None:
        self.parts: list[Part] = []
        #: where the delimiter that closes the form begins
        self.closing = -1
        self._mark = b"--" + boundary
        self._state = _PREAMBLE
        # Before the first line there is as good as a line end.
        self._buffer = bytearray(b"\r\n")
        #: offset of the buffer's first byte in the body
        self._at = -2
        self._kept = 0
        self._value: bytearray | None = None

    @property
    def in_memory(self) -> int:
        """Bytes that it keeps: values of fields, and what it has not understood yet."""
        return self._kept + len(self._value or b"") + len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while self._step():
            pass

    def end(self) -> None:
        """The body is over."""
        if self._state not in (_CLOSING, _EPILOGUE):
            if not self.parts and self._state in (_PREAMBLE, _DELIMITER):
                raise broken(_NO_PART)
            raise broken("The body ends before its closing boundary: it was cut short.")
        for part in self.parts:
            if part.name == _CHARSET and (part.value or b"").strip().lower() not in UTF_8:
                raise broken(f"{_CHARSET}: the fields of a form must be UTF-8 text.", _CHARSET)

    def _step(self) -> bool:
        if self._state in (_PREAMBLE, _CONTENT):
            return self._to_delimiter()
        if self._state == _DELIMITER:
            return self._after_delimiter()
        if self._state == _HEADERS:
            return self._headers()
        if self._state == _CLOSING:
            return self._closing_line()
        return self._behind()

    def _to_delimiter(self) -> bool:
        buffer, mark = self._buffer, self._mark
        found = buffer.find(mark)
        if self._state == _PREAMBLE:
            before = (buffer if found < 0 else buffer[:found]).strip(b"\r\n")
            # To some readers what stands before the first boundary is a part as well.
            if before and (found >= 0 or not mark.startswith(before)):
                raise broken(_NO_PART)
        if found < 0:
            # A delimiter may have begun; what stands before it matters too.
            self._pass_over(len(buffer) - len(mark) - 2)
            return False
        if buffer[found - 2 : found] != b"\r\n":
            if buffer[found - 1 : found] == b"\n":
                raise broken("A boundary stands after a bare line feed; lines must end with CR LF.")
            # To readers that look for it anywhere a part ends there.
            raise broken("The boundary stands within a line; use another one that is longer.")
        self._pass_over(found - 2)
        if self._state == _CONTENT:
            self._end_part()
        self.closing = self._at
        self._cut(2 + len(mark))
        self._state = _DELIMITER
        return True

    def _after_delimiter(self) -> bool:
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        if buffer[:2] == b"--":
            self._cut(2)
            self._state = _CLOSING
            return True
        end = buffer.find(b"\r\n")
        line = buffer.removesuffix(b"\r") if end < 0 else buffer[:end]
        if len(line) > MAX_PADDING or line.strip(b" \t"):
            raise broken(_AFTER_BOUNDARY)
        if end < 0:
            return False
        # The line end stays: a part may have no headers at all.
        self._cut(end)
        self._state = _HEADERS
        return True

    def _closing_line(self) -> bool:
        """The rest of the line of the boundary that closes the form. Without its two hyphens it would go on."""
        buffer = self._buffer
        end = buffer.find(b"\n")
        line = buffer if end < 0 else buffer[:end]
        if len(line) > MAX_PADDING or line.strip(b" \t\r"):
            raise broken(_AFTER_BOUNDARY)
        if end < 0:
            return False
        self._state = _EPILOGUE
        return True

    def _behind(self) -> bool:
        """What follows the form is for nobody, unless somebody reads on."""
        if self._buffer.strip(b" \t\r\n"):
            raise broken("Something stands behind the boundary that closes the form.")
        self._buffer.clear()
        return False

    def _headers(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if (len(self._buffer) if end < 0 else end) > MAX_HEADERS:
            raise broken(f"The headers of part {len(self.parts) + 1} are longer than {MAX_HEADERS} bytes.")
        if end < 0:
            return False
        lines = bytes(self._buffer[2:end])
        if self._mark in lines:
            raise broken("The boundary stands within a line; use another one that is longer.")
        self._cut(end + 2)
        if len(self.parts) >= MAX_PARTS:
            raise broken(f"The form has more than {MAX_PARTS} parts.")
        name, file, latin = named(lines, len(self.parts) + 1)
        # The end of the blank line stays, to be seen if a delimiter follows at once.
        self.parts.append(Part(name, file, self._at + 2, latin=latin))
        self._value = None if file else bytearray()
        self._state = _CONTENT
        return True

    def _end_part(self) -> None:
        part = self.parts[-1]
        part.end = self._at
        if part.end < part.start:
            raise broken(f"Part {len(self.parts)} has no line between its headers and the next boundary.")
        if self._value is not None:
            part.value = bytes(self._value[2:])
            self._kept += len(part.value)
            self._value = None
        if part.latin and not (part.value is not None and part.value.isascii()):
            raise broken(f"The charset of part {len(self.parts)} is not UTF-8.")

    def _pass_over(self, count: int) -> None:
        """The first ``count`` bytes are content, or nothing that matters."""
        if count <= 0:
            return
        if self._state == _CONTENT and self._value is not None:
            if len(self._value) + count > min(MAX_FIELD, MAX_FIELDS - self._kept):
                self._value = None
            else:
                self._value += self._buffer[:count]
        self._cut(count)

    def _cut(self, count: int) -> None:
        del self._buffer[:count]
        self._at += count


class Form:
    """A form that was read. ``close`` it."""

    __slots__ = ("_by_name", "_closing", "_content_type", "_delimiter", "_spool", "parts")

    def __init__(self, parser: Parser, spool: Spool, content_type: str, boundary: bytes) -> None:
        self.parts = parser.parts
        self._by_name: dict[str, list[Part]] = {}
        for part in parser.parts:
            self._by_name.setdefault(part.name, []).append(part)
        self._closing = parser.closing
        self._delimiter = b"\r\n--" + boundary + b"\r\n"
        self._content_type = content_type
        self._spool = spool

    @property
    def size(self) -> int:
        """Bytes of the whole body."""
        return self._spool.size

    def close(self) -> None:
        self._spool.close()

    def named(self, name: str) -> list[Part]:
        return self._by_name.get(name, [])

    def content(self, part: Part) -> AsyncIterator[bytes]:
        """What a part holds, in pieces."""
        return self._spool.read(part.start, part.end)

    async def edges(self, part: Part, head: int, tail: int) -> tuple[bytes, bytes]:
        """The first and the last bytes of a part."""
        first = self._spool.read(part.start, min(part.end, part.start + head))
        last = self._spool.read(max(part.start, part.end - tail), part.end)
        return b"".join([piece async for piece in first]), b"".join([piece async for piece in last])

    def text(self, name: str, *, longest: int, required: bool = False) -> str:
        """The value of a field; empty when it is not there. Raises ``InvalidRequest`` naming it."""
        found = self.named(name)
        for other in self._by_name:
            # To some readers it is the same field.
            if other.startswith(f"{name}["):
                raise InvalidRequest(f"{other[:100]}: give it once, as {name}.", param=other[:100])
        if not found:
            if required:
                raise InvalidRequest(
                    f"{name}: missing; it is needed.", param=name, code="missing_required_parameter"
                )
            return ""
        if len(found) > 1:
            raise InvalidRequest(f"{name}: given {len(found)} times; once is enough.", param=name)
        part = found[0]
        if part.file:
            raise InvalidRequest(
                f"{name}: must be a field, not a file: leave its filename out.",
                param=name,
                code="invalid_type",
            )
        if part.size > 4 * longest or part.value is None:
            raise InvalidRequest(f"{name}: longer than {longest} characters.", param=name)
        try:
            value = part.value.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidRequest(f"{name}: must be UTF-8 text.", param=name) from None
        if required and not value:
            raise InvalidRequest(f"{name}: must not be empty.", param=name)
        if len(value) > longest:
            raise InvalidRequest(f"{name}: longer than {longest} characters.", param=name)
        return value

    def check(self, name: str, value: bytes) -> None:
        """Raises ``InvalidRequest`` for a value in place of that of ``name`` in which a part of the form would end."""
        if self._delimiter[2:-2] in value:
            raise broken(f"{name}: the boundary of the form would stand in it; use another boundary.", name)

    def upload(self, replace: Mapping[str, bytes], add: Sequence[tuple[str, bytes]] = ()) -> Upload:
        """The body to send on: the fields of ``replace`` with other values, those of ``add`` as parts behind the last one.

        Every other byte is as it came, the boundary included. Raises ``InvalidRequest`` as ``check`` does.
        """
        for name, value in (*replace.items(), *add):
            self.check(name, value)
        segments: list[Segment] = []
        at = 0
        for part in self.parts:
            other = replace.get(part.name)
            if other is not None and not part.file:
                segments += ((at, part.start), other)
                at = part.end
        if add:
            segments.append((at, self._closing))
            at = self._closing
            for name, value in add:
                head = f'Content-Disposition: form-data; name="{name}"'.encode()
                segments.append(self._delimiter + head + b"\r\n\r\n" + value)
        segments.append((at, self._spool.size))
        return Upload(self._spool, segments, self._content_type)


async def read_form(
    receive: Receive,
    headers: Mapping[bytes, bytes],
    spool: Spool,
    largest: int,
    gone: type[Exception],
    keep: Callable[[int, int], None],
) -> Form:
    """The form that comes in over ``receive``, spooled. Takes no more from the client than it has put away.

    Raises ``InvalidRequest`` saying what is wrong with it, ``RequestTooLarge`` beyond ``largest`` bytes, ``gone`` when the
    client hangs up, ``ServiceUnavailable`` without room. ``spool`` is closed then. ``keep`` is told before so many bytes are kept in
    memory and on the disk, and may raise.
    """
    try:
        content_type = headers.get(b"content-type")
        boundary = boundary_of(content_type)
        if declared_length(headers) > largest:
            raise _too_large(largest)
        parser = Parser(boundary)
        began = time.monotonic()
        while True:
            allowed = _GRACE_S + spool.size / _SLOWEST - (time.monotonic() - began)
            try:
                async with asyncio.timeout(max(0.0, allowed)):
                    message = await receive()
            except TimeoutError:
                raise InvalidRequest(
                    f"The body comes too slowly: {spool.size} bytes in {time.monotonic() - began:.0f} s.",
                    code="request_timeout",
                ) from None
            if message["type"] == "http.disconnect":
                raise gone
            data = message.get("body", b"")
            if spool.size + len(data) > largest:
                raise _too_large(largest)
            parser.feed(data)
            in_memory, on_disk = spool.with_more(data)
            keep(parser.in_memory + in_memory, on_disk)
            await spool.write(data)
            if not message.get("more_body"):
                break
        parser.end()
        await spool.end()
        return Form(parser, spool, _type_with(boundary), boundary)
    except BaseException:
        spool.close()
        raise


def _type_with(boundary: bytes) -> str:
    """The one ``Content-Type`` that every reader takes to name this boundary, whatever else stood in the caller's."""
    if not TOKEN.fullmatch(boundary):
        boundary = b'"' + re.sub(rb'(["\\])', rb"\\\1", boundary) + b'"'
    return "multipart/form-data; boundary=" + boundary.decode("latin-1")


def _too_large(largest: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"The body is larger than the {size_words(largest)} that are read here. Send less in one request; whoever runs the "
        "gateway can allow more."
    )
