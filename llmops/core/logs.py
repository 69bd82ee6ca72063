"""Log lines as JSON, and the request that a line belongs to. Pure.

A line has what happened and the ids under which it is found again; a body or a secret never, whatever was logged: texts
are redacted, and of an object that is logged only its text is taken.
"""

from __future__ import annotations

import json
import logging
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from llmops.core.redaction import redact_text

#: The request id of whatever is being served; empty outside of any.
request_id: ContextVar[str] = ContextVar("request id", default="")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One object a line: ``time``, ``level``, ``logger``, ``message``, ``request_id`` where there is one, what was given as
    ``extra``, and ``error`` with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact_text(record.getMessage()),
        }
        if found := request_id.get():
            line["request_id"] = found
        for name, value in vars(record).items():
            if name not in _STANDARD and not name.startswith("_"):
                line[name] = (
                    value if isinstance(value, int | float | bool | None) else redact_text(str(value))
                )
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = redact_text("".join(traceback.format_exception(*record.exc_info)))
        return json.dumps(line, ensure_ascii=False)


def without_traceback(record: logging.LogRecord) -> bool:
    """A filter: what was refused on purpose (below 500) is a line, not thirty."""
    if int(getattr(record, "status_code", 500)) < 500:
        record.exc_info = record.exc_text = None
    return True


class LineFormatter(logging.Formatter):
    """The same for people: ``extra`` and the request id follow the message."""

    def format(self, record: logging.LogRecord) -> str:
        text = redact_text(super().format(record))
        told = {
            name: value
            for name, value in vars(record).items()
            if name not in _STANDARD and not name.startswith("_") and value not in (None, "")
        }
        if found := request_id.get():
            told.setdefault("request_id", found)
        more = " ".join(f"{name}={redact_text(str(value))}" for name, value in told.items())
        head, newline, trace = text.partition("\n")
        return f"{head} {more}{newline}{trace}" if more else text
