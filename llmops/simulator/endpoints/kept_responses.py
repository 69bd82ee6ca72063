"""Responses that are kept: GET (also as a stream), DELETE, cancel, input items; and those that go on in the background.

Nothing is generated in the background: an answer is known from the beginning and shows when its time has come. The
ledger's line of such a response is written when it ends, with what was produced by then.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import msgspec

from llmops.simulator.behaviour import Behaviour
from llmops.simulator.delivery import Pace, Stream, falsified
from llmops.simulator.endpoints.responses_dialect import ResponsesDialect, status_of
from llmops.simulator.errors import ApiError, wrong
from llmops.simulator.exchange import EVENTS, JSON, Departure, Exchange
from llmops.simulator.generation import Answer
from llmops.simulator.ledger import CLIENT_GONE, COMPLETED, DROPPED, Usage

MAX_KEPT = 10_000
_encode = msgspec.json.Encoder().encode


class KeptResponse:
    """One response. ``messages`` is the conversation that led to it, ``items`` its own input."""

    def __init__(
        self,
        exchange: Exchange,
        dialect: ResponsesDialect,
        answer: Answer,
        behaviour: Behaviour,
        pace: Pace,
        items: list[dict[str, Any]],
        messages: list[dict[str, Any]],
    ) -> None:
        self.exchange = exchange
        self.dialect = dialect
        self.answer = answer
        self.behaviour = behaviour
        self.pace = pace
        self.items = items
        self.messages = messages
        self.id = dialect.id
        self.began = time.monotonic()
        #: None while it goes on
        self.status: str | None = self._end()
        self.pieces = answer.pieces
        self.over = asyncio.Event()
        self.work: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------ in the background

    async def in_the_background(self) -> None:
        """Answer at once, or as a stream that may be left, and go on."""
        exchange = self.exchange
        self.status = None
        if exchange.stream:
            await BackgroundStream(self).run()
            return
        body = self.body()
        self.go_on()
        await exchange.start(200, JSON, [], len(body))
        await exchange.send({"type": "http.response.body", "body": body})

    def go_on(self) -> None:
        if self.work is None:
            self.work = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        if self.behaviour.fault.hang:
            await self.over.wait()
            return
        took = self.pace.whole(self.behaviour, self.answer.usage().completion)
        left = self.began + took - time.monotonic()
        if left > 0:
            await asyncio.sleep(left)
        if self.behaviour.fault.error is not None:
            self.pieces = 0
            self.end("failed", DROPPED)
        else:
            self.end(self._end(), COMPLETED)

    def _end(self) -> str:
        return status_of(self.answer)

    def end(self, status: str, outcome: str = COMPLETED) -> None:
        if self.status is not None:
            return
        self.status = status
        self.over.set()
        self.exchange.record(
            outcome,
            answer_id=self.id,
            usage=self.used(),
            served_usage=self._stated(),
            chunks=1,
            error=None if outcome == COMPLETED else status,
        )

    def cancel(self) -> None:
        if self.status is not None:
            return
        took = self.pace.whole(self.behaviour, self.answer.usage().completion)
        share = min(1.0, (time.monotonic() - self.began) / took) if took else 1.0
        self.pieces = int(share * self.answer.pieces)
        if self.work is not None:
            self.work.cancel()
        self.end("cancelled", CLIENT_GONE)

    # ------------------------------------------------------------------ as it is now

    def used(self) -> Usage:
        if self.status == "failed":
            return Usage()
        return self.answer.usage(self.pieces if self.pieces < self.answer.pieces else None)

    def _stated(self) -> dict[str, Any] | None:
        if self.status is None or self.status == "failed":
            return None
        return falsified(self.dialect.usage(self.used()), self.behaviour.fault.wrong_usage)

    def body(self) -> bytes:
        if self.status is None:
            going = "queued" if time.monotonic() - self.began < self.pace.first else "in_progress"
            return self.dialect.state(going, None, None)
        whole = self.status in ("completed", "incomplete")
        return self.dialect.state(self.status, self.answer if whole else None, self._stated())

    def events(self) -> bytes:
        """The whole stream of a response that has ended."""
        dialect = self.dialect.again()
        # Events are numbered as they are made.
        opening = dialect.opening(self.answer)
        if self.status in ("completed", "incomplete"):
            pieces = b"".join([dialect.piece(*piece) for piece in self.answer.order()])
            return opening + pieces + dialect.closing(self.answer, self._stated())
        return opening + dialect.failed()

    def said(self) -> list[dict[str, Any]]:
        """What was answered, as chat messages."""
        choice = self.answer.choices[0]
        if choice.calls:
            calls = [{"function": {"name": one.name, "arguments": one.arguments}} for one in choice.calls]
            return [{"role": "assistant", "tool_calls": calls}]
        return [{"role": "assistant", "content": choice.text}]


class BackgroundStream(Stream):
    """A stream whose client may leave without ending the work."""

    def __init__(self, kept: KeptResponse) -> None:
        super().__init__(kept.exchange, kept.behaviour, kept.pace, kept.answer, kept.dialect)
        self.kept = kept

    def _gone(self) -> None:
        self.kept.go_on()

    def _record(self, outcome: str, usage: Usage, served: dict[str, Any] | None) -> None:
        if outcome == COMPLETED:
            self.kept.status = self.kept._end()
            self.kept.over.set()
            super()._record(outcome, usage, served)
        else:
            # Only the telling broke off.
            self.kept.go_on()


@dataclass
class KeptResponses:
    found: dict[str, KeptResponse] = field(default_factory=dict)

    def keep(self, one: KeptResponse) -> None:
        while len(self.found) >= MAX_KEPT:
            del self.found[next(iter(self.found))]
        self.found[one.id] = one


def _kept(exchange: Exchange, name: str) -> KeptResponse:
    found: KeptResponse | None = exchange.app.responses.found.get(name)
    if found is None:
        raise ApiError(404, f"Response with id '{name}' not found.", param="response_id")
    exchange.model = found.exchange.model
    return found


async def retrieve(exchange: Exchange, name: str) -> None:
    kept = _kept(exchange, name)
    asked = parse_qs(exchange.query.decode("latin-1"))
    if asked.get("stream", ["false"])[-1] != "true":
        await exchange.whole(kept.body(), answer_id=kept.id)
        return
    after = int(asked.get("starting_after", ["-1"])[-1])
    exchange.stream = True
    departure = Departure(exchange.receive)
    try:
        while kept.status is None:
            if await departure.sleep(0.02):
                exchange.gone(answer_id=kept.id)
                return
    finally:
        departure.close()
    told = [one for one in kept.events().split(b"\n\n") if one and _number(one) > after]
    await exchange.whole(b"".join([one + b"\n\n" for one in told]), answer_id=kept.id, content=EVENTS)


def _number(event: bytes) -> int:
    number: int = msgspec.json.decode(event.partition(b"data: ")[2])["sequence_number"]
    return number


async def delete(exchange: Exchange, name: str) -> None:
    kept = _kept(exchange, name)
    del exchange.app.responses.found[kept.id]
    kept.cancel()
    await exchange.whole(_encode({"id": kept.id, "object": "response", "deleted": True}), answer_id=kept.id)


async def cancel(exchange: Exchange, name: str) -> None:
    kept = _kept(exchange, name)
    if not kept.dialect.request.background:
        raise wrong("Only responses in the background can be cancelled.", "response_id")
    kept.cancel()
    await exchange.whole(kept.body(), answer_id=kept.id)


async def input_items(exchange: Exchange, name: str) -> None:
    kept = _kept(exchange, name)
    listed = kept.items[::-1]
    page = {
        "object": "list",
        "data": listed,
        "first_id": listed[0].get("id") if listed else None,
        "last_id": listed[-1].get("id") if listed else None,
        "has_more": False,
    }
    await exchange.whole(_encode(page), answer_id=kept.id)
