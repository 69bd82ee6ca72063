"""Getting an answer out: in one piece or as a stream, at the pace of the model, with whatever is to go wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from llmops.simulator.behaviour import Behaviour, Fault
from llmops.simulator.catalogue import Profile
from llmops.simulator.errors import simulated
from llmops.simulator.exchange import EVENTS, HTML, JSON, Departure, Exchange
from llmops.simulator.generation import Answer, Delta
from llmops.simulator.ledger import COMPLETED, DROPPED, REFUSED, Usage

_PAGE = b"<!doctype html><title>Simulated gateway page</title><h1>Simulated: this is not JSON</h1>\n"


class Dialect(Protocol):
    """A wire format. Each event is complete, with its blank line; ``opening`` and ``closing`` may be several."""

    id: str

    def whole(self, answer: Answer, usage: dict[str, Any] | None) -> bytes: ...

    def opening(self, answer: Answer) -> bytes: ...

    def piece(self, index: int, delta: Delta) -> bytes: ...

    def closing(self, answer: Answer, usage: dict[str, Any] | None) -> bytes: ...

    def usage(self, usage: Usage) -> dict[str, Any]: ...

    def streams_usage(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds to the first byte, and seconds from one token to the next (0: all at once)."""

    first: float
    gap: float

    @classmethod
    def of(cls, behaviour: Behaviour, profile: Profile, seed: int) -> Pace:
        """As asked for, else the profile's, up to 30 % slower or faster as the seed says."""
        if behaviour.instant:
            return cls(0.0, 0.0)
        luck = 0.7 + (seed % 1000) / 1000 * 0.6
        first = profile.latency * luck if behaviour.latency is None else behaviour.latency
        tps = profile.tps * luck if behaviour.tps is None else behaviour.tps
        return cls(first / 1000, 1 / tps if tps else 0.0)

    def whole(self, behaviour: Behaviour, tokens: int) -> float:
        """How long an answer in one piece takes. A latency without a speed is the whole of it."""
        if behaviour.latency is not None and behaviour.tps is None:
            return self.first
        return self.first + self.gap * tokens


async def wait(exchange: Exchange, seconds: float | None, progress: Callable[[float], Usage]) -> bool:
    """Wait before an answer in one piece; False if the client left, which is then recorded with ``progress`` (0 to 1)."""
    if seconds is not None and seconds <= 0:
        return True
    departure = Departure(exchange.receive)
    began = time.monotonic()
    try:
        gone = await departure.sleep(seconds)
    finally:
        departure.close()
    if gone:
        share = (time.monotonic() - began) / seconds if seconds else 0.0
        exchange.gone(progress(min(share, 1.0)))
    return not gone


async def before_answering(exchange: Exchange, behaviour: Behaviour, pace: Pace) -> bool:
    """What replaces an answer altogether: errors (after the latency), pages, silence. True if it did."""
    fault = behaviour.fault
    error = None if fault.error is None else simulated(fault.error, fault.retry_after)
    if error is None and not fault.hang and fault.html is None and not fault.empty:
        return False
    if not await wait(exchange, None if fault.hang else pace.first, lambda share: Usage()):
        return True
    if error is not None:
        await exchange.refuse(error)
    elif fault.html is not None:
        await exchange.whole(_PAGE, status=fault.html, content=HTML, outcome=REFUSED, error="html")
    else:
        content = EVENTS if exchange.stream else JSON
        await exchange.whole(b"", content=content, outcome=DROPPED, error="empty")
    return True


async def plain(
    exchange: Exchange, behaviour: Behaviour, pace: Pace, answer: Answer, dialect: Dialect
) -> None:
    usage = answer.usage()
    delay = pace.whole(behaviour, usage.completion)
    if not await wait(exchange, delay, lambda share: answer.usage(int(share * answer.pieces))):
        return
    served = falsified(dialect.usage(usage), behaviour.fault.wrong_usage)
    await in_one_piece(exchange, behaviour.fault, dialect.whole(answer, served), usage, served, dialect.id)


