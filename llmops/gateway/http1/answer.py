"""An answer as it arrives: its head, how its body ends (RFC 9112, section 6.3), and its pieces.

Knows no socket: ``feed`` it what came, in whatever pieces it came. Whoever reads gets the body as one bytes object or as it
comes. What could be read in two ways is refused: a second or a mixed framing, folded fields, bare line feeds, odd numbers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Protocol

MAX_HEAD = 64 * 1024
MAX_FIELDS = 200
#: Heads of 1xx before the answer itself.
MAX_INTERIM = 8
MAX_TRAILER = 8 * 1024
#: Of the line that begins a chunk, with its extensions.
MAX_CHUNK_LINE = 1024
#: So many bytes may wait for whoever reads before the connection is read no further.
HIGH_WATER = 128 * 1024

_HEAD, _BY_LENGTH, _CHUNKED, _TRAILER, _UNTIL_CLOSE, _ENDED = range(6)
#: What ``_left`` says between chunks: a line with a size comes, or the end of a chunk.
_SIZE_COMES, _END_COMES = 0, -1

_PROTOCOL = b"HTTP/1."
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_FIELDS = re.compile(r"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+")
_each_field = re.compile(r"([^:\r\n]++):([^\r\n]*+)\r\n").findall
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_plain_chunk_line = re.compile(rb"[0-9A-Fa-f]{1,15}\r\n").match
_LENGTH = re.compile(r"[0-9]{1,15}")
#: Two of these are one too many.
_ONCE = frozenset(("content-length", "transfer-encoding"))


class NotHttp(OSError):
    """What came is no answer in HTTP/1.1."""


class BrokeOff(ConnectionError):
    """The connection ended, or went out of step, before the answer's end."""


class Link(Protocol):
    """The connection that an answer comes over, while it does."""

    def abandon(self) -> None:
        """Nobody wants the rest of the answer: close at once."""

    def resume(self) -> None:
        """Everything that waited was read."""


