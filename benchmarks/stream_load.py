"""Many streams at once: how long each piece of each was under way, from the upstream's hand to the client's.

A bare protocol on uvloop, as in ``load``. The upstream writes into each piece when it was written (``upstream.STAMP``).
"""

from __future__ import annotations

import asyncio
import gc
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import uvloop

from benchmarks.failure import BenchmarkFailed
from benchmarks.load import Request
from benchmarks.upstream import END, PER_SECOND, STAMP

#: So many streams begin in a second.
STARTS_PER_SECOND = 500
#: What a piece may be late before the run is given up.
_PATIENCE_S = 30.0
#: Longer than a stamp: what may be missing of one at the end of what came.
_REST = 22


@dataclass(frozen=True)
class Flow:
    """``delays`` are the nanoseconds of each piece that was written while all the streams were open, sorted."""

    streams: int
    delays: list[int]

    def percentile(self, share: float) -> float:
        """Milliseconds within which ``share`` (0 to 1) of the pieces arrived."""
        return self.delays[min(len(self.delays) - 1, int(share * len(self.delays)))] / 1e6


def pieces_for(streams: int, seconds: float) -> int:
    """Pieces of each stream, so that all of them are open for ``seconds``, also where it takes three times as long to open them."""
    return int(PER_SECOND * (3 * streams / STARTS_PER_SECOND + seconds))


class _Stream(asyncio.Protocol):
    def __init__(self, all_streams: _Streams) -> None:
        self._all = all_streams
        self._rest = b""
        self._pieces = 0
        self._begun = self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended:
            self._all.fail(f"a stream was cut after {self._pieces} pieces ({exc or 'closed by the server'})")

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self._begun:
            if not data.startswith(b"HTTP/1.1 200 "):
                self._all.fail("not a stream: " + data[:1500].decode(errors="replace"))
                return
            self._begun = True
            self._all.began(now)
        data = self._rest + data
        stamps = STAMP.findall(data)
        self._pieces += len(stamps)
        for stamp in stamps:
            written = int(stamp)
            self._all.written.append(written)
            self._all.delays.append(now - written)
        if END in data:
            self._ended = True
            self._all.ended(self._pieces, now)
            self.transport.close()
            return
        # A stamp that came in full is not looked at again.
        tail = data[-_REST:]
        self._rest = tail[tail.rfind(b"@ ") + 1 :] if stamps else tail


class _Streams:
    def __init__(self, count: int, pieces: int, loop: asyncio.AbstractEventLoop) -> None:
        self.written = array("q")
        self.delays = array("q")
        self.done: asyncio.Future[None] = loop.create_future()
        self.open: asyncio.Future[None] = loop.create_future()
        self._count = count
        self._pieces = pieces
        self._began = self._ended = 0
        self._all_open = self._first_end = 0

    def began(self, now: int) -> None:
        self._began += 1
        if self._began == self._count:
            self._all_open = now
            if not self.open.done():
                self.open.set_result(None)

    def ended(self, pieces: int, now: int) -> None:
        if pieces != self._pieces:
            self.fail(f"a stream had {pieces} pieces instead of {self._pieces}")
        self._first_end = self._first_end or now
        self._ended += 1
        if self._ended == self._count and not self.done.done():
            self.done.set_result(None)

    def fail(self, reason: str) -> None:
        for future in (self.done, self.open):
            if not future.done():
                future.set_exception(BenchmarkFailed(reason))

    def flow(self) -> Flow:
        if self._first_end < self._all_open:
            raise BenchmarkFailed(f"{self._count} streams were never open at once: the first ended too soon")
        delays = sorted(
            delay
            for written, delay in zip(self.written, self.delays, strict=True)
            if self._all_open <= written <= self._first_end
        )
        return Flow(self._count, delays)


def run(
    request: Request, *, streams: int, seconds: float, pieces: int, at_once: Callable[[], None] | None = None
) -> Flow:
    """Open so many streams, each of ``pieces``, and read them all to their end. ``at_once`` is called when all have been
    open for half of ``seconds``.

    Raises ``BenchmarkFailed`` for a stream that fails, breaks or lacks a piece.
    """

    async def measured() -> Flow:
        loop = asyncio.get_running_loop()
        found = _Streams(streams, pieces, loop)
        opened: list[asyncio.Transport] = []

        async def start() -> None:
            begun = loop.time()
            for number in range(streams):
                await asyncio.sleep(max(0.0, begun + number / STARTS_PER_SECOND - loop.time()))
                transport, _ = await loop.create_connection(
                    lambda: _Stream(found), request.host, request.port
                )
                opened.append(transport)
                transport.write(request.data)

        starting = asyncio.ensure_future(start())
        try:
            async with asyncio.timeout(streams / STARTS_PER_SECOND + pieces / PER_SECOND + _PATIENCE_S):
                await asyncio.gather(starting, found.open)
                await asyncio.sleep(seconds / 2)
                if at_once is not None:
                    at_once()
                await found.done
        except TimeoutError:
            raise BenchmarkFailed("streams were not over when they should have been") from None
        finally:
            starting.cancel()
            for transport in opened:
                transport.close()
        return found.flow()

    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(measured())
    finally:
        gc.enable()
