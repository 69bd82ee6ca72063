"""Log lines: one object a line, found by request id, without secrets."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from llmops.core.logs import JsonFormatter, LineFormatter, request_id, without_traceback

SECRET = "sk-proj-" + "A1b2C3d4" * 6


def a_record(message: str = "said %s", *args: object, **extra: Any) -> logging.LogRecord:
    return logging.getLogger("llmops.test").makeRecord(
        "llmops.test", logging.WARNING, "f.py", 1, message, args or ("so",), None, extra=extra or None
    )


def test_a_line_is_one_object() -> None:
    line = JsonFormatter().format(a_record("first\nsecond %s", "x", status="ok", tokens=5, ttft_us=None))
    assert "\n" not in line
    told = json.loads(line)
    assert told.pop("time").endswith("+00:00")
    assert told == {
        "level": "warning",
        "logger": "llmops.test",
        "message": "first\nsecond x",
        "status": "ok",
        "tokens": 5,
        "ttft_us": None,
    }


@pytest.mark.parametrize("formatter", [JsonFormatter(), LineFormatter("{levelname} {message}", style="{")])
def test_what_belongs_to_a_request_says_so(formatter: logging.Formatter) -> None:
    assert "request_id" not in formatter.format(a_record())
    token = request_id.set("req_1")
    try:
        line = formatter.format(a_record())
        assert "req_1" in line
        assert "request_id" in line
    finally:
        request_id.reset(token)


@pytest.mark.parametrize("formatter", [JsonFormatter(), LineFormatter("{levelname} {message}", style="{")])
def test_secrets_are_redacted_wherever_they_stand(formatter: logging.Formatter) -> None:
    assert SECRET not in formatter.format(a_record("the key is %s", SECRET))
    assert SECRET not in formatter.format(a_record("x %s", "y", header=f"Bearer {SECRET}"))
    try:
        raise ValueError(f"refused {SECRET}")
    except ValueError:
        record = a_record()
        record.exc_info = sys.exc_info()
    line = formatter.format(record)
    assert "ValueError" in line
    assert SECRET not in line


def test_an_object_is_logged_by_its_text_and_a_line_never_fails() -> None:
    told = json.loads(JsonFormatter().format(a_record("x %s", "y", what=object(), many=[1, 2])))
    assert told["many"] == "[1, 2]"
    assert told["what"].startswith("<object")


def test_what_was_refused_on_purpose_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def logged(status: int) -> logging.LogRecord:
        try:
            raise PermissionError("not yours")
        except PermissionError:
            record = logging.LogRecord("django.request", 30, "", 1, "Forbidden: /x/", None, sys.exc_info())
        record.status_code = status
        assert without_traceback(record)
        return record

    formatter = LineFormatter("{levelname} {message}", style="{")
    assert "\n" not in formatter.format(logged(403))
    assert "Traceback" in formatter.format(logged(500))
