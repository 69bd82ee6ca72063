"""A cancellation that somebody swallows is repeated: a hung-up call ends, and so does what a process stops."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from llmops.core.asgi import Message
from llmops.core.cancelling import cancel
from llmops.gateway.watch import Watch
from tests.gateway.rig import eventually


class Deaf:
    """A task that swallows its first cancellations, and counts them."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.heard = 0

    async def run(self) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.heard += 1
                if self.heard > self.left:
                    raise


async def test_a_task_ends_though_it_swallows_cancellations() -> None:
    deaf = Deaf(2)
    task = asyncio.create_task(deaf.run())
    await asyncio.sleep(0)
    await asyncio.wait_for(cancel(task), 10)
    assert task.cancelled()
    assert deaf.heard == 3


async def test_a_task_that_fails_while_it_is_cancelled_is_over_too() -> None:
    async def fails() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while it ends")

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await asyncio.wait_for(cancel(task), 10)
    assert isinstance(task.exception(), ValueError)


async def test_a_task_that_is_over_is_left_alone() -> None:
    task = asyncio.create_task(asyncio.sleep(0, "done"))
    assert await task == "done"
    await cancel(task)
    assert task.result() == "done"


async def test_a_hang_up_reaches_a_call_whose_library_swallowed_the_first_word_of_it() -> None:
    async def gone() -> Message:
        return {"type": "http.disconnect"}

    deaf = Deaf(1)
    found: list[tuple[str | None, int]] = []

    async def answer() -> None:
        watch = Watch(gone)
        watch.start(60)
        try:
            await deaf.run()
        except asyncio.CancelledError:
            watch.caught()
            task = asyncio.current_task()
            assert task is not None
            found.append((watch.reason, task.cancelling()))
            # Nothing more comes: what the call does at its end is not disturbed.
            await asyncio.sleep(0.3)
            found.append((watch.reason, task.cancelling()))
        finally:
            watch.close()

    with suppress(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.create_task(answer()), 10)
    assert found == [("client", 0), ("client", 0)]
    assert deaf.heard == 2


async def test_a_hang_up_is_heard_from_a_server_that_gives_futures() -> None:
    """As granian does: the end of the body may still come before."""
    given: list[asyncio.Future[Message]] = []

    def receive() -> asyncio.Future[Message]:
        given.append(asyncio.get_running_loop().create_future())
        return given[-1]

    found: list[str | None] = []

    async def answer(watch: list[Watch], *, hears: bool) -> None:
        watch.append(Watch(receive))
        watch[0].start(60)
        try:
            await (asyncio.Event().wait() if hears else asyncio.sleep(0.1))
        except asyncio.CancelledError:
            watch[0].caught()
            found.append(watch[0].reason)
        finally:
            watch[0].close()

    task = asyncio.create_task(answer([], hears=True))
    await eventually(lambda: len(given) == 1)
    given[0].set_result({"type": "http.request", "body": b"", "more_body": False})
    await eventually(lambda: len(given) == 2)
    given[1].set_result({"type": "http.disconnect"})
    await asyncio.wait_for(task, 10)
    assert found == ["client"]
    # Who has its answer listens no longer.
    await asyncio.wait_for(answer([], hears=False), 10)
    assert given[2].cancelled()
    assert len(given) == 3
