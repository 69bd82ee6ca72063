"""What is kept of a call for people, on its way into the journal: at once where it is small, beside the loop where it is large, and
never in the way of the call. Whatever goes wrong with it, it is left out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from llmops.usage.records import Origin, TextKept

log = logging.getLogger(__name__)

#: What reads more than this is done beside the loop, so much of it at once; more is left out.
OFF_LOOP_BYTES = 16 * 1024
MOST_AT_ONCE = 64
CLOSE_S = 2.0

Work = Callable[[], str]


class Aside:
    """Belongs to the event loop. ``beside`` does work in another thread, ``write`` says whether a record could be written."""

    def __init__(self, beside: Callable[[Work], Awaitable[str]], write: Callable[[TextKept], bool]) -> None:
        self._work_beside = beside
        self._write_down = write
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def keep(self, origin: Origin, work: Work, *, size: int, readable: bool, part: str) -> None:
        """``work`` gives what is sealed of ``size`` bytes, nothing for nothing. Nobody waits for it, and it raises nothing."""
        if size <= OFF_LOOP_BYTES:
            try:
                sealed = work()
            except Exception as error:
                _left_out(origin, error)
            else:
                self._write(origin, sealed, readable, part)
        elif len(self._tasks) < MOST_AT_ONCE:
            task = asyncio.get_running_loop().create_task(self._beside(origin, work, readable, part))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            log.warning("what call %s said is not kept: too much is being read for that already", origin.call)

    async def _beside(self, origin: Origin, work: Work, readable: bool, part: str) -> None:
        try:
            # All of it is bounded: it need not wait behind what may take minutes.
            sealed = await self._work_beside(work)
        except Exception as error:
            _left_out(origin, error)
        else:
            self._write(origin, sealed, readable, part)

    def _write(self, origin: Origin, sealed: str, readable: bool, part: str) -> None:
        if not sealed:
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
        if not self._write_down(record):
            log.warning("what call %s said is not kept: the journal cannot be written", origin.call)

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)


def _left_out(origin: Origin, error: Exception) -> None:
    # The text of an error may hold what was said.
    log.warning("what call %s said is not kept (%s)", origin.call, type(error).__name__)
