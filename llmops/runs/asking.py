"""One turn of a model: a request to the data plane, as a service makes it, and what came of it. Knows no database."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from llmops.base.data_plane import post
from llmops.runs.conversation import kept_message, whole
from llmops.runs.streamed import Refused, read_stream

#: The largest answer that is read, in bytes.
MOST_ANSWER_BYTES = 4 * 1024 * 1024
_NOT_IN_ITS_WORDS = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)
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
    #: nanodollars, as the data plane settled it: all attempts, and what policies asked about it; None where it did not say
    cost: int | None = None
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
    heard: Callable[[str], None] = lambda piece: None,
) -> Reply:
    """Never raises; what went wrong is in the reply. ``heard`` gets the text as it comes, where ``body`` asks for a stream."""
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
            status, read, raw = response.status, None, b""
            if status == 200 and told.get("content-type", "").startswith("text/event-stream"):
                read = read_stream(response, heard, until=began + timeout_s)
            else:
                raw = response.read(MOST_ANSWER_BYTES + 1)
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
    except Refused as refused:
        return after(**_known(status, told, refused.cost), **_why(refused.error))
    except _NOT_IN_ITS_WORDS:
        return after(**_known(status, told), code=ODD, problem=_odd(status))
    finally:
        line.closed()
    known = _known(status, told, read.cost if read is not None else None)
    try:
        if read is not None:
            message, finish, usage = read.message, read.finish, read.usage
        else:
            answer: Any = json.loads(raw) if len(raw) <= MOST_ANSWER_BYTES else None
            if status != 200:
                retry_after = _seconds(told.get("retry-after", ""))
                return after(**known, **_why(answer["error"]), retry_after=retry_after)
            choice = answer["choices"][0]
            message, finish, usage = choice["message"], choice.get("finish_reason") or "", answer.get("usage")
        return after(
            **known,
            message=kept_message(message),
            finish=whole(str(finish))[:40],
            usage=usage if isinstance(usage, dict) else {},
        )
    except _NOT_IN_ITS_WORDS:
        return after(**known, code=ODD, problem=_odd(status))


def _known(status: int, told: Mapping[str, str], said: int | None = None) -> dict[str, Any]:
    """``said``: what a stream said that it cost; a head that says something as well tells of what came before it."""
    head = told.get("x-llmops-cost-nano", "")
    costs = [one for one in (int(head) if head.isdecimal() else None, said) if one is not None]
    return {
        "cost": sum(costs) if costs else None,
        "status": status,
        "call": told.get("x-llmops-replay-of") or told.get("x-llmops-call-id", ""),
        "model": told.get("x-llmops-model", "")[:200],
        "cache": told.get("x-llmops-cache", "")[:20],
        "replayed": told.get("idempotent-replayed") == "true",
    }


def _why(error: Mapping[str, Any]) -> dict[str, str]:
    return {
        "code": whole(str(error.get("code") or error.get("type") or ODD))[:60],
        "problem": whole(str(error.get("message") or ""))[:1000],
        "param": whole(str(error.get("param") or ""))[:200],
    }


def _odd(status: int) -> str:
    return f"The data plane answered {status}, and not in the words of the OpenAI API."


def _seconds(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if 0 <= found <= 86_400 else None
