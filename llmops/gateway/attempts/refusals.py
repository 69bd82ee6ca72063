"""What an error of a provider means: whose fault it is, what of its words may be told."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from llmops.core.redaction import MASK, redact_text
from llmops.gateway.attempts.failures import (
    AUTH,
    CALLERS_STATUS,
    FILTER_CODE,
    MALFORMED,
    QUOTA_CODE,
    RATE_CODE,
    STATUS,
    TOO_LONG,
    Failure,
)
from llmops.gateway.attempts.said import Said, read_error
from llmops.gateway.attempts.too_long import PER_MINUTE, is_too_long

_MAX_WORDS = 2_000


def failure_of_error(
    status: int,
    body: bytes,
    *,
    secret: str,
    retry_after: float | None = None,
    billed: bool | None = False,
    names_model: bool = True,
) -> Failure:
    """What an answer with an error status means. ``secret`` is the credential's: it is taken out of what is passed on.
    ``names_model``: the request named a model, in the console's own words."""
    if status in (401, 403):
        return Failure(AUTH, "the credential was refused", status=status)
    if status < 400:
        billed = billed if status >= 300 else None
        return Failure(
            STATUS if status >= 300 else MALFORMED,
            f"status {status} in place of an answer",
            status=status,
            billed=billed,
        )
    said = read_error(body)
    if said is not None and status in (400, 422) and _about_the_key(said):
        return Failure(AUTH, "the credential was refused", status=status)
    code = _code(status, said)
    if code == RATE_CODE:
        # Some say 413 for what never fits into a minute's tokens.
        status = 429
    words = clean(said.message, secret)[:_MAX_WORDS] if said is not None else ""
    kept = None
    if said is not None and status in CALLERS_STATUS and not (names_model and _unknown_model(status, said)):
        kept = _own_words(said, words, secret)
    return Failure(
        STATUS,
        f"status {status}",
        status=status,
        billed=billed,
        retry_after=retry_after,
        body=kept,
        code=code,
        words=words,
    )


def failure_in_answer(raw: bytes, *, secret: str) -> Failure:
    """What an ``error`` member in an answer with status 200 means; a provider behind may have said its status as code."""
    body = b'{"error":' + raw + b"}"
    said = read_error(body)
    code = said.raw_code if said is not None else None
    if isinstance(code, str) and code.isdecimal() and len(code) == 3:
        code = int(code)
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    failure = failure_of_error(status, body, secret=secret)
    if failure.kind == STATUS and not failure.callers_own:
        failure.message = "an error in place of an answer"
    return failure


def _code(status: int, said: Said | None) -> str:
    """The code by which a failure is known here, whatever words the provider has for it."""
    if status == 402:
        return QUOTA_CODE
    if said is None:
        return ""
    if said.code in (QUOTA_CODE, "billing_not_active", "insufficient_credits") or said.type == QUOTA_CODE:
        return QUOTA_CODE
    if status in (413, 429) and (said.code == RATE_CODE or PER_MINUTE.search(said.message)):
        return RATE_CODE
    if is_too_long(status, said):
        return TOO_LONG
    if said.code in (FILTER_CODE, "content_policy_violation", "moderation_blocked") and status < 500:
        return FILTER_CODE
    return said.code


#: How a message begins that is about the key. Further in, or in quotation marks, it may be what the caller sent, told again.
_KEY_WORDS = re.compile(
    r"(the )?(provided |your )?api[ _-]?key (is )?(not valid|invalid|incorrect|missing|expired)"
    r"|(an )?(invalid|incorrect|missing|expired) api[ _-]?key",
    re.IGNORECASE,
)
_KEY_CODES = frozenset(("invalid_api_key", "API_KEY_INVALID", "invalid_organization", "account_deactivated"))


def _about_the_key(said: Said) -> bool:
    return said.code in _KEY_CODES or (not said.param and _KEY_WORDS.match(said.message) is not None)


def _unknown_model(status: int, said: Said) -> bool:
    """A 404 is about the model unless it names something else that the caller referred to."""
    if status != 404:
        return False
    if said.param not in (None, "", "model"):
        return False
    return not said.code.endswith("_not_found") or said.code.startswith(("model", "deployment"))


#: So many characters of a credential's beginning or end are more than what tells it from others.
_TELLING = 10


def clean(text: str, secret: str) -> str:
    """What a provider said, without its credential, whole or the better part of it, and without anything else that has the
    shape of a secret."""
    if secret:
        text = text.replace(secret, MASK)
        if len(secret) >= 2 * _TELLING and (secret[:_TELLING] in text or secret[-_TELLING:] in text):
            head, tail = re.escape(secret[:_TELLING]), re.escape(secret[-_TELLING:])
            text = re.sub(rf"{head}\S*|\S*?{tail}", MASK, text)
    return redact_text(text)


def _own_words(said: Said, words: str, secret: str) -> bytes:
    """The error body to pass on, with members of OpenAI's error only."""
    shown = {"message": words, "type": said.type, "param": said.param, "code": said.raw_code}
    for name, value in shown.items():
        if name != "message" and isinstance(value, str) and clean(value, secret) != value:
            shown[name] = None
    return msgspec.json.encode({"error": shown})


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a provider asks for: ``retry-after-ms``, or ``Retry-After`` in seconds or as a date (RFC 9110)."""
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            return _sane(float(milliseconds) / 1000)
        value = headers.get("retry-after")
        return None if value is None else _sane(float(value))
    except ValueError:
        return _from_date(headers.get("retry-after", ""), now)


def _from_date(text: str, now: float) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return _sane(parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _sane(seconds: float) -> float | None:
    # NaN compares false with everything.
    return min(seconds, 86_400.0) if seconds >= 0 else None
