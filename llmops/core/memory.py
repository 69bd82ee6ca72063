"""Memory that a process has done with."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress


def give_back() -> None:
    """Give what is free in the C heap back to the system, where that is glibc: after much was loaded at once and let go.

    By itself it would keep free pages that lie below others in use.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
