"""The connections to one origin: how many calls have one at once, who waits for one, which are kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from llmops.core.waiting import Waiting
from llmops.gateway.http1.connection import Connection
from llmops.gateway.http1.dialing import Dialer
from llmops.gateway.http1.read_budget import budget_of

#: A connection is kept so long without a request.
KEEP_S = 30.0


class NoConnection(OSError):
    """There was none to send a request over, so none was sent."""


class NoConnectionInTime(NoConnection):
    """No place or no connection within its time-out."""


class Pool:
    """At most ``largest`` connections are in use or being made (0: any number). Who waits for one is served in turn, a call of
    each project, and of one project who came first; the connection is the one that was used last. ``acquire`` one, ``ask`` over
    it; it comes back by itself when its answer has ended."""

    def __init__(
        self,
        dialer: Dialer,
        *,
        largest: int,
        pool_s: float,
        connect_s: float,
        read_s: float,
        write_s: float,
    ) -> None:
        self._dialer = dialer
        self._largest = largest
        self._pool_s = pool_s
        self._connect_s = connect_s
        self._read_s = read_s
        self._write_s = write_s
        self._taken = 0
        #: the longest idle first
        self._idle: deque[Connection] = deque()
        self._queue = Waiting()
        self._all: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self) -> Connection | None:
        """An idle connection, if it may be had at once."""
        if self._queue or (self._taken >= self._largest and self._largest):
            return None
        connection = self._kept()
        if connection is not None:
            self._taken += 1
        return connection

    async def acquire(self, project: str = "") -> Connection:
        """Raises ``NoConnection``, ``AddressRefused``."""
        if self._closed:
            raise NoConnection("the connections to the provider are closed")
        if self._queue or (self._taken >= self._largest and self._largest):
            await self._turn(project)
        else:
            self._taken += 1
        try:
            return self._kept() or await self._made()
        except BaseException:
            self._let_go()
            raise

    def freed(self, connection: Connection) -> None:
        """The answer has ended, and the connection may carry another request."""
        if self._closed:
            # Tells us that it is lost, as one that nobody uses.
            connection.abandon()
        else:
            now = connection.idle_since = self._loop().time()
            self._idle.append(connection)
            if self._sweep is None:
                self._sweep = self._loop().call_at(now + KEEP_S, self._reap)
        self._let_go()

    def lost(self, connection: Connection, *, busy: bool) -> None:
        """The connection is closed, with a request under way or without."""
        self._all.discard(connection)
        if busy:
            self._let_go()
        else:
            with contextlib.suppress(ValueError):
                self._idle.remove(connection)

    async def close(self) -> None:
        """Connections in use end with their answers."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        while self._idle:
            self._idle.pop().abandon()
        await self._dialer.close()

    @property
    def figures(self) -> tuple[int, int, int]:
        """Connections in use or being made, idle ones, and who waits."""
        return self._taken, len(self._idle), sum(map(self._queue.of, self._queue))

    # ------------------------------------------------------------------

    def _kept(self) -> Connection | None:
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.sound():
                return connection
            connection.abandon()
        return None

    async def _turn(self, project: str) -> None:
        """Wait for a place."""
        turn: asyncio.Future[None] = self._loop().create_future()
        self._queue.add(project, turn)
        try:
            async with asyncio.timeout(self._pool_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._let_go()
            else:
                self._queue.forget(project, turn)
            if isinstance(error, TimeoutError):
                raise NoConnectionInTime("no place among the connections within the time-out") from None
            raise

    def _let_go(self) -> None:
        while self._queue:
            turn = self._queue.first(next(iter(self._queue)))
            if not turn.done():
                # The place stays taken, by whoever's turn it is.
                turn.set_result(None)
                return
        self._taken -= 1

    async def _made(self) -> Connection:
        loop = self._loop()

        budget = budget_of(loop)

        def make() -> Connection:
            return Connection(self, loop, budget, read_s=self._read_s, write_s=self._write_s)

        try:
            async with asyncio.timeout(self._connect_s):
                connection = await self._dialer.dial(make)
        except TimeoutError:
            raise NoConnectionInTime("no connection within the time-out") from None
        if not connection.open:
            raise NoConnection("the connection was closed as soon as it was made")
        self._all.add(connection)
        return connection

    def _reap(self) -> None:
        """Close what was idle for too long."""
        self._sweep = None
        loop = self._loop()
        oldest = loop.time() - KEEP_S
        idle = self._idle
        while idle and idle[0].idle_since <= oldest:
            idle.popleft().abandon()
        if idle:
            self._sweep = loop.call_at(idle[0].idle_since + KEEP_S, self._reap)

    @staticmethod
    def _loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()
