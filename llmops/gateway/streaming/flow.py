"""Pieces of an answer on their way from the provider's socket to the client's, and what is said while there are none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any

from llmops.gateway.attempts.sending import Body
from llmops.gateway.call import Call
from llmops.gateway.http1.answer import Answer
from llmops.gateway.streaming.events import KEEP_ALIVE, Relay


class KeepAlive:
    """Comments into a stream that is silent, so that nothing between here and the client takes it for dead.

    A timer for each stream that looks again when silence could have lasted long enough; a task only to say something.
    Whole events are sent in one piece each, so a comment never gets into one. Before the first event it opens the stream:
    then another attempt may still answer in it, but a failure can only be told by an event.
    """

    __slots__ = ("_call", "_every", "_loop", "_timer", "last", "saying")

    def __init__(self, call: Call, every: float) -> None:
        self._call = call
        self._every = every
        loop = self._loop = asyncio.get_running_loop()
        #: when something was sent, on the loop's clock
        self.last = loop.time()
        self.saying: asyncio.Task[None] | None = None
        self._timer = loop.call_later(every, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        due = self.last + self._every
        if due <= now:
            # To a client that has not taken yet what was sent nothing needs to be said.
            if not self._call.blocked:
                self.saying = self._loop.create_task(self._say())
            self.last = now
            due = now + self._every
        self._timer = self._loop.call_at(due, self._look)

    async def _say(self) -> None:
        call = self._call
        # A client that is gone is noticed by whoever watches for it.
        with suppress(Exception):
            if not call.started_sending:
                await call.start_events()
            await call.send_comment(KEEP_ALIVE)

    def sent(self) -> None:
        """Something else went out just now."""
        self.last = self._loop.time()

    async def said(self) -> None:
        """Wait until a comment under way is out."""
        if self.saying is not None:
            await self.saying
            self.saying = None

    def close(self) -> None:
        self._timer.cancel()
        if self.saying is not None:
            self.saying.cancel()


class Flow:
    """Reads an answer's body for ``relay``, and says what is to go out next.

    Most pieces need no decision: once the stream has begun they go out with the very read that brought them, and the task that
    answers the call sleeps on. To wake it would cost a piece more than everything else that is done with it. The task goes
    on when there is something to decide: the stream's end, a fault, a comment under way, a client that takes no more.
    """

    __slots__ = ("_alive", "_call", "_content", "_left", "_loop", "_relay", "_rest")

    def __init__(self, call: Call, content: Body, relay: Relay, alive: KeepAlive | None) -> None:
        self._call = call
        self._content = content
        self._relay = relay
        self._alive = alive
        self._loop = asyncio.get_running_loop()
        #: what the last piece left for the task
        self._left: bytes | None = None
        #: the end of a send that could not be done at once
        self._rest: Awaitable[None] | None = None

    async def next(self, *, passes: bool) -> bytes:
        """What may go out, perhaps nothing, once more has come. ``passes``: pieces may go out without the task.

        Raises one of ``BROKE``, and ``ClientGone``.
        """
        content = self._content
        if passes and isinstance(content, Answer):
            # What is logged on the way is of this call, not of the one that made the connection.
            within: Any = copy_context().run
            into = partial(within, self._pass_on)
            while True:
                await content.pour(into)
                if self._left is not None:
                    left, self._left = self._left, None
                    return left
                if self._rest is None:
                    break
                rest, self._rest = self._rest, None
                await self._call.wait_for(rest)
        data = await content.readany()
        return self._relay.feed(data) if data else self._relay.end()

    def _pass_on(self, data: bytes) -> bool:
        """A piece has come. Whether the next may come here as well."""
        relay, alive = self._relay, self._alive
        out = relay.feed(data)
        if relay.done or relay.broken or (alive is not None and alive.saying is not None):
            self._left = out
            return False
        if not out:
            return True
        if alive is not None:
            alive.last = self._loop.time()
        self._rest = self._call.begin_piece(out)
        return self._rest is None
