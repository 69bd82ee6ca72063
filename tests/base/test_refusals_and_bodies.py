"""What was refused, in one vocabulary; what the API reads, and how it answers."""

from __future__ import annotations

from io import BytesIO

import pytest
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.db.models import ProtectedError
from django.http import Http404
from rest_framework import exceptions

from llmops.base.drf import error_body, render_error
from llmops.base.parsing import StrictJSONParser
from llmops.base.refusals import as_console_error
from llmops.core.errors import Conflict, InvalidRequest, RateLimited, RequestTooLarge

SECRET = "sk-proj-" + "a1B2" * 10


@pytest.mark.parametrize(
    ("raised", "status", "param"),
    [
        (InvalidRequest("no", param="name"), 400, "name"),
        (Conflict("taken"), 409, None),
        (ValidationError({"rpm": ["too low"]}), 400, "rpm"),
        (ValidationError("not so"), 400, None),
        (ValidationError({"__all__": ["not together"]}), 400, None),
        (IntegrityError("UNIQUE constraint failed: x.y"), 409, None),
        (ProtectedError("no", set()), 409, None),
        (Http404("secret name"), 404, None),
        (DjangoPermissionDenied("secret"), 403, None),
        (exceptions.NotFound(), 404, None),
        (exceptions.NotAuthenticated(), 401, None),
        (exceptions.AuthenticationFailed("detail"), 401, None),
        (exceptions.PermissionDenied(), 403, None),
        (exceptions.MethodNotAllowed("PUT"), 405, None),
        (exceptions.UnsupportedMediaType("x"), 415, None),
        (exceptions.Throttled(), 429, None),
        (exceptions.ParseError("bad"), 400, None),
        (exceptions.ValidationError({"a": [{"b": ["deep"]}]}), 400, "a"),
        (exceptions.ValidationError(["flat"]), 400, None),
        (exceptions.ValidationError({"non_field_errors": ["together"]}), 400, None),
        (RateLimited("slow down", retry_after=2.4), 429, None),
    ],
)
def test_every_refusal_has_the_same_body(raised, status, param):
    answer = render_error(raised, {})
    assert answer.status_code == status
    error = answer.data["error"]
    assert set(error) - {"data"} == {"code", "message", "param", "retryable"}
    assert error["param"] == param
    assert error["message"]
    assert "secret" not in error["message"]
    assert "UNIQUE" not in error["message"]
    if status == 401:
        assert answer["WWW-Authenticate"].startswith("Bearer")
    if isinstance(raised, RateLimited):
        assert answer["Retry-After"] == "2"


def test_a_fault_is_not_a_refusal():
    for fault in (ZeroDivisionError(), KeyError("x"), RuntimeError("x"), AssertionError()):
        assert render_error(fault, {}) is None
        assert as_console_error(fault) is None


def test_no_message_carries_a_secret():
    body = error_body(InvalidRequest(f"the value {SECRET} is wrong", param="x"))
    assert SECRET not in str(body)


def parse(body):
    return StrictJSONParser().parse(BytesIO(body))


def test_bodies_are_read():
    assert parse('{"a": ["ü", 1, null, 1.5, "😀"]}'.encode()) == {"a": ["ü", 1, None, 1.5, "😀"]}
    assert parse(b'"\\ud83d\\ude00"') == "😀"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "line 1"),
        (b"{", "line 1"),
        (b'{\n "a": tru}', "line 2"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": {"b": 1, "b": 2}}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b"\xff\xfe{}", "not"),
        (b"[" * 200_000, "deeply"),
        (b'{"a":' * 50_000, "deeply"),
        (b"1" * 5000, "not JSON that can be stored"),
    ],
)
def test_bodies_are_refused_with_a_reason(body, said):
    with pytest.raises(exceptions.ParseError, match=said):
        parse(body)


def test_an_escaped_backslash_before_u0000_is_only_text():
    assert parse(b'{"a": "\\\\u0000"}') == {"a": "\\u0000"}


def test_a_body_is_bounded(settings):
    settings.MAX_API_BYTES = 100
    assert parse(b'"' + b"x" * 98 + b'"')
    with pytest.raises(RequestTooLarge, match="100 bytes"):
        parse(b'"' + b"x" * 99 + b'"')
