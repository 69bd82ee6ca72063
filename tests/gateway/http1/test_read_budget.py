"""More streams than a loop can read do not take the loop for themselves, and what waits for its next turn is not lost."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from console.process import die_with_parent
from llmops.gateway.http1.answer import HIGH_WATER, Answer, BrokeOff
from llmops.gateway.http1.connection import Connection
from llmops.gateway.http1.read_budget import BEYOND, NOTED, ReadBudget
from tests.gateway.http1.wire import REQUEST

#: More than libuv asks for at once: it asks again, before anything else, as long as it gets a full list.
STREAMS = 1_200
#: Without a budget these would be read before anything else is done.
ENOUGH = 10_000
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
PIECE = b"4\r\nword\r\n"


class Home:
    def __init__(self) -> None:
        self.free: list[Connection] = []
        self.gone: list[Connection] = []

    def freed(self, connection: Connection) -> None:
        self.free.append(connection)

    def lost(self, connection: Connection, *, busy: bool) -> None:
        self.gone.append(connection)


async def a_connection(home: Home, budget: ReadBudget, sock: socket.socket) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: Connection(home, loop, budget, read_s=60, write_s=60), sock=sock
    )
    return connection


@contextmanager
def flooded(ends: list[socket.socket]) -> Iterator[None]:
    """Another process writes pieces into all of them, as fast as they are taken."""
    pid = os.fork()
    if not pid:
        die_with_parent()
        for end in ends:
            end.send(HEAD)
        while True:
            for end in ends:
                try:
                    end.send(PIECE)
                except BlockingIOError:
                    continue
                except OSError:
                    os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


async def test_a_loop_that_cannot_read_everything_still_turns() -> None:
    loop = asyncio.get_running_loop()
    pairs = [socket.socketpair() for _ in range(STREAMS)]
    for pair in pairs:
        for end in pair:
            end.setblocking(False)
        # A piece or a few of each are under way, as where each comes by itself.
        pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    budget = ReadBudget(loop)
    given = longest = since = 0
    enough = loop.create_future()

    def into(data: bytes) -> bool:
        nonlocal given
        given += 1
        # What a piece costs on its way through all that is done with it.
        until = time.perf_counter() + 20e-6
        while time.perf_counter() < until:
            pass
        if given > ENOUGH and not enough.done():
            enough.set_result(None)
        return True

    def turn() -> None:
        nonlocal longest, since
        longest = max(longest, given - since)
        since = given
        loop.call_soon(turn)

    home = Home()
    connections = [await a_connection(home, budget, ours) for ours, _ in pairs]
    pouring = []
    for connection in connections:
        answer = connection.ask(REQUEST)
        pouring.append(loop.create_task(poured(answer, into)))
    with flooded([theirs for _, theirs in pairs]):
        loop.call_soon(turn)
        await enough
    for connection in connections:
        connection.abandon()
    await asyncio.gather(*pouring)
    for _, theirs in pairs:
        theirs.close()
    assert longest <= 2 * (NOTED + BEYOND)


async def poured(answer: Answer, into: object) -> None:
    await answer.until_head()
    with pytest.raises(BrokeOff):
        await answer.pour(into)  # type: ignore[arg-type]
        await answer.readany()


class Quiet:
    """A transport that notes whether it is read."""

    def __init__(self) -> None:
        self.reads = True
        self.aborted = False

    def get_extra_info(self, name: str) -> None:
        return None

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None: ...

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def abort(self) -> None:
        self.aborted = True


class Spent:
    """A connection on a loop that has read what it may in this turn. ``turn`` is its next."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.home = Home()
        self.budget = ReadBudget(loop)
        self.budget.reads = NOTED + BEYOND
        self.transport = Quiet()
        self.connection = Connection(self.home, loop, self.budget, read_s=60, write_s=60)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self.answer = self.connection.ask(REQUEST)

    async def turn(self) -> None:
        await asyncio.sleep(0)
        assert self.budget.reads < NOTED


async def test_what_was_kept_is_read_in_the_next_turn_in_order() -> None:
    spent = Spent()
    spent.connection.data_received(HEAD + b"1\r\na\r\n")
    spent.connection.data_received(b"1\r\nb\r")
    assert not spent.answer.status, "not in this turn"
    await spent.turn()
    assert spent.answer.status == 200 and await spent.answer.readany() == b"ab"
    spent.connection.data_received(b"\n0\r\n\r\n")
    assert spent.answer.at_eof() and spent.home.free == [spent.connection], "read at once again"


async def test_a_connection_that_is_lost_is_read_to_its_end_first() -> None:
    spent = Spent()
    spent.connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
    spent.connection.connection_lost(None)
    assert await spent.answer.read() == b"ok"
    await spent.turn()
    assert spent.home.gone == [spent.connection]


async def test_a_connection_that_is_given_up_reads_nothing_more() -> None:
    spent = Spent()
    spent.connection.data_received(HEAD)
    spent.connection.abandon()
    await spent.turn()
    assert spent.transport.aborted and not spent.answer.status


async def test_what_waits_behind_an_answer_is_no_part_of_the_next() -> None:
    spent = Spent()
    spent.budget.reads = 0
    spent.connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    assert spent.connection.sound()
    spent.budget.reads = NOTED + BEYOND
    spent.connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
    assert not spent.connection.sound()
    await spent.turn()
    assert spent.transport.aborted


async def test_of_one_connection_no_more_is_kept_than_may_wait() -> None:
    spent = Spent()
    spent.connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (3 * HIGH_WATER))
    spent.connection.data_received(b"x" * HIGH_WATER)
    assert not spent.transport.reads
    await spent.turn()
    assert spent.transport.reads, "it has room again"
    spent.connection.data_received(b"x" * (HIGH_WATER + 1))
    assert not spent.transport.reads, "as full as without a budget"
    assert len(await spent.answer.readany()) == 2 * HIGH_WATER + 1 and spent.transport.reads


async def test_a_read_that_fails_is_told_to_the_loop_and_keeps_no_other_from_reading() -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    spent = Spent()

    class Failing:
        abandoned = False

        def catch_up(self) -> None:
            raise LookupError

        def abandon(self) -> None:
            self.abandoned = True

    failing = Failing()
    spent.budget.keep(failing)
    spent.connection.data_received(HEAD)
    await spent.turn()
    assert spent.answer.status == 200 and failing.abandoned
    assert [type(error) for error in told] == [LookupError]


async def test_what_was_kept_of_many_is_read_within_the_budget_of_each_turn_first_come_first() -> None:
    spent, read = Spent(), []

    class Counted:
        def __init__(self, number: int) -> None:
            self.number = number

        def catch_up(self) -> None:
            spent.budget.reads += 1
            if spent.budget.reads > NOTED and spent.budget.spent():
                spent.budget.keep(self)
            else:
                read.append(self.number)

        def abandon(self) -> None: ...

    assert spent.budget.spent() is False, "noted"
    for number in range(2 * (NOTED + BEYOND)):
        spent.budget.keep(Counted(number))
    await asyncio.sleep(0)
    assert len(read) == NOTED + BEYOND
    await asyncio.sleep(0)
    assert read == list(range(2 * (NOTED + BEYOND)))