class Answer:
    """``headers`` by their names in lower case; of fields with the same name the first. ``status`` is 0 until the head is
    there. ``ended``: nothing more comes, because it is complete or because of ``error``. ``reusable``: once it is complete
    the connection may carry another request."""

    __slots__ = (
        "_bodiless",
        "_held",
        "_interim",
        "_into",
        "_left",
        "_loop",
        "_parts",
        "_raised",
        "_state",
        "_waiter",
        "_whole",
        "content_length",
        "ended",
        "error",
        "headers",
        "link",
        "reusable",
        "status",
        "waiting",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, link: Link | None, *, bodiless: bool = False) -> None:
        """``bodiless``: the request was a HEAD."""
        self._loop = loop
        self.link = link
        self._bodiless = bodiless
        self.status = 0
        self.headers: dict[str, str] = {}
        self.content_length: int | None = None
        self.ended = self.reusable = False
        self.error: Exception | None = None
        self._state = _HEAD
        #: of the body or of the chunk, what is to come
        self._left = 0
        #: what came, but cannot be understood before more comes
        self._held = b""
        self._interim = 0
        self._parts: list[bytes] = []
        #: bytes that nobody has read yet
        self.waiting = 0
        self._waiter: asyncio.Future[None] | None = None
        #: whoever reads wants everything at once
        self._whole = False
        #: who is given what comes, as long as it returns true
        self._into: Callable[[bytes], bool] | None = None
        #: what it raised
        self._raised: Exception | None = None

    # ------------------------------------------------------------------ as it arrives

    def feed(self, data: bytes) -> None:
        try:
            state = self._state
            if state == _HEAD:
                self._feed_head(data)
            elif state == _CHUNKED:
                self._feed_chunks(data)
            elif state == _BY_LENGTH:
                self._feed_length(data)
            elif state == _UNTIL_CLOSE:
                self._add(data)
            elif state == _TRAILER:
                self._feed_trailer(self._held + data)
            else:
                # More than the answer: whatever it is, nobody asked for it.
                self.reusable = False
        except (NotHttp, BrokeOff) as error:
            self.fail(error)
            return
        waiter = self._waiter
        if waiter is None:
            return
        into = self._into
        if into is not None and not waiter.done():
            parts = self._parts
            more = True
            if parts:
                data = parts[0] if len(parts) == 1 else b"".join(parts)
                parts.clear()
                self.waiting = 0
                try:
                    more = into(data)
                except Exception as error:
                    self._raised = error
                    more = False
            if more and not self.ended:
                return
        elif not self.ended and (self._whole or not self.status):
            return
        self._waiter = None
        if not waiter.done():
            waiter.set_result(None)

    def feed_end(self, error: Exception | None = None) -> None:
        """The connection is closed, by ``error`` or properly."""
        if self.ended:
            return
        if self._state == _UNTIL_CLOSE and error is None:
            self._end()
            self._wake()
        elif self._state == _HEAD and not self._held:
            self.fail(BrokeOff("the connection was closed without an answer"))
        else:
            self.fail(BrokeOff("the connection was closed within an answer"))

    def fail(self, error: Exception) -> None:
        if not self.ended:
            self.error = error
            self.ended, self.reusable = True, False
            self._state = _ENDED
            self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _add(self, data: bytes) -> None:
        if data:
            self._parts.append(data)
            self.waiting += len(data)

    def _end(self, rest: int = 0) -> None:
        """The answer is complete, and ``rest`` bytes came behind it."""
        self._state = _ENDED
        self.ended = True
        if rest:
            self.reusable = False

    def _feed_head(self, data: bytes) -> None:
        held = len(self._held)
        if held:
            data = self._held + data
        while True:
            end = data.find(b"\r\n\r\n", max(0, held - 3))
            if end < 0 or end > MAX_HEAD:
                if len(data) > MAX_HEAD or not data.startswith(_PROTOCOL[: len(data)]):
                    raise NotHttp("no head of an answer in HTTP/1.1")
                self._held = data
                return
            status = self._read_head(data[: end + 2].decode("latin-1"))
            data = data[end + 4 :]
            if status >= 200:
                break
            self._interim += 1
            if status == 101 or self._interim > MAX_INTERIM:
                raise NotHttp(f"an interim answer that was not asked for: {status}")
            held = 0
            self._held = b""
            if not data:
                return
        self._held = b""
        self.status = status
        state = self._state
        if state == _BY_LENGTH:
            self._feed_length(data)
        elif state == _CHUNKED:
            self._feed_chunks(data)
        elif state == _UNTIL_CLOSE:
            self._add(data)
        else:
            self._end(len(data))

    def _read_head(self, text: str) -> int:
        """The status; headers, framing and what becomes of the connection when it is a final one."""
        line = _STATUS_LINE.match(text)
        if line is None:
            raise NotHttp("no status line of HTTP/1.1")
        at = line.end()
        if _FIELDS.fullmatch(text, at) is None:
            raise NotHttp("a field of the head is malformed")
        status = int(line[2])
        if status < 200:
            return status
        fields = _each_field(text, at)
        if len(fields) > MAX_FIELDS:
            raise NotHttp("too many fields in the head")
        headers = self.headers
        for name, value in fields:
            name = name.lower()
            if name not in headers:
                headers[name] = value.strip(" \t")
            elif name in _ONCE:
                raise NotHttp(f"two fields {name}")
            elif name == "connection":
                headers[name] += "," + value
        self._frame(status, line[1] == "1")
        return status

    def _frame(self, status: int, newest: bool) -> None:
        headers = self.headers
        length, coding = headers.get("content-length"), headers.get("transfer-encoding")
        said = headers.get("connection")
        self.reusable = newest and (said is None or not _closes(said))
        if coding is not None and (length is not None or not newest or coding.lower() != "chunked"):
            raise NotHttp("the end of the body is said in a way that is not understood")
        if length is not None:
            if _LENGTH.fullmatch(length) is None:
                raise NotHttp("the length of the body is no number")
            self.content_length = int(length)
        if self._bodiless or status in (204, 304):
            self._state = _ENDED
            if status == 204 and not self._bodiless and (coding is not None or self.content_length):
                # A body where none may be: it is not waited for, nor mistaken for the next answer.
                self.reusable = False
        elif coding is not None:
            self._state = _CHUNKED
        elif self.content_length is not None:
            self._left = self.content_length
            self._state = _BY_LENGTH
        else:
            self._state = _UNTIL_CLOSE
            self.reusable = False

    def _feed_length(self, data: bytes) -> None:
        size, left = len(data), self._left
        if size < left:
            self._left = left - size
            self._add(data)
            return
        self._add(data if size == left else data[:left])
        self._left = 0
        self._end(size - left)

    def _feed_chunks(self, data: bytes) -> None:
        at, size, left = 0, len(data), self._left
        if self._held:
            data = self._held + data
            self._held = b""
            size = len(data)
        elif left == _SIZE_COMES and data.endswith(b"\r\n"):
            # As the pieces of most streams come: one whole chunk without extensions.
            line = _plain_chunk_line(data)
            if line is not None:
                at = line.end()
                length = size - at - 2
                if int(line[0], 16) == length > 0:
                    self._parts.append(data[at:-2])
                    self.waiting += length
                    return
                at = 0
        while at < size:
            if left > 0:
                piece = data[at : at + left]
                self._add(piece)
                at += len(piece)
                left -= len(piece)
                if left:
                    break
                left = _END_COMES
            elif left == _END_COMES:
                if not data.startswith(b"\r\n", at):
                    if size - at > 1 or data[at] != 13:
                        raise BrokeOff("a chunk does not end where it should")
                    self._held = data[at:]
                    break
                at += 2
                left = _SIZE_COMES
            else:
                end = data.find(b"\r\n", at, at + MAX_CHUNK_LINE + 2)
                if end < 0:
                    if size - at > MAX_CHUNK_LINE:
                        raise BrokeOff("the line of a chunk is too long")
                    self._held = data[at:]
                    break
                line = _CHUNK_LINE.fullmatch(data, at, end)
                if line is None:
                    raise BrokeOff("the size of a chunk is no number")
                at = end + 2
                left = int(line[1], 16)
                if not left:
                    self._left = 0
                    self._state = _TRAILER
                    self._feed_trailer(data[at:])
                    return
        self._left = left

    def _feed_trailer(self, data: bytes) -> None:
        """``data``: all that came of it so far. Its fields say nothing that anybody here asks for."""
        if data.startswith(b"\r\n"):
            end = 0
        else:
            end = data.find(b"\r\n\r\n") + 2
            if end < 2 or end > MAX_TRAILER:
                if len(data) > MAX_TRAILER:
                    raise BrokeOff("the trailer is too long")
                self._held = data
                return
            if _FIELDS.fullmatch(data[:end].decode("latin-1")) is None:
                raise BrokeOff("a field of the trailer is malformed")
        self._held = b""
        self._end(len(data) - end - 2)

    # ------------------------------------------------------------------ as it is read

    @property
    def content(self) -> Answer:
        return self

    def coming(self) -> asyncio.Future[None]:
        """Done as soon as the head is there, or ``error``: one frame less to wake than ``until_head``."""
        waiter = self._waiter = self._loop.create_future()
        if self.status or self.ended:
            self._wake()
        return waiter

    async def until_head(self) -> None:
        """Raises what kept the head from coming: ``NotHttp``, ``BrokeOff``, ``TimeoutError``, ``OSError``."""
        if not self.status and self.error is None:
            await self._more()
        if not self.status and self.error is not None:
            raise self.error

    async def readany(self) -> bytes:
        """What has come since, at least something; empty at the end. Raises as ``until_head``, once everything that came
        before was read."""
        while not self._parts:
            if self.error is not None:
                raise self.error
            if self.ended:
                return b""
            await self._more()
        return self._take()

    async def pour(self, into: Callable[[bytes], bool]) -> None:
        """Give ``into`` what comes, within the very read that brings it, for as long as it returns true and more comes. The
        rest is for whoever reads next. Raises what ``into`` raises."""
        if self._parts and not into(self._take()):
            return
        if self.ended:
            return
        self._into = into
        try:
            await self._more()
        finally:
            self._into = None
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    async def read(self, most: int = -1) -> bytes:
        """The whole rest; or something, no more than ``most``, empty at the end."""
        if most >= 0:
            data = await self.readany()
            if len(data) > most:
                self._parts.insert(0, data[most:])
                self.waiting += len(data) - most
                data = data[:most]
            return data
        self._whole = True
        while not self.ended:
            if self.link is not None:
                self.link.resume()
            await self._more()
        if self.error is not None:
            raise self.error
        return self._take()

    async def iter_any(self) -> AsyncIterator[bytes]:
        while data := await self.readany():
            yield data

    def at_eof(self) -> bool:
        return self.ended and not self._parts and self.error is None

    @property
    def crowded(self) -> bool:
        """More waits to be read than should."""
        return self.waiting > HIGH_WATER and not self._whole

    def close(self) -> None:
        """Nobody wants the rest. What is complete left its connection already."""
        if self.link is not None:
            self.link.abandon()

    release = close

    def _take(self) -> bytes:
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.waiting = 0
        if self.link is not None:
            self.link.resume()
        return data

    async def _more(self) -> None:
        assert self._waiter is None, "one reader at a time"
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None


def _closes(said: str) -> bool:
    return any(option.strip().lower() == "close" for option in said.split(","))
