"""How processes of the embedded stack hang together."""

from __future__ import annotations

import gc
import signal
import sys
from contextlib import suppress

#: A serving process that must not start, having said why, ends with the first; the second is for one of an embedded
#: installation that has not been filled yet.
EXIT_REFUSED, EXIT_UNPREPARED = 3, 4
_PR_SET_PDEATHSIG = 1


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Linux: have the kernel send this process ``number`` when its parent dies, however it dies (prctl(2)).

    Elsewhere nothing happens, and what a killed watcher leaves behind must be ended by hand.
    """
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)


def collect_seldom() -> None:
    """Look for garbage less often: what a start loads stays, and looking through it all again takes a tenth of the start."""
    gc.set_threshold(20_000, 20, 50)


def open_as_many_files_as_may_be() -> None:
    """A call holds two connections; the usual soft limit of 1,024 files would end at 500 calls at once."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
