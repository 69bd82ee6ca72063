"""Whether some JSON gives each member of its objects once. Of one that is given twice readers take either, so that what was
looked at here may not be what somebody else reads (RFC 8259, section 4)."""

from __future__ import annotations

from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode


def quotes(data: bytes) -> int:
    """How many quotation marks stand around the texts and names of some JSON: not those within them."""
    if b"\\" not in data or b'\\"' not in data:
        return data.count(b'"')
    data = data.replace(b"\\\\", b"")
    return data.count(b'"') - data.count(b'\\"')


def told_once(raw: bytes, value: Any) -> bool:
    """Whether ``raw`` says no more than ``value``, which was read from it: a member that was given twice left its name behind."""
    return quotes(raw) == quotes(_encode(value))


def texts_told_once(raw: bytes, value: Any) -> bool:
    """The same where ``value`` holds texts and nothing else. What is written here is as short as JSON can be, so that what came
    as short cannot hold any more; most clients write it so."""
    encoded = _encode(value)
    return len(raw) == len(encoded) or quotes(raw) == quotes(encoded)
