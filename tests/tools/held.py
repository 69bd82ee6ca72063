"""Functions of tools that say when they are called, and that one can hold."""

from __future__ import annotations

import threading
from typing import Any

FUNCTIONS = {"note": "tests.tools.held.note", "hold": "tests.tools.held.hold"}
#: Keys of what was carried out, and what a held one waits for.
NOTED: list[str] = []
CAME = threading.Condition()
RELEASED = threading.Event()


def note(arguments: Any, job: Any) -> None:
    with CAME:
        NOTED.append(job.key)
        CAME.notify_all()


def hold(arguments: Any, job: Any) -> None:
    note(arguments, job)
    RELEASED.wait(60)


def begun(count: int) -> list[str]:
    """Once so many have begun: which."""
    with CAME:
        assert CAME.wait_for(lambda: len(NOTED) >= count, 60), f"{len(NOTED)} of {count} have begun"
        return list(NOTED)