async def in_one_piece(
    exchange: Exchange,
    fault: Fault,
    body: bytes,
    usage: Usage,
    served: dict[str, Any] | None,
    answer_id: str | None = None,
    content: tuple[bytes, bytes] = JSON,
) -> None:
    """Send ``body``, or what the fault leaves of it."""
    half = body[: len(body) // 2]
    if fault.stall is not None:
        departure = Departure(exchange.receive)
        try:
            await exchange.start(200, content, [], len(body))
            await exchange.send({"type": "http.response.body", "body": half, "more_body": True})
            await departure.sleep(None)
        finally:
            departure.close()
        exchange.gone(usage, answer_id=answer_id, chunks=1, size=len(half))
    elif fault.drop is not None:
        await exchange.break_off(half, content=content, length=len(body), answer_id=answer_id, usage=usage)
    elif fault.truncate or fault.half_event:
        await exchange.whole(
            half, content=content, answer_id=answer_id, usage=usage, outcome=DROPPED, error="truncated"
        )
    elif fault.invalid_json:
        await exchange.whole(body[:-1] + b",,", answer_id=answer_id, usage=usage, error="invalid_json")
    else:
        await exchange.whole(body, content=content, answer_id=answer_id, usage=usage, served_usage=served)


class Stream:
    """One streamed answer on its way out. Events are made in the order in which they leave: some formats number them."""

    def __init__(
        self, exchange: Exchange, behaviour: Behaviour, pace: Pace, answer: Answer, dialect: Dialect
    ) -> None:
        self.exchange = exchange
        self.fault = behaviour.fault
        self.pace = pace
        self.answer = answer
        self.dialect = dialect
        self.pieces = answer.order()
        self.sent = 0
        self.bytes = 0
        self.chunks = 0

    async def run(self) -> None:
        try:
            await self._run()
        except asyncio.CancelledError:
            self._record(DROPPED, self.answer.usage(self.sent), None)
            raise

    async def _run(self) -> None:
        fault, total = self.fault, len(self.pieces)
        halved = fault.truncate or fault.half_event
        if fault.stall is None and fault.drop is None and not halved:
            return await self._to_the_end()
        stop = total // 2 if halved else total
        stop = min(limit for limit in (stop, fault.stall, fault.drop) if limit is not None)
        departure = Departure(self.exchange.receive)
        try:
            if await self._paced(departure, stop):
                self._gone()
            elif fault.stall is not None:
                await departure.sleep(None)
                self._gone()
            elif fault.drop is not None:
                # The server closes a connection whose answer was begun and not ended.
                self._record(DROPPED, self.answer.usage(self.sent), None)
            else:
                rest = self._event(stop) if fault.half_event and stop < total else b""
                await self._last(rest[: len(rest) // 2], DROPPED, self.answer.usage(self.sent), None)
        finally:
            departure.close()

    async def _to_the_end(self) -> None:
        usage = self.answer.usage()
        served = None
        if self.dialect.streams_usage():
            served = falsified(self.dialect.usage(usage), self.fault.wrong_usage)
        total = len(self.pieces)
        if self.pace == Pace(0.0, 0.0):
            opening = self.dialect.opening(self.answer)
            pieces = self._batch(total)
            everything = b"".join((opening, pieces, self.dialect.closing(self.answer, served)))
            self.bytes, self.chunks = len(everything), everything.count(b"\n\n")
            self._record(COMPLETED, usage, served)
            await self.exchange.start(200, EVENTS, [], None)
            await self.exchange.send({"type": "http.response.body", "body": everything})
            return
        departure = Departure(self.exchange.receive)
        try:
            if await self._paced(departure, total):
                self._gone()
            else:
                await self._last(self.dialect.closing(self.answer, served), COMPLETED, usage, served)
        finally:
            departure.close()

    async def _paced(self, departure: Departure, stop: int) -> bool:
        """Everything up to piece ``stop``, each when it is due; late ones go out together. True if the client left."""
        if await departure.sleep(self.pace.first):
            return True
        await self.exchange.start(200, EVENTS, [], None)
        began, gap = time.monotonic(), self.pace.gap
        await self._send(self.dialect.opening(self.answer))
        while self.sent < stop:
            due = int((time.monotonic() - began) / gap) + 1 if gap else stop
            if due > self.sent:
                await self._send(self._batch(min(due, stop)))
            if self.sent < stop and await departure.sleep(began + self.sent * gap - time.monotonic()):
                return True
        # One turn of the loop, so that a client that left is seen before the answer is called complete.
        return await departure.sleep(0)

    def _batch(self, until: int) -> bytes:
        events = b"".join([self._event(number) for number in range(self.sent, until)])
        self.sent = until
        return events

    def _event(self, number: int) -> bytes:
        if self.fault.invalid_json and number == min(2, len(self.pieces) - 1):
            return b'data: {"id":"simulated,,\n\n'
        return self.dialect.piece(*self.pieces[number])

    async def _send(self, data: bytes) -> None:
        self.bytes += len(data)
        self.chunks += data.count(b"\n\n")
        await self.exchange.send({"type": "http.response.body", "body": data, "more_body": True})

    async def _last(self, data: bytes, outcome: str, usage: Usage, served: dict[str, Any] | None) -> None:
        self.bytes += len(data)
        self.chunks += data.count(b"\n\n")
        self._record(outcome, usage, served)
        await self.exchange.send({"type": "http.response.body", "body": data})

    def _gone(self) -> None:
        self.exchange.gone(
            self.answer.usage(self.sent), answer_id=self.dialect.id, chunks=self.chunks, size=self.bytes
        )

    def _record(self, outcome: str, usage: Usage, served: dict[str, Any] | None) -> None:
        self.exchange.record(
            outcome,
            answer_id=self.dialect.id,
            usage=usage,
            served_usage=served,
            chunks=self.chunks,
            size=self.bytes,
            error=None if outcome == COMPLETED else outcome,
        )


def falsified(usage: dict[str, Any], how: str | None) -> dict[str, Any] | None:
    """The usage that the answer states: ``None`` leaves it out (``missing``)."""
    if how is None:
        return usage
    if how == "missing":
        return None

    def change(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: change(inner) for key, inner in value.items()}
        if isinstance(value, str):
            return value
        return {
            "zero": 0,
            "null": None,
            "double": value * 2,
            "huge": 10**15,
            "negative": -value - 1,
            "text": str(value),
        }[how]

    changed: dict[str, Any] = change(usage)
    return changed
