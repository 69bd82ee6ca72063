"""What can be sent at once is, and what cannot is awaited exactly as if nobody had tried."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llmops.core.asgi import at_once


class Taken:
    """An awaitable that has nothing to wait for and is no generator, as granian's."""

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> None:
        raise StopIteration


class Stubborn:
    """An awaitable whose steps cannot be thrown into."""

    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future
        self._given = False

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> asyncio.Future[None]:
        if self._given:
            raise StopIteration
        self._given = True
        self._future._asyncio_future_blocking = True
        return self._future


async def test_what_waits_for_nothing_is_done() -> None:
    done: list[int] = []

    async def send() -> None:
        done.append(1)

    assert at_once(Taken()) is None
    assert at_once(send()) is None
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    assert at_once(future) is None
    assert done == [1]


async def test_what_is_raised_at_once_is_raised_at_once() -> None:
    async def send() -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        at_once(send())


def _future(future: asyncio.Future[None]) -> Awaitable[None]:
    return future


async def _once(future: asyncio.Future[None]) -> None:
    await future


async def _often(future: asyncio.Future[None]) -> None:
    for _ in range(3):
        await asyncio.sleep(0)
    await asyncio.shield(future)
    await asyncio.sleep(0)


@pytest.mark.parametrize("send", [_future, _once, _often, Stubborn])
async def test_what_is_left_is_waited_for(
    send: Callable[[asyncio.Future[None]], Awaitable[None]],
) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    rest = at_once(send(future))
    assert rest is not None
    task = asyncio.ensure_future(_awaited(rest))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    future.set_result(None)
    await asyncio.wait_for(task, 5)


@pytest.mark.parametrize("send", [_once, _often])
async def test_a_failure_and_a_cancellation_reach_what_is_left(
    send: Callable[[asyncio.Future[None]], Awaitable[None]],
) -> None:
    ends: list[str] = []

    async def watched(future: asyncio.Future[None]) -> None:
        try:
            await send(future)
        except BaseException as error:
            ends.append(type(error).__name__)
            raise

    for end in (lambda future, task: future.set_exception(BrokenPipeError()), lambda _, task: task.cancel()):
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        rest = at_once(watched(future))
        assert rest is not None
        task = asyncio.ensure_future(_awaited(rest))
        for _ in range(10):
            await asyncio.sleep(0)
        end(future, task)
        with pytest.raises((BrokenPipeError, asyncio.CancelledError)):
            await asyncio.wait_for(task, 5)
    assert ends == ["BrokenPipeError", "CancelledError"]


async def test_what_cannot_be_told_of_it_is_raised() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    rest = at_once(Stubborn(future))
    assert rest is not None
    task = asyncio.ensure_future(_awaited(rest))
    await asyncio.sleep(0)
    future.set_exception(BrokenPipeError())
    with pytest.raises(BrokenPipeError):
        await asyncio.wait_for(task, 5)


async def test_what_is_cancelled_may_still_tidy_up() -> None:
    """Steps go on after what was thrown into them, as with ``yield from``."""
    tidied: list[str] = []
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def send() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await gate
            tidied.append("tidied")

    rest = at_once(send())
    assert rest is not None
    task = asyncio.ensure_future(_awaited(rest))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    gate.set_result(None)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tidied == ["tidied"]


async def _awaited(rest: Awaitable[None]) -> None:
    await rest
