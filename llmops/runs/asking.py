"""One turn of a model: a request to the data plane, as a service makes it, and what came of it. Knows no database."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from llmops.base.data_plane import post
from llmops.runs.conversation import kept_message

#: The largest answer that is read, in bytes.
MOST_ANSWER_BYTES = 4 * 1024 * 1024
UNREACHABLE, CUT, ODD, STOPPED = "gateway_unreachable", "gateway_cut", "gateway_odd", "stopped"


@dataclass(frozen=True, slots=True)
class Reply:
    """``message`` of the model; where there is none, ``code`` and ``problem`` say why. ``call`` is the id in the ledger."""

    status: int = 0
    message: Mapping[str, Any] | None = None
    finish: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    call: str = ""
    model: str = ""
    cache: str = ""
    #: the first answer again: it was paid for before
    replayed: bool = False
    verdict: str = ""
    code: str = ""
    problem: str = ""
    param: str = ""
    retry_after: float | None = None
    took_us: int = 0


class Line:
    """A request that can be ended from another thread. ``stop`` ends what is under way and what would begin."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self.stopped = threading.Event()

    def stop(self) -> None:
        with self._lock:
            self.stopped.set()
            sock = self._sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def opened(self, sock: socket.socket) -> None:
        with self._lock:
            self._sock = sock
        if self.stopped.is_set():
            raise OSError("stopped")

    def closed(self) -> None:
        with self._lock:
            self._sock = None


def ask(
    url: str,
    body: Mapping[str, Any],
    *,
    secret: str,
    headers: Mapping[str, str],
    timeout_s: float,
    line: Line,
) -> Reply:
    """Never raises; what went wrong is in the reply."""
    began = time.monotonic()
    sent = False

    def opened(sock: socket.socket) -> None:
        nonlocal sent
        line.opened(sock)
        sent = True

    def after(**told: Any) -> Reply:
        return Reply(took_us=int((time.monotonic() - began) * 1_000_000), **told)

    try:
        with post(
            url, "/chat/completions", body, secret=secret, headers=headers, timeout_s=timeout_s, opened=opened
        ) as response:
            told = {name.lower(): value for name, value in response.getheaders()}
            raw = response.read(MOST_ANSWER_BYTES + 1)
            status = response.status
    except (OSError, HTTPException) as error:
        if line.stopped.is_set():
            return after(code=STOPPED, problem="It was stopped.")
        if sent:
            return after(
                code=CUT, problem=f"The connection to the data plane broke off ({type(error).__name__})."
            )
        return after(
            code=UNREACHABLE,
            problem="The data plane could not be reached. Does CONSOLE_GATEWAY_URL lead to it?",
        )
    finally:
        line.closed()
    known = {
        "status": status,
        "call": told.get("x-llmops-replay-of") or told.get("x-llmops-call-id", ""),
        "model": told.get("x-llmops-model", "")[:200],
        "cache": told.get("x-llmops-cache", "")[:20],
        "replayed": told.get("idempotent-replayed") == "true",
    }
    try:
        read: Any = json.loads(raw) if len(raw) <= MOST_ANSWER_BYTES else None
        if status != 200:
            why = read["error"]
            return after(
                **known,
                code=str(why.get("code") or why.get("type") or ODD)[:60],
                problem=str(why.get("message") or "")[:1000],
                param=str(why.get("param") or "")[:200],
                retry_after=_seconds(told.get("retry-after", "")),
            )
        choice = read["choices"][0]
        usage = read.get("usage")
        return after(
            **known,
            message=kept_message(choice["message"]),
            finish=str(choice.get("finish_reason") or "")[:40],
            usage=usage if isinstance(usage, dict) else {},
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return after(
            **known,
            code=ODD,
            problem=f"The data plane answered {status}, and not in the words of the OpenAI API.",
        )


def _seconds(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if 0 <= found <= 86_400 else None
