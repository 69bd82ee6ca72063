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

#: Random bytes fetched from the system at a time: a call a number would cost more than all the rest.
_POOL_BYTES = 4096

_lock = threading.Lock()
_last_ms = 0
_counter = 0
_SET_BACK_MS = 10_000
_pool = b""
_used = 0


def uuid7() -> UUID:
    ms, counter, tail = _next()
    return UUID(int=(ms << 80) | (0x7 << 76) | (counter << 64) | (0b10 << 62) | tail)


def uuid7_text() -> str:
    """``str(uuid7())``, without making the object."""
    ms, counter, tail = _next()
    high, low = tail >> 48 | 0x8000, tail & 0xFFFF_FFFF_FFFF
    return "%08x-%04x-7%03x-%04x-%012x" % (ms >> 16, ms & 0xFFFF, counter, high, low)  # noqa: UP031 - the fastest way


def _next() -> tuple[int, int, int]:
    """The parts of the next identifier: milliseconds, counter (12 bits), random (62 bits)."""
    global _last_ms, _counter, _pool, _used
    with _lock:
        if _used == len(_pool):
            _pool, _used = os.urandom(_POOL_BYTES), 0
        tail = int.from_bytes(_pool[_used : _used + 8], "big")
        _used += 8
        now = time.time_ns() // 1_000_000
        # A clock that was set back by more than a moment is followed: ids that lie hours ahead would sort wrongly longer.
        if now > _last_ms or now < _last_ms - _SET_BACK_MS:
            _last_ms, _counter = now, tail & 0x3FF
        else:
            _counter += 1
            if _counter > 0xFFF:
                _last_ms, _counter = _last_ms + 1, 0
        return _last_ms, _counter, tail >> 2


def _after_fork() -> None:
    """A child must neither repeat its parent's random bytes nor wait for a lock that a thread of the parent held."""
    global _lock, _pool, _used
    _lock = threading.Lock()
    _pool, _used = b"", 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def time_of(identifier: UUID) -> datetime:
    """The moment (UTC, to the millisecond) at which a version 7 identifier was made."""
    return datetime.fromtimestamp((identifier.int >> 80) / 1000, tz=UTC)
