"""Ending a task for certain."""

from __future__ import annotations

import asyncio

#: A cancellation that had no effect by then is repeated.
AGAIN_S = 0.1


async def cancel(task: asyncio.Task[object]) -> None:
    """Cancel a task and wait until it is over, whatever it ends with.

    Until Python 3.12 ``asyncio.wait_for``, which libraries use, swallows a cancellation that comes in the same turn of the
    loop as its result (CPython gh-86296): the task goes on, and whoever waits for it would wait for ever.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=AGAIN_S)
    if not task.cancelled():
        task.exception()
