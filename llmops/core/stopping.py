"""Stopping work in a thread that nobody waits for any more: it asks, now and then, whether it should go on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
_here = threading.local()


class Stopped(Exception):
    """Nobody waits for the result."""


class Stop:
    """``run`` some work in any thread; once ``set`` is called it ends by ``Stopped`` where it asks next."""

    __slots__ = ("_set",)

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def run(self, work: Callable[[], Result]) -> Result:
        """Raises ``Stopped`` and whatever ``work`` raises."""
        if self._set:
            raise Stopped
        _here.stop = self
        try:
            return work()
        finally:
            del _here.stop


def go_on() -> None:
    """To be called in every loop over something that may be large. Raises ``Stopped``; nothing outside of ``Stop.run``."""
    stop: Stop | None = getattr(_here, "stop", None)
    if stop is not None and stop._set:
        raise Stopped
