"""What went wrong at a provider, in one vocabulary: whose fault it is, what may help, what the caller is told. Pure.

Every status, error body and transport error becomes one ``Failure``. Its ``failure_class`` is one of
``providers.rules.FAILURE_CLASSES`` (or empty), by which a route chooses its fallbacks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from llmops.core.errors import (
    AnswerBlocked,
    ConsoleError,
    ContextLengthExceeded,
    InvalidRequest,
    RateLimited,
    StreamInterrupted,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamTimeout,
)
from llmops.core.redaction import MASK, redact_text
from llmops.gateway.routing import Target
from llmops.providers.rules import (
    CONTENT_FILTER,
    CONTEXT_LENGTH,
    CREDENTIAL,
    RATE_LIMIT,
    SERVER_ERROR,
    TIME_OUT,
)
from llmops.usage.records import Tokens

RETRYABLE_STATUS = frozenset((408, 409, 429, *range(500, 600)))
#: Statuses by which a provider says what is wrong with the request itself: its words are for the caller.
CALLERS_STATUS = frozenset((400, 404, 409, 413, 422))

CONNECT, TIMEOUT, CUT, STATUS, MALFORMED, AUTH, FORBIDDEN, FILTERED, POLICY = (
    "connect",
    "timeout",
    "cut",
    "status",
    "malformed",
    "auth",
    "forbidden",
    "filtered",
    "policy",
)
TOO_LONG, FILTER_CODE, QUOTA_CODE, RATE_CODE = (
    "context_length_exceeded",
    "content_filter",
    "insufficient_quota",
    "rate_limit_exceeded",
)
_MAX_WORDS = 2_000
_TRY_AGAIN = (
    "Try again in a moment; if it stays so, give an operator the x-llmops-call-id of this answer: its page in the console "
    "shows every attempt."
)


@dataclass(slots=True)
class Failure:
    """An attempt that brought no answer.

    ``billed`` says whether the provider may bill it: False for certain not, None when nobody can know; ``tokens`` is what
    it certainly bills. ``status`` is the provider's HTTP status, 0 without one. ``body`` is the provider's own error in
    OpenAI's shape, if it sent one that may be passed on, ``words`` its message. ``retry_after`` in seconds.
    """

    kind: str
    message: str
    status: int = 0
    billed: bool | None = False
    retry_after: float | None = None
    body: bytes | None = None
    code: str = ""
    words: str = ""
    tokens: Tokens | None = None

    @property
    def failure_class(self) -> str:
        """One of ``providers.rules.FAILURE_CLASSES``; empty for what is in none of them."""
        if self.kind == STATUS:
            if self.code == TOO_LONG:
                return CONTEXT_LENGTH
            if self.code == FILTER_CODE:
                return CONTENT_FILTER
            if self.status == 429 or self.code == QUOTA_CODE:
                return RATE_LIMIT
            if self.status in (408, 504):
                return TIME_OUT
            return SERVER_ERROR if self.status >= 500 or 300 <= self.status < 400 else ""
        return _CLASS_OF_KIND.get(self.kind, "")

    @property
    def out_of_quota(self) -> bool:
        return self.kind == STATUS and self.code == QUOTA_CODE

    @property
    def retryable(self) -> bool:
        """Whether the same target may do better in a moment."""
        if self.kind == STATUS:
            # A provider whose quota is used up answers 429, but not differently a moment later.
            return self.status in RETRYABLE_STATUS and self.code not in (QUOTA_CODE, TOO_LONG, FILTER_CODE)
        return self.kind in (CONNECT, TIMEOUT, CUT, MALFORMED)

    @property
    def overloaded(self) -> bool:
        """Whether the target has more to do than it can."""
        if self.kind == STATUS:
            return self.status in (429, 503, 529) and not self.out_of_quota
        return self.kind == TIMEOUT and self.billed is None

    @property
    def elsewhere(self) -> bool:
        """Whether another target may do better, whatever the route says about this class of failure."""
        if self.callers_own:
            return self.retryable
        return self.kind not in (FILTERED, POLICY)

    @property
    def callers_own(self) -> bool:
        """Whether the request itself is at fault, as the provider sees it."""
        if self.kind == FILTERED:
            return True
        if self.kind != STATUS or self.out_of_quota:
            return False
        return self.code == TOO_LONG or (self.status in CALLERS_STATUS and self.body is not None)

    @property
    def counts(self) -> bool:
        """Whether it says something about the target's health. A refused credential, or one that rests until the provider
        takes it again, says nothing about others."""
        if self.kind == STATUS:
            if self.status == 429:
                return self.retry_after is None and not self.out_of_quota
            return not self.callers_own and (self.status >= 500 or self.status == 408)
        return self.kind not in (AUTH, FILTERED, POLICY)

    def error(self, target: Target, *, param: str | None = None) -> ConsoleError:
        """What the caller is told when nothing else answered. ``param`` is the member that holds the input."""
        where = f"The provider {target.provider.slug!r}"
        if self.kind == AUTH:
            return UpstreamAuthFailed(
                f"{where} refused this console's credential. Your own key is in order: ask an operator to look at the "
                "provider's page in the console, and to activate another credential."
            )
        if self.kind == TIMEOUT:
            return UpstreamTimeout(
                f"{where} did not answer in time: {self.message}. Try again, ask for a shorter answer or a stream, or ask an "
                "operator to raise the time-outs of the route and the provider."
            )
        if self.kind == STATUS:
            return self._error_of_status(target, where, param)
        if self.kind == CUT:
            return StreamInterrupted(
                f"{where} broke the answer off: {self.message}. Try again: what came is not complete, and may be charged."
            )
        if self.kind == POLICY:
            return AnswerBlocked(f"{self.message[:1].upper()}{self.message[1:]}.")
        if self.kind == FILTERED:
            return InvalidRequest(
                f"{where} stopped the answer by its content filter.", code=FILTER_CODE, param=param
            )
        return UpstreamError(f"{where} could not be used: {self.message}. {_TRY_AGAIN}")

    def _error_of_status(self, target: Target, where: str, param: str | None) -> ConsoleError:
        if self.code == TOO_LONG:
            return ContextLengthExceeded(
                self.words or f"The input is longer than the context window of {target.slug!r}.", param=param
            )
        if self.out_of_quota:
            return RateLimited(
                f"{where} says that this console's account there has no quota left. Use a model of another "
                "provider, or ask an operator to raise the account's limit there.",
                code=QUOTA_CODE,
            )
        if self.status == 429:
            return RateLimited(
                f"{where} is at its rate limit and nothing else could answer: try again later.",
                retry_after=self.retry_after,
            )
        if self.status in (408, 504):
            return UpstreamTimeout(
                f"{where} did not answer in time: its status was {self.status}. {_TRY_AGAIN}",
                retry_after=self.retry_after,
            )
        if self.status == 404:
            return UpstreamError(
                f"{where} does not know {target.entry.upstream_model!r}, which {target.slug!r} stands for: an operator "
                "must check the model's name there."
            )
        return UpstreamError(
            f"{where} answered with status {self.status}. {_TRY_AGAIN}", retry_after=self.retry_after
        )


_CLASS_OF_KIND = {
    CONNECT: SERVER_ERROR,
    CUT: SERVER_ERROR,
    MALFORMED: SERVER_ERROR,
    TIMEOUT: TIME_OUT,
    AUTH: CREDENTIAL,
    FILTERED: CONTENT_FILTER,
}


def describe(failure: Failure) -> str:
    """A failure as a step's ``why`` names it."""
    if failure.kind != STATUS:
        return _DESCRIBED.get(failure.kind, failure.kind)
    if failure.code in _DESCRIBED:
        return _DESCRIBED[failure.code]
    return f"status {failure.status}"


