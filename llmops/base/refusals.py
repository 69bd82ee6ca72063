"""One vocabulary for "no": what a service, a model's validation or the database itself refused, as a ``ConsoleError``."""

from __future__ import annotations

from django.core.exceptions import NON_FIELD_ERRORS
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import IntegrityError, OperationalError
from django.db.models import ProtectedError, RestrictedError

from llmops.core.errors import Conflict, ConsoleError, InvalidRequest, ServiceUnavailable

#: What a surface catches around a service and shows to whoever asked.
REFUSALS = (ConsoleError, DjangoValidationError, IntegrityError)


def as_console_error(raised: Exception) -> ConsoleError | None:
    """``raised`` as one of the product's errors, or None if it is a fault and not a refusal."""
    if isinstance(raised, ConsoleError):
        return raised
    if isinstance(raised, DjangoValidationError):
        problems = problems_of(raised)
        field, message = next(iter(problems.items()))
        return InvalidRequest(
            f"{field}: {message}", param=None if field == "request" else field, data={"problems": problems}
        )
    if isinstance(raised, ProtectedError | RestrictedError):
        return Conflict("Other objects still refer to this one. Remove or archive them first.")
    if isinstance(raised, IntegrityError):
        # The text of the database names tables and values; it is for the log, not for the caller.
        return Conflict(
            "The database refused this change: something with the same name or value exists, or was stored "
            "at the same moment, or a limit would be broken. Reload and try again."
        )
    if took_too_long(raised):
        return ServiceUnavailable(
            "The database gave this up because it took too long. Ask for a shorter time or for less at once; if it was a change, "
            "nothing of it was saved: try again in a moment.",
            code="took_too_long",
        )
    return None


def took_too_long(raised: BaseException | None) -> bool:
    """Whether PostgreSQL gave a statement up for its ``statement_timeout`` (SQLSTATE 57014)."""
    return isinstance(raised, OperationalError) and getattr(raised.__cause__, "sqlstate", "") == "57014"


def problems_of(error: DjangoValidationError) -> dict[str, str]:
    """Field -> first message; what belongs to no field stands under ``request``."""
    if not hasattr(error, "error_dict"):
        return {"request": error.messages[0]}
    return {
        "request" if field == NON_FIELD_ERRORS else field: messages[0]
        for field, messages in error.message_dict.items()
    }
