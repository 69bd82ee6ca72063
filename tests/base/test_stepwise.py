"""Answers that are sent as they are made: beside the loop, and ended by whoever stops listening."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator

import pytest
from django.test import AsyncRequestFactory, RequestFactory

from llmops.base.stepwise import stepwise


class Counting:
    """Counts to ``to``; what it says of itself is where each step was made, and how it ended."""

    def __init__(self, to: int, gate: threading.Event | None = None) -> None:
        self.to, self.gate = to, gate
        self.threads: list[int] = []
        self.reached = threading.Event()
        self.ended: list[str] = []

    def __iter__(self) -> Generator[bytes]:
        try:
            for number in range(self.to):
                self.threads.append(threading.get_ident())
                if number == 1 and self.gate is not None:
                    self.reached.set()
                    assert self.gate.wait(60)
                yield b"%d" % number
            self.ended.append("to the end")
        except GeneratorExit:
            self.threads.append(threading.get_ident())
            self.ended.append("before")
            raise


def answer_of(counting: Counting):
    return stepwise(AsyncRequestFactory().get("/"), iter(counting), "text/plain")


def test_each_piece_is_made_beside_the_loop():
    counting = Counting(3)

    async def heard() -> list[bytes]:
        return [piece async for piece in answer_of(counting).streaming_content]

    assert asyncio.run(heard()) == [b"0", b"1", b"2"]
    assert counting.ended == ["to the end"]
    assert threading.get_ident() not in counting.threads


def test_whoever_hangs_up_ends_it_once_its_step_is_done():
    gate = threading.Event()
    counting = Counting(1_000, gate)

    async def hung_up() -> None:
        pieces = answer_of(counting).streaming_content

        async def listen() -> None:
            async for _ in pieces:
                pass

        listening = asyncio.ensure_future(listen())
        assert await asyncio.to_thread(counting.reached.wait, 60)
        listening.cancel()
        await asyncio.sleep(0)
        # The step is still under way: nothing is taken away from it.
        assert counting.ended == []
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await listening
        await pieces.aclose()
        assert counting.ended == ["before"]

    asyncio.run(hung_up())
    assert threading.get_ident() not in counting.threads


def test_what_goes_wrong_is_told_to_who_listens():
    def failing() -> Generator[bytes]:
        yield b"0"
        raise ValueError("no more")

    async def heard() -> list[bytes]:
        answer = stepwise(AsyncRequestFactory().get("/"), failing(), "text/plain")
        return [piece async for piece in answer.streaming_content]

    with pytest.raises(ValueError, match="no more"):
        asyncio.run(heard())


def test_without_a_loop_it_is_the_iterator_itself():
    answer = stepwise(RequestFactory().get("/"), iter(Counting(2)), "text/plain")
    assert list(answer.streaming_content) == [b"0", b"1"]
