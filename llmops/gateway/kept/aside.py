"""What is kept of a call for people, on its way into the journal: at once where it is small, beside the loop where it is large, and
never in the way of the call. Whatever goes wrong with it, it is left out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmops.core.errors import ServiceUnavailable
from llmops.usage.records import Origin, TextKept

if TYPE_CHECKING:
    from llmops.gateway.plane import Plane

log = logging.getLogger(__name__)

#: What reads more than this is done beside the loop, so much of it at once; more is left out.
OFF_LOOP_BYTES = 16 * 1024
MOST_AT_ONCE = 64
CLOSE_S = 2.0

Work = Callable[[], str]


class Aside:
    """Belongs to the event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def keep(self, plane: Plane, origin: Origin, work: Work, *, size: int, readable: bool, part: str) -> None:
        """``work`` gives what is sealed of ``size`` bytes, nothing for nothing. Nobody waits for it, and it raises nothing."""
        if size <= OFF_LOOP_BYTES:
            try:
                sealed = work()
            except Exception as error:
                _left_out(origin, error)
            else:
                _write(plane, origin, sealed, readable, part)
        elif len(self._tasks) < MOST_AT_ONCE:
            task = asyncio.get_running_loop().create_task(self._beside(plane, origin, work, readable, part))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            log.warning("what call %s said is not kept: too much is being read for that already", origin.call)

    async def _beside(self, plane: Plane, origin: Origin, work: Work, readable: bool, part: str) -> None:
        try:
            # All of it is bounded: it need not wait behind what may take minutes.
            sealed = await plane.off_loop(work)
        except Exception as error:
            _left_out(origin, error)
        else:
            _write(plane, origin, sealed, readable, part)

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)


def _left_out(origin: Origin, error: Exception) -> None:
    # The text of an error may hold what was said.
    log.warning("what call %s said is not kept (%s)", origin.call, type(error).__name__)


def _write(plane: Plane, origin: Origin, sealed: str, readable: bool, part: str) -> None:
    # While the journal cannot be written, memory is for what is owed.
    if not sealed or plane.unwritten:
        return
    record = TextKept(
        n=0,
        at=time.time_ns(),
        call=origin.call,
        project=origin.project,
        route=origin.route,
        started=origin.started,
        sealed=sealed,
        readable=readable,
        part=part,
    )
    try:
        plane.journal.append(record)
    except ServiceUnavailable as error:
        _left_out(origin, error)
