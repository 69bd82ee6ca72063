"""Errors in OpenAI's shape, so that its SDK raises the class a programmer expects."""

from __future__ import annotations

import msgspec


class ApiError(Exception):
    """An error answer: status, OpenAI's ``type``, ``code`` and ``param``, and the seconds to wait if there are any."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def body(self) -> bytes:
        return msgspec.json.encode(
            {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}
        )

    def headers(self) -> list[tuple[bytes, bytes]]:
        if self.retry_after is None:
            return []
        seconds = f"{self.retry_after:g}".encode()
        return [(b"retry-after", seconds), (b"retry-after-ms", f"{self.retry_after * 1000:.0f}".encode())]


# status: (type, code, sentence), as OpenAI's guide to error codes has them.
_SIMULATED: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "this request is called wrong on demand."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("request_forbidden", "unsupported_country_region_territory", "Country or territory not supported."),
    404: (
        "invalid_request_error",
        "model_not_found",
        "The model does not exist or you do not have access to it.",
    ),
    408: ("server_error", "timeout", "Request timed out."),
    409: ("invalid_request_error", "conflict", "The resource was changed by another request."),
    413: ("invalid_request_error", None, "The request is too large."),
    422: ("invalid_request_error", None, "The request can not be processed."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again later."),
    500: ("server_error", None, "The server had an error while processing your request."),
    502: ("server_error", None, "Bad gateway."),
    503: ("server_error", "overloaded", "The engine is currently overloaded, please try again later."),
    504: ("server_error", None, "The gateway timed out."),
}


def simulated(status: int, retry_after: float | None = None) -> ApiError:
    kind, code, sentence = _SIMULATED[status]
    return ApiError(status, f"Simulated error: {sentence}", kind=kind, code=code, retry_after=retry_after)


def out_of_quota() -> ApiError:
    return ApiError(
        429,
        "Simulated error: You exceeded your current quota, please check your plan and billing details.",
        kind="insufficient_quota",
        code="insufficient_quota",
    )


def too_long(window: int, prompt: int | None = None, output: int | None = None) -> ApiError:
    """``prompt`` and ``output`` in tokens; without them the error was asked for."""
    said = f"Simulated answer: this model's maximum context length is {window} tokens"
    if prompt is not None:
        said += f", but the request asks for {prompt + (output or 0)} ({prompt} in the messages, {output or 0} in the completion)"
    return ApiError(
        400,
        f"{said}. Please reduce the length of the messages.",
        code="context_length_exceeded",
        param="messages",
    )


def wrong(message: str, param: str | None = None, code: str | None = None, status: int = 400) -> ApiError:
    return ApiError(status, message, param=param, code=code)


def wrong_shape(error: msgspec.ValidationError | msgspec.DecodeError) -> ApiError:
    """Names the field: msgspec says where it was in the form "... - at `$.messages[0]`"."""
    what, _, where = str(error).partition(" - at `")
    path = where.rstrip("`").removeprefix("$").removeprefix(".")
    if what.startswith("Object missing required field `"):
        path = f"{path}.{what.split('`')[1]}".removeprefix(".")
    return ApiError(
        400,
        f"Invalid request: {what}{f' ({path})' if path else ''}.",
        param=path or None,
        code="invalid_type",
    )
