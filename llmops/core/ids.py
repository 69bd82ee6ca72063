"""Identifiers that sort by time: UUID version 7 (RFC 9562, section 5.7).

48 bits of Unix milliseconds, then 74 random bits; within one process and millisecond the first 12 random bits are a
counter, so that ids made one after another sort in that order.
"""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from uuid import UUID

_lock = threading.Lock()
_last_ms = 0
_counter = 0


def uuid7() -> UUID:
    global _last_ms, _counter
    tail = int.from_bytes(os.urandom(8), "big")
    with _lock:
        now = time.time_ns() // 1_000_000
        if now > _last_ms:
            _last_ms, _counter = now, tail & 0x3FF
        else:
            _counter += 1
            if _counter > 0xFFF:
                _last_ms, _counter = _last_ms + 1, 0
        ms, counter = _last_ms, _counter
    value = (ms << 80) | (0x7 << 76) | (counter << 64) | (0b10 << 62) | (tail >> 2)
    return UUID(int=value)


def time_of(identifier: UUID) -> datetime:
    """The moment (UTC, to the millisecond) at which a version 7 identifier was made."""
    return datetime.fromtimestamp((identifier.int >> 80) / 1000, tz=UTC)