_DESCRIBED = {
    CONNECT: "no connection",
    TIMEOUT: "a time-out",
    CUT: "an answer that broke off",
    MALFORMED: "an answer that is none",
    AUTH: "a refused credential",
    FORBIDDEN: "an address that may not be called",
    FILTERED: "the provider's content filter",
    POLICY: "an answer that a policy refused",
    TOO_LONG: "an input longer than its context window",
    FILTER_CODE: "the provider's content filter",
    QUOTA_CODE: "a quota that is used up",
}


# ---------------------------------------------------------------------- statuses and error bodies


class Said(msgspec.Struct, frozen=True):
    """An error body as a provider wrote it, its members by OpenAI's names."""

    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str = ""
    #: the code as it stood there
    raw_code: str | int | None = None


def read_error(body: bytes) -> Said | None:
    """The error that a body tells, in any of the shapes of OpenAI-compatible servers; None when it tells none.

    OpenAI, Azure, llama.cpp: ``{"error": {...}}``; Google: the same in a list; Ollama, text-generation-inference:
    ``{"error": "text"}``; vLLM, Mistral: ``{"object": "error", "message": ...}``; FastAPI: ``{"detail": ...}``.
    """
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(found, list) and found:
        found = found[0]
    if not isinstance(found, dict):
        return None
    error = found.get("error")
    if isinstance(error, dict):
        return _said(error)
    if isinstance(error, str) and error:
        return _said({**found, "message": error})
    if isinstance(found.get("message"), str):
        return _said(found)
    detail = found.get("detail")
    if isinstance(detail, list):
        detail = "; ".join(str(one["msg"]) for one in detail if isinstance(one, dict) and "msg" in one)
    return Said(message=detail) if isinstance(detail, str) and detail else None


