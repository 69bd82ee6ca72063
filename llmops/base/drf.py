"""The ground of every API: one error body, one way to page."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import ValidationError as DjangoValidationError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.pagination import CursorPagination
from rest_framework.response import Response

from llmops.core.errors import ConsoleError, InvalidRequest, NotFound, PermissionDenied
from llmops.core.redaction import redact_text


class NewestFirst(CursorPagination):
    """Keyset pages: cost is bounded by the page, not by how deep one goes."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 500
    ordering = "-id"


def error_body(error: ConsoleError) -> dict[str, Any]:
    return {
        "error": {
            "code": error.code,
            "message": redact_text(error.message),
            "param": error.param,
            "retryable": error.retryable,
            **({"data": error.data} if error.data else {}),
        }
    }


def render_error(raised: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: every error leaves with the body of ``error_body`` and its own status."""
    error = _as_console_error(raised)
    if error is None:
        return None
    response = Response(error_body(error), status=error.status)
    if error.retry_after is not None:
        response["Retry-After"] = str(max(1, round(error.retry_after)))
    if error.status == 401:
        response["WWW-Authenticate"] = 'Bearer realm="llmops"'
    return response


def _as_console_error(raised: Exception) -> ConsoleError | None:
    if isinstance(raised, ConsoleError):
        return raised
    if isinstance(raised, Http404 | exceptions.NotFound):
        return NotFound("There is no such object here, or it is not yours to see.")
    if isinstance(raised, DjangoPermissionDenied):
        return PermissionDenied("You may not do this here.")
    if isinstance(raised, DjangoValidationError):
        return _invalid(raised.message_dict if hasattr(raised, "error_dict") else {"": raised.messages})
    if isinstance(raised, exceptions.ValidationError):
        return _invalid(raised.detail if isinstance(raised.detail, dict) else {"": raised.detail})
    if isinstance(raised, exceptions.APIException):
        error = ConsoleError(str(raised.detail), code=str(raised.default_code))
        error.status = raised.status_code  # type: ignore[misc]
        return error
    return None


def _invalid(detail: dict[str, Any]) -> InvalidRequest:
    problems = {field or "request": _first_text(value) for field, value in detail.items()}
    field, message = next(iter(problems.items()))
    return InvalidRequest(f"{field}: {message}", param=field, data={"problems": problems})


def _first_text(value: Any) -> str:
    while isinstance(value, list | tuple | dict) and value:
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return str(value)
