"""Just enough of HTTP/1.1 for both ends of a benchmark: messages with a length or in chunks, one at a time."""

from __future__ import annotations

END_OF_HEAD = b"\r\n\r\n"


class Malformed(Exception):
    """The bytes are not an HTTP/1.1 message that this reader understands."""


def message_end(buffer: bytes) -> tuple[int, int]:
    """``(start of the body, end of the message)``; the end is -1 while bytes are missing.

    Raises ``Malformed`` for a message whose length is neither stated nor chunked.
    """
    head_end = buffer.find(END_OF_HEAD)
    if head_end < 0:
        return -1, -1
    body = head_end + 4
    head = buffer[:head_end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        line_end = head.find(b"\r\n", at + 2)
        length = int(head[at + 17 : line_end if line_end >= 0 else len(head)])
        end = body + length
        return body, end if len(buffer) >= end else -1
    if b"\r\ntransfer-encoding: chunked" in head:
        return body, _chunked_end(buffer, body)
    if head.startswith((b"get ", b"delete ")):
        return body, body
    raise Malformed("a message without a length: " + buffer[:200].decode("latin-1"))


def _chunked_end(buffer: bytes, at: int) -> int:
    while True:
        line_end = buffer.find(b"\r\n", at)
        if line_end < 0:
            return -1
        size = int(buffer[at:line_end].split(b";")[0], 16)
        at = line_end + 2 + size + 2
        if at > len(buffer):
            return -1
        if size == 0:
            return at
