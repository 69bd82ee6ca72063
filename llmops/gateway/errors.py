"""Our errors in OpenAI's error body, so that SDKs raise the class a programmer expects."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from llmops.core.errors import BudgetExceeded, ConsoleError
from llmops.core.money import format_usd

log = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")
SAFE_SECONDS_LEFT = 60
#: Conflicts, which SDKs try again, that stay what they are.
_FINAL = frozenset(("idempotency_answer_not_kept", "idempotency_outcome_unknown"))
_encode = msgspec.json.Encoder().encode


class Unexpected(ConsoleError):
    """A fault of our own. The message is the same for all of them; the log has the traceback."""

    def __init__(self) -> None:
        super().__init__("The server met an unexpected error; its log has the details under the request id.")


def error_body(error: ConsoleError) -> bytes:
    """``{"error": {"message", "type", "param", "code"}}``."""
    try:
        return _encode({"error": error_members(error)})
    except UnicodeEncodeError:
        # Half of a surrogate pair, in words that repeat what somebody sent: it has no UTF-8.
        return json.dumps({"error": error_members(error)}).encode()


def error_event(error: ConsoleError) -> bytes:
    """The server-sent event that tells a client that its stream broke off; no ``[DONE]`` follows it."""
    return b"data: " + error_body(error) + b"\n\n"


def error_members(error: ConsoleError) -> Mapping[str, Any]:
    return {
        "message": error.message,
        "type": error.openai_type,
        "param": error.param,
        "code": error.code,
    }


def error_headers(error: ConsoleError) -> Headers:
    """``retry-after`` (seconds, rounded up) and, where a retry cannot help soon, the SDKs' ``x-should-retry: false``."""
    headers: Headers = []
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    if error.code in _FINAL or (
        error.code == BudgetExceeded.code and (error.retry_after or math.inf) > SAFE_SECONDS_LEFT
    ):
        headers.append((b"x-should-retry", b"false"))
    if isinstance(error, BudgetExceeded) and "budget" in error.data:
        headers += _of_budget(error.data)
    return headers


def _of_budget(data: Mapping[str, Any]) -> Headers:
    """Which budget refused, what it has left, what the call may cost, and when it resets (never: no such header)."""
    headers = [
        (b"x-llmops-budget", str(data["budget"]).encode()),
        (b"x-llmops-budget-left-usd", format_usd(data["left_nano"]).encode()),
        (b"x-llmops-budget-needed-usd", format_usd(data["needed_nano"]).encode()),
    ]
    if data["resets"] != math.inf:
        when = datetime.fromtimestamp(data["resets"], tz=UTC)
        headers.append((b"x-llmops-budget-resets", f"{when:%Y-%m-%dT%H:%M:%SZ}".encode()))
    return headers


def as_console_error(error: Exception, *, where: str) -> ConsoleError:
    """The error itself when it is one of ours, else one that tells nothing; the log has the rest."""
    if isinstance(error, ConsoleError):
        return error
    log.error("unexpected error in %s at %d", where, time.time(), exc_info=error)
    return Unexpected()
