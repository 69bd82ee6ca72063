"""Whether some JSON gives each member of its objects once. Of one that is given twice readers take either, so that what was
looked at here may not be what somebody else reads (RFC 8259, section 4)."""

from __future__ import annotations

from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode


def quotes(data: bytes) -> int:
    """How many quotation marks stand around the texts and names of some JSON: not those within them."""
    count = data.count(b'"')
    if b"\\" not in data:
        return count
    if b"\\\\" in data:
        data = data.replace(b"\\\\", b"")
    return count - data.count(b'\\"')


def told_once(raw: bytes, value: Any) -> bool:
    """Whether ``raw`` says no more than ``value``, which was read from it: a member that was given twice left its name behind."""
    return quotes(raw) == quotes(_encode(value))


def texts_told_once(raw: bytes, members: int) -> bool:
    """The same of objects with so many ``members`` between them that all have texts and nothing else for values: the names and the
    texts have two quotation marks each, so that nothing else can stand in ``raw``."""
    return quotes(raw) == 4 * members
