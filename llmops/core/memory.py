"""Memory: how much a process may have, and what it has done with."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

#: Where a container's bound stands, of cgroups of version 2 and 1.
_BOUNDS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def most() -> int:
    """Bytes of memory that this machine has, or this container may take where that is less."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for bound in _BOUNDS:
        # "max" where there is none.
        with suppress(OSError, ValueError):
            found.append(int(bound.read_text()))
    return min(found)


def give_back() -> None:
    """Give what is free in the C heap back to the system, where that is glibc: after much was loaded at once and let go.

    By itself it would keep free pages that lie below others in use.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
