"""What went wrong at a provider, in one vocabulary: whose fault it is, what may help, what the caller is told. Pure.

Every status, error body and transport error becomes one ``Failure``. Its ``failure_class`` is one of
``providers.rules.FAILURE_CLASSES`` (or empty), by which a route chooses its fallbacks.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmops.core.errors import (
    AnswerBlocked,
    ConsoleError,
    ContextLengthExceeded,
    InvalidRequest,
    RateLimited,
    ServiceUnavailable,
    StreamInterrupted,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamTimeout,
)
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

CONNECT, EXHAUSTED, TIMEOUT, CUT, STATUS, MALFORMED, AUTH, FORBIDDEN, FILTERED, POLICY = (
    "connect",
    "exhausted",
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
        return self.kind in (CONNECT, EXHAUSTED, TIMEOUT, CUT, MALFORMED)

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
        takes it again, says nothing about others; nor does this server's own lack of connections about anybody."""
        if self.kind == STATUS:
            if self.status == 429:
                return self.retry_after is None and not self.out_of_quota
            return not self.callers_own and (self.status >= 500 or self.status == 408)
        return self.kind not in (AUTH, EXHAUSTED, FILTERED, POLICY)

    def error(self, target: Target, *, param: str | None = None) -> ConsoleError:
        """What the caller is told when nothing else answered. ``param`` is the member that holds the input."""
        where = f"The provider {target.provider.slug!r}"
        if self.kind == AUTH:
            return UpstreamAuthFailed(
                f"{where} refused this console's credential. Your own key is in order: ask an operator to look at the "
                "provider's page in the console, and to activate another credential."
            )
        if self.kind == EXHAUSTED:
            return ServiceUnavailable(
                "This server has no room for another connection at the moment. Try again shortly; an operator may have to allow "
                "its process more open files.",
                retry_after=1,
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
    EXHAUSTED: "no room here for a connection",
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
