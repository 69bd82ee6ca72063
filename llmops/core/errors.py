"""One error family for the whole product.

An error has a stable ``code``, an HTTP ``status``, whether the caller may ``retry``, a ``message`` that is safe
to show to whoever asked, the ``param`` (field) it is about, and ``data`` for machines. It is rendered twice:
``llmops.base.drf`` gives DRF's body, ``llmops.gateway.errors`` OpenAI's. Nothing in an error may hold a secret
or a body: messages are written for the caller, not copied from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class ConsoleError(Exception):
    """Base of every error that a person or a program outside may see.

    ``openai_type`` is the ``type`` member of OpenAI's error body; SDKs choose their class by status alone.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    openai_type: ClassVar[str] = "server_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code  # type: ignore[misc]
        self.retry_after = retry_after
        self.data: dict[str, Any] = dict(data or {})


class InvalidRequest(ConsoleError):
    """What was sent cannot be understood or is out of bounds; ``param`` names the field."""

    code = "invalid_request"
    status = 400
    openai_type = "invalid_request_error"


class RequestTooLarge(InvalidRequest):
    code = "request_too_large"
    status = 413


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"


class AuthenticationFailed(ConsoleError):
    """No key, an unknown, expired or revoked one. The message never says which of a key's parts was right."""

    code = "invalid_api_key"
    status = 401
    openai_type = "invalid_request_error"


class PermissionDenied(ConsoleError):
    code = "permission_denied"
    status = 403
    openai_type = "invalid_request_error"


class NotFound(ConsoleError):
    code = "not_found"
    status = 404
    openai_type = "invalid_request_error"


class ModelNotFound(NotFound):
    code = "model_not_found"


class Conflict(ConsoleError):
    """Somebody else changed it first, or the state does not allow this step. The message says what to look at."""

    code = "conflict"
    status = 409
    openai_type = "invalid_request_error"


class UnprocessableEntity(ConsoleError):
    """Understood, but refused as a whole; ``data["problems"]`` lists what is wrong."""

    code = "unprocessable"
    status = 422
    openai_type = "invalid_request_error"


class UnpricedModel(UnprocessableEntity):
    """A model without a price is asked for under a budget (invariant 9)."""

    code = "model_not_priced"


class PolicyBlocked(InvalidRequest):
    """A policy does not let the request pass. The message names the policy and what it looks for, never what it found."""

    code = "policy_blocked"


class ApprovalRequired(PermissionDenied):
    """A policy lets the request pass only once a person has agreed."""

    code = "approval_required"


class AnswerBlocked(UnprocessableEntity):
    """There was an answer, and a policy does not let it pass. Asking the same again costs as much again.

    The code is that of ``PolicyBlocked``, since the same policy refuses; the status tells an answer (422) from a request (400).
    """

    code = "policy_blocked"


class RateLimited(ConsoleError):
    code = "rate_limit_exceeded"
    status = 429
    retryable = True
    openai_type = "requests"


class QueueFull(RateLimited):
    code = "queue_full"


class BudgetExceeded(ConsoleError):
    """A hard budget does not allow the call; the message names the budget and when it resets."""

    code = "insufficient_quota"
    status = 429
    openai_type = "insufficient_quota"


class UpstreamError(ConsoleError):
    """The provider failed and nothing else could answer."""

    code = "upstream_error"
    status = 502
    retryable = True


class UpstreamAuthFailed(UpstreamError):
    """The provider refused the console's own credential: never shown as the caller's 401."""

    code = "upstream_auth"


class UpstreamTimeout(UpstreamError):
    code = "upstream_timeout"
    status = 504


class CircuitOpen(UpstreamError):
    code = "circuit_open"
    status = 503


class StreamInterrupted(UpstreamError):
    code = "stream_interrupted"


class ServiceUnavailable(ConsoleError):
    """This process cannot take the call now (starting, draining, journal unusable, budget store away)."""

    code = "service_unavailable"
    status = 503
    retryable = True


class ConfigurationRefused(ConsoleError):
    """The process must not start, or a file must not be applied; the message says what to do."""

    code = "configuration_refused"
    status = 500
