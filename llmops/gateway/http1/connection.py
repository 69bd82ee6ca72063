"""One connection to a provider: a request goes out, its answer comes in, then perhaps another.

Time-outs cost an attribute of each call: a connection has one timer, which looks again when silence could have lasted long
enough, and is left running between calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol, cast

from llmops.gateway.http1.answer import HIGH_WATER, Answer, BrokeOff
from llmops.gateway.http1.read_budget import NOTED, ReadBudget

#: What is larger is written in pieces of this size, each when the one before is on its way.
PIECE = 256 * 1024
_NEVER = float("inf")
_can_poll = hasattr(select, "poll")


class Home(Protocol):
    """Where a connection belongs: ``pool.Pool``."""

    def freed(self, connection: Connection) -> None:
        """Its answer has ended, and it may carry another request."""

    def lost(self, connection: Connection, *, busy: bool) -> None:
        """It is closed, with a request under way or without."""


class Connection(asyncio.Protocol):
    """Made by a pool, which it tells of its end. ``idle_since`` is the pool's."""

    __slots__ = (
        "_answer",
        "_budget",
        "_due",
        "_kept",
        "_kept_bytes",
        "_loop",
        "_paused",
        "_poll",
        "_pool",
        "_pouring",
        "_read_s",
        "_timer",
        "_timer_at",
        "_transport",
        "_writable",
        "_write_s",
        "idle_since",
    )

    def __init__(
        self,
        pool: Home,
        loop: asyncio.AbstractEventLoop,
        budget: ReadBudget,
        *,
        read_s: float,
        write_s: float,
    ) -> None:
        self._pool = pool
        self._loop = loop
        self._budget = budget
        #: what came when the loop had read enough, for its next turn
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._read_s = read_s
        self._write_s = write_s
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        #: when the answer, or the other side's taking the request, is late
        self._due = _NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._paused = False
        #: what writes a request that is too large for one write
        self._pouring: asyncio.Task[None] | None = None
        #: set while the other side takes no more
        self._writable: asyncio.Future[None] | None = None
        self._poll: select.poll | None = None
        self.idle_since = 0.0

    # ------------------------------------------------------------------ a request

    def ask(self, request: bytes, *, bodiless: bool = False) -> Answer:
        """Write a whole request. ``bodiless``: a HEAD."""
        transport = self._transport
        assert transport is not None and self._answer is None
        answer = self._answer = Answer(self._loop, self, bodiless=bodiless)
        self._expect_within(self._read_s)
        transport.write(request)
        return answer

    def ask_in_pieces(
        self, head: bytes, pieces: AsyncIterator[bytes], length: int | None, *, bodiless: bool = False
    ) -> Answer:
        """Write ``head``, then ``pieces`` as fast as the other side takes them: chunked, or ``length`` bytes in all."""
        answer = self.ask(head, bodiless=bodiless)
        self._pouring = self._loop.create_task(self._pour(answer, pieces, length))
        return answer

    async def _pour(self, answer: Answer, pieces: AsyncIterator[bytes], length: int | None) -> None:
        left = length
        try:
            # How long the next piece may take is known to whoever makes it.
            self._due = _NEVER
            async for piece in pieces:
                if not piece:
                    continue
                if left is not None:
                    left -= len(piece)
                    if left < 0:
                        raise BrokeOff("the body of the request is longer than it was said to be")
                await self._write(piece, chunked=length is None)
            if left:
                raise BrokeOff("the body of the request is shorter than it was said to be")
            if length is None and self._transport is not None:
                self._transport.write(b"0\r\n\r\n")
            self._pouring = None
            if self._answer is answer:
                self._expect_within(self._read_s)
        except Exception as problem:
            error = problem if isinstance(problem, OSError) else BrokeOff("the body of the request broke off")
            error.__cause__ = problem if error is not problem else None
            answer.fail(error)
            self.abandon()
        finally:
            if isinstance(pieces, AsyncGenerator):
                with contextlib.suppress(Exception):
                    await pieces.aclose()

    async def _write(self, piece: bytes, *, chunked: bool) -> None:
        for start in range(0, len(piece), PIECE):
            part = piece[start : start + PIECE] if len(piece) > PIECE else piece
            transport = self._transport
            if transport is None:
                raise BrokeOff("the connection was closed within the request")
            transport.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
            if self._writable is not None:
                self._expect_within(self._write_s)
                await self._writable
                self._due = _NEVER

    def abandon(self) -> None:
        """Close at once, whatever is under way."""
        transport = self._transport
        if transport is not None:
            transport.abort()
            self._gone()

    def resume(self) -> None:
        """Everything that waited was read."""
        if self._paused:
            self._paused = False
            if self._transport is not None:
                self._transport.resume_reading()
                self._expect_within(self._read_s)

    # ------------------------------------------------------------------ between requests

    @property
    def open(self) -> bool:
        return self._transport is not None

    def sound(self) -> bool:
        """Whether an idle connection can still be used: open, and with nothing to be read from it. Asked right before a
        request, because the loop may not have seen yet that the other side closed it."""
        if self._transport is None or self._kept:
            return False
        return self._poll is None or not self._poll.poll(0)

    # ------------------------------------------------------------------ the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if _can_poll and sock is not None:
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        budget = self._budget
        budget.reads += 1
        if budget.reads > NOTED and budget.spent():
            self._keep(data)
            return
        answer = self._answer
        if answer is None:
            # Nobody asked.
            self.abandon()
            return
        answer.feed(data)
        if answer.ended:
            self._answered(answer)
            return
        if self._pouring is None and not self._paused:
            self._due = self._loop.time() + self._read_s
        if answer.waiting and answer.crowded and not self._paused and self._transport is not None:
            self._paused = True
            self._due = _NEVER
            self._transport.pause_reading()

    def _keep(self, data: bytes) -> None:
        if not self._kept:
            self._budget.keep(self)
        self._kept.append(data)
        self._kept_bytes += len(data)
        if self._kept_bytes > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def catch_up(self) -> None:
        """Read what was kept, within the budget of this turn."""
        kept, self._kept = self._kept, []
        self._kept_bytes = 0
        if not kept:
            return
        self.data_received(kept[0] if len(kept) == 1 else b"".join(kept))
        if self._paused and not self._kept and (self._answer is None or not self._answer.crowded):
            self.resume()

    def connection_lost(self, error: Exception | None) -> None:
        answer = self._answer
        if answer is not None and self._kept:
            answer.feed(b"".join(self._kept))
            if answer.ended:
                self._answered(answer)
        if self._transport is not None:
            if self._answer is not None:
                self._answer.feed_end(error)
            self._gone()

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # ------------------------------------------------------------------

    def _answered(self, answer: Answer) -> None:
        """The answer is over. What came of it stays with it; the connection is free, or of no use any more."""
        transport = self._transport
        if (
            not answer.reusable
            or self._pouring is not None
            or transport is None
            # Answered before the request was out: whether the rest of it is ever read is not known.
            or transport.get_write_buffer_size()
        ):
            self.abandon()
            return
        answer.link = None
        self._answer = None
        self._due = _NEVER
        self._pool.freed(self)

    def _gone(self) -> None:
        self._transport = None
        self._poll = None
        self._kept.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.resume_writing()
        pouring, self._pouring = self._pouring, None
        if pouring is not None and pouring is not asyncio.current_task(self._loop):
            pouring.cancel()
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.link = None
            answer.fail(BrokeOff("the connection was closed"))
        self._pool.lost(self, busy=answer is not None)

    def _expect_within(self, seconds: float) -> None:
        due = self._due = self._loop.time() + seconds
        timer = self._timer
        if timer is not None:
            if self._timer_at <= due:
                return
            timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        answer, due = self._answer, self._due
        if answer is None or due == _NEVER:
            return
        if due > self._loop.time() or self._kept:
            self._timer_at = due
            self._timer = self._loop.call_at(due, self._look)
            return
        answer.fail(TimeoutError("nothing came for longer than the read time-out"))
        self.abandon()
