"""One call to the data plane, read in a thread of its own. It knows no database: who tends it (``desk.py``) takes what it heard.

A call is sent once and never again, whatever becomes of it; only a key that data planes cannot know yet is presented anew, and a
refused key costs nothing.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Any
from uuid import UUID

from llmops.base.data_plane import post
from llmops.playground.hearing import CUT, UNREACHABLE, Event, Hearing, error_of, head_of

log = logging.getLogger(__name__)

#: Nothing is read for longer, nor more of an answer than so many characters.
MOST_SECONDS, MOST_CHARACTERS = 900, 2_000_000
#: For so long a new key may be unknown to a data plane.
KEY_TRAVELS_S = 5.0


@dataclass(frozen=True)
class Order:
    """What to call with. ``secret`` is in no ``repr``."""

    run_id: UUID
    body: dict[str, Any]
    headers: dict[str, str]
    secret: str = field(repr=False)
    key_is_new: bool = False


class Reading:
    """``events`` that were heard and not taken yet; ``over`` once none will follow."""

    def __init__(self, order: Order, url: str, woken: Callable[[], None]) -> None:
        self.order = order
        self.run_id = order.run_id
        self.started = time.monotonic()
        self.call_id = ""
        self.over = False
        self.failed = False
        self.stopped = ""
        #: number of the last piece that is in the database
        self.n = 0
        self.beat = 0.0
        self._url = url
        self._woken = woken
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._characters = 0
        #: the answer told its own end: there is nothing left to cancel
        self._whole = False
        self._sock: socket.socket | None = None
        threading.Thread(target=self._run, name="playground-reading", daemon=True).start()

    def pending(self) -> list[Event]:
        with self._lock:
            return list(self._events)

    def taken(self, number: int) -> None:
        """So many of the events of ``pending`` are in the database."""
        with self._lock:
            del self._events[:number]

    def stop(self, why: str) -> None:
        """Hang up now: the data plane stops the provider, and what was generated is settled."""
        with self._lock:
            if self.over or self.stopped or self._whole:
                return
            self.stopped = why
            sock = self._sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _tell(self, *events: Event) -> None:
        with self._lock:
            self._events += events
        self._woken()

    def _run(self) -> None:
        try:
            self._call()
        except (OSError, HTTPException) as error:
            if not self.stopped:
                self._tell(self._trouble(error))
                self.failed = True
        except Exception:
            log.exception("a run of the playground could not be read")
            self._tell(
                {
                    "t": "error",
                    "code": "internal_error",
                    "status": 0,
                    "message": "A fault in the console itself.",
                }
            )
            self.failed = True
        finally:
            if self.stopped:
                self._tell({"t": "cancelled", "why": self.stopped, "ms": self._ms()})
            self.over = True
            self._woken()

    def _trouble(self, error: Exception) -> Event:
        if self.call_id or isinstance(error, HTTPException):
            words = (
                "The connection to the data plane broke off in the middle of the answer. The call's own story, in a moment, says "
                "what became of it and what it cost."
            )
            return {"t": "error", "code": CUT, "status": 0, "message": words, "ms": self._ms()}
        words = (
            "The console could not reach its data plane. Is it running, and does CONSOLE_GATEWAY_URL lead to it? "
            "Nothing was spent."
        )
        return {"t": "error", "code": UNREACHABLE, "status": 0, "message": words, "ms": self._ms()}

    def _ms(self) -> int:
        return int((time.monotonic() - self.started) * 1000)

    def _call(self) -> None:
        until = time.monotonic() + (KEY_TRAVELS_S if self.order.key_is_new else 0)
        while True:
            response = self._send()
            headers = {name.lower(): value for name, value in response.getheaders()}
            if response.status == 401 and time.monotonic() < until and not self.stopped:
                response.close()
                time.sleep(0.2)
                continue
            break
        self.call_id = headers.get("x-llmops-call-id", "")
        self._tell(head_of(response.status, headers))
        if response.status != 200:
            self.failed = True
            self._tell({**error_of(response.status, response.read(65_536)), "ms": self._ms()})
            return
        self._listen(response)

    def _send(self) -> HTTPResponse:
        return post(
            self._url,
            "/chat/completions",
            self.order.body,
            secret=self.order.secret,
            headers=self.order.headers,
            timeout_s=MOST_SECONDS,
            opened=self._opened,
        )

    def _opened(self, sock: socket.socket) -> None:
        with self._lock:
            self._sock = sock
            stopped = self.stopped
        if stopped:
            raise OSError("stopped")

    def _listen(self, response: HTTPResponse) -> None:
        hearing = Hearing()
        for line in response:
            began = hearing.began
            events = hearing.line(line)
            if hearing.began and not began:
                events.insert(0, {"t": "first", "ms": self._ms()})
            for event in events:
                # Also what says nothing takes room: a provider may name calls without end.
                self._characters += 1 + sum(len(event.get(name, "")) for name in ("v", "args", "name", "id"))
                if event["t"] in ("end", "error"):
                    event["ms"] = self._ms()
                    self.failed = event["t"] == "error"
            self._whole = hearing.ended
            if events:
                self._tell(*events)
            if hearing.ended:
                return
            if self._characters > MOST_CHARACTERS:
                self.stop("large")
        if not self.stopped:
            raise HTTPException("the stream has no end")
