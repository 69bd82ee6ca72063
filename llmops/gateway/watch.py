"""Noticing that a client hung up, or that the time of its call is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from llmops.core.asgi import Message, Receive
from llmops.core.cancelling import AGAIN_S

#: A client that hangs up sooner than this is noticed this late. To listen takes some 100 µs of CPU, in the server and between
#: its threads, and calls of fast providers (embeddings, moderations) are over by then.
LISTEN_AFTER_S = 0.08


class Watch:
    """Cancels the task that answers a request when the client hangs up, or when its time is over.

    ``reason`` tells a cancellation of ours (``client``, ``deadline``, ``shutdown``) from one of somebody else (None).
    """

    __slots__ = (
        "_again",
        "_caught",
        "_deadline",
        "_fired",
        "_listener",
        "_loop",
        "_receive",
        "_task",
        "_timer",
        "left",
        "reason",
        "stays",
    )

    def __init__(self, receive: Receive) -> None:
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._task = asyncio.current_task()
        self._listener: asyncio.Future[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.reason: str | None = None
        self._caught = False
        self._again: asyncio.TimerHandle | None = None
        self._fired = 0
        #: the client hung up, and its call goes on for what a provider is making and keeps
        self.left = False
        #: told that the client hung up; whether the call goes on all the same
        self.stays: Callable[[], bool] | None = None

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """Which answers the request; None once that is over."""
        return self._task

    def start(self, seconds: float) -> None:
        """From now on; the whole may take ``seconds``. Only the first time counts."""
        if self._timer is not None:
            return
        self._timer = self._loop.call_later(LISTEN_AFTER_S, self._listen, self._loop.time() + seconds)

    def _listen(self, deadline: float) -> None:
        self._deadline = self._loop.call_at(deadline, self.fire, "deadline")
        self._listen_only()

    def _listen_only(self) -> None:
        # What is a future already, as granian's is, stays one: a task to wait for it would cost a call some 30 µs.
        listener = self._listener = asyncio.ensure_future(self._receive())
        listener.add_done_callback(self._heard)

    def _heard(self, waiting: asyncio.Future[Message]) -> None:
        if self._task is None or waiting.cancelled():
            return
        if waiting.result()["type"] == "http.disconnect":
            if self.stays is None or not self.stays():
                self.fire("client")
        else:
            self._listen_only()

    def fire(self, reason: str) -> None:
        if self.reason is None and self._task is not None:
            self.reason = reason
            self._insist()

    def _insist(self) -> None:
        # A library may swallow a cancellation (see ``core.cancelling``); the provider would go on for nobody.
        if self._task is not None and not self._caught:
            self._task.cancel()
            self._fired += 1
            self._again = self._loop.call_later(AGAIN_S, self._insist)

    def seen_gone(self) -> None:
        """The client's absence was noticed otherwise, without a cancellation."""
        if self.reason is None:
            self.reason, self._caught = "client", True

    def caught(self) -> None:
        """The cancellation was seen and is dealt with."""
        if self.reason is not None and self._task is not None and not self._caught:
            self._caught = True
            for _ in range(self._fired):
                self._task.uncancel()

    def open_end(self) -> None:
        """The answer has begun: it may take as long as it likes, while it goes on."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        elif self._timer is not None and self._listener is None:
            self._timer.cancel()
            self._timer = self._loop.call_later(LISTEN_AFTER_S, self._listen_only)

    def close(self) -> None:
        self._task = None
        for handle in (self._timer, self._deadline, self._again):
            if handle is not None:
                handle.cancel()
        if self._listener is not None:
            self._listener.cancel()