def _said(error: Mapping[str, Any]) -> Said:
    def text(name: str) -> str | None:
        value = error.get(name)
        return value if isinstance(value, str) else None

    code = error.get("code")
    if isinstance(code, bool) or not isinstance(code, str | int):
        code = None
    return Said(
        message=text("message") or "",
        type=text("type"),
        param=text("param"),
        code="" if code is None else str(code),
        raw_code=code,
    )


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
    if status in (413, 429) and (said.code == RATE_CODE or _PER_MINUTE.search(said.message)):
        return RATE_CODE
    if is_too_long(status, said):
        return TOO_LONG
    if said.code in (FILTER_CODE, "content_policy_violation", "moderation_blocked") and status < 500:
        return FILTER_CODE
    return said.code


# ---------------------------------------------------------------------- an input that is too long

_PER_MINUTE = re.compile(r"\bper[- ](minute|hour|day)\b|\bTPM\b|\bRPM\b|rate limit", re.IGNORECASE)
#: As providers word it: OpenAI, Azure, vLLM, SGLang, llama.cpp, Ollama, LM Studio, TGI, Anthropic, Google, Mistral, Cohere,
#: Groq, xAI, Bedrock, OpenRouter, DeepSeek.
_TOO_LONG_WORDS = re.compile(
    r"""(?xis)
    (?:exceed|maximum|longer|larger|greater|too\ (?:long|large|many)|overflow|only|beyond|full)
        .{0,120}? context [\s_-]* (?:length|window|size|limit)
    | context [\s_-]* (?:length|window|size|limit|the\ overflows)
        .{0,120}? (?:exceed|maximum|longer|larger|greater|too\ (?:long|large|many)|overflow|only|\bis\ \d)
    | (?:prompt|inputs?|input\ (?:text|prompt|tokens?|token\ count)|request|messages?)\b .{0,60}?
        (?:\btoo\ long\b | \bis\ longer\ than\b | \btoo\ large\ for\ (?:the\ )?model)
    | (?:prompt\ contains|contains)\ \d+\ tokens .{0,80}? too\ large\ for\ model
    | \btokens?\b .{0,80}? \bexceeds?\b .{0,40}? \b(?:maximum|limit|model|allowed)
    | \bmaximum\ (?:allowed\ )?(?:prompt|model|input|sequence)\ (?:length|size|tokens)
    | \btoo\ many\ (?:input\ |prompt\ )?tokens
    | \breduce\ the\ length\ of\ (?:the\ |your\ )?(?:messages|prompt|input)
    | inputs?`?\ tokens\ \+\ .{0,40}? must\ be\ <=
    | inputs?`?\ must\ have\ less\ than\ \d+\ tokens
    """
)
#: about the answer's length, which another cap mends
_ABOUT_OUTPUT = re.compile(
    r"(max_(?:completion_|output_|new_)?tokens)\b.{0,60}?(at most|must be|maximum)", re.IGNORECASE
)
_TOO_LONG_CODES = frozenset(
    (TOO_LONG, "context_window_exceeded", "exceed_context_size_error", "string_above_max_tokens")
)


def is_too_long(status: int, said: Said) -> bool:
    """Whether an error says that the input does not fit into the model's context window, whatever its words."""
    if said.code in _TOO_LONG_CODES or said.type in _TOO_LONG_CODES:
        return True
    # Some servers answer 500 for what the caller sent.
    if status not in (400, 413, 422, 500) or not said.message or _PER_MINUTE.search(said.message):
        return False
    if _TOO_LONG_WORDS.search(said.message) is None:
        return False
    return (
        _ABOUT_OUTPUT.search(said.message) is None
        or "context" in said.message.lower()
        or "inputs" in said.message
    )


_LIMIT = re.compile(
    r"""(?xis)
    (?:context[\s_-]*(?:length|window|size)|maximum|limit|at\ most|less\ than|only|<=|>|allowed|n_ctx|model\ with|context\ size\ of)
    \D{0,60}? (\d[\d,]{1,11})
    """
)
_NUMBER = re.compile(r"\d[\d,]{1,11}")


def excess_told(words: str) -> int | None:
    """By how many tokens an input is too long, where a refusal tells it; None when its figures do not.

    Such messages name a limit and a larger number that was asked for ("maximum context length is 8192 tokens. However, you
    requested 9000 tokens (8000 in the messages, 1000 in the completion)").
    """
    numbers = [int(text.replace(",", "")) for text in _NUMBER.findall(words)]
    limits = [int(text.replace(",", "")) for text in _LIMIT.findall(words)]
    for limit in limits:
        above = [number for number in numbers if number > limit]
        if above and max(above) < 100 * limit:
            return max(above) - limit
    return None


# ---------------------------------------------------------------------- words


_KEY_WORDS = re.compile(
    r"api[ _-]?key not valid|(invalid|incorrect|missing|expired) api[ _-]?key", re.IGNORECASE
)
_KEY_CODES = frozenset(("invalid_api_key", "API_KEY_INVALID", "invalid_organization", "account_deactivated"))


def _about_the_key(said: Said) -> bool:
    return said.code in _KEY_CODES or _KEY_WORDS.search(said.message) is not None


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
