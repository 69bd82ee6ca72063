"""Statuses, error codes and what made an attempt necessary, in words. Pure."""

from __future__ import annotations

#: status -> (short word, what it means and what to do)
STATUSES: dict[str, tuple[str, str]] = {
    "ok": ("Answered", "The provider answered and the answer was passed on whole."),
    "error": ("Failed", "No provider could answer; the service got an error. The attempts below say why."),
    "refused": (
        "Refused",
        "The console itself refused the call before it went to any provider, so nothing was spent.",
    ),
    "client_closed": (
        "Hung up",
        "The service closed the connection before the answer was whole. The provider was told to stop; what it had "
        "generated until then is charged.",
    ),
    "interrupted": (
        "Interrupted",
        "The provider's stream broke off in the middle. The service was told so by an error event and got no [DONE]; "
        "what had arrived is charged, as far as could be counted.",
    ),
    "unknown": (
        "Unknown",
        "The process that carried this call died while it was with the provider. Whether the provider answered, and what "
        "it charges, cannot be known from here, so the whole hold is charged until someone compares it with the "
        "provider's own figures.",
    ),
}

#: of a failed call without an attempt
_NOBODY_ASKED = (
    "Nobody could be asked: nothing went to any provider, so nothing was spent. The service got an error."
)

ERRORS: dict[str, str] = {
    "budget_unavailable": "Money for the call could not be reserved in time",
    "circuit_open": "The breaker was open: the target had failed too often",
    "client_closed": "The service hung up first",
    "concurrency_limit_exceeded": "The key had too many calls at once",
    "context_length_exceeded": "More tokens than the model can take",
    "insufficient_quota": "A hard budget allows no more",
    "internal_error": "A fault in the console",
    "invalid_api_key": "The service key is missing, unknown, expired or revoked",
    "invalid_request": "The request was not understood",
    "model_not_found": "No route or model of that name",
    "model_not_priced": "The model has no price, so no budget can pay for it",
    "outcome_unknown": "The process died; nobody knows what came of it",
    "approval_required": "A policy asks for a person's approval first",
    "permission_denied": "The key may not use that route or model",
    "policy_blocked": "A policy blocked it",
    "provider_paused": "Every provider of the route is paused",
    "content_filter": "The provider's content filter stopped it",
    "queue_full": "Too many calls were waiting",
    "queue_timeout": "No place at the target came free in time",
    "rate_limit_exceeded": "The key's rate limit",
    "request_too_large": "The request's body is too large",
    "route_degraded": "The route is degraded and has no fallback",
    "route_paused": "Somebody paused the route",
    "service_unavailable": "The data plane could not take calls",
    "stale_answer": "Nothing else could answer: an earlier answer to the same request was given",
    "static_answer": "Nothing else could answer: the route's fixed answer was given",
    "stream_interrupted": "The provider broke the stream off",
    "tokens_limit_exceeded": "The key's limit of tokens per minute",
    "upstream_auth": "The provider refused our credential",
    "upstream_connect": "The provider could not be reached",
    "upstream_cut": "The provider broke the answer off",
    "upstream_error": "The provider failed",
    "upstream_filtered": "The provider's content filter stopped the answer",
    "upstream_forbidden": "The provider does not allow our credential this",
    "upstream_malformed": "The provider's answer could not be understood",
    "upstream_policy": "A policy refused the answer",
    "upstream_rate_limited": "The provider's own rate limit",
    "upstream_timeout": "The provider did not answer in time",
}

#: Codes whose words are others where a provider said so of an attempt, and not the console of a call.
_OF_ATTEMPTS: dict[str, str] = {
    "insufficient_quota": "The provider's quota for our credential is used up",
    "rate_limit_exceeded": "The provider's own rate limit was reached",
    "upstream_429": "The provider's own rate limit was reached",
    "upstream_rate_limited": "The provider's own rate limit was reached",
    "content_policy_violation": "The provider's content filter stopped it",
    "outcome_unknown": "The process died before it ended",
}

#: why a target was not even asked -> the same for who is on call
PASSED_OVER: dict[str, str] = {
    "circuit open": "its breaker is open, because it failed too often",
    "no credential": "its provider has no credential that can be used",
    "paused": "its provider is paused",
    "credential refused": "its provider refused the credential lately",
    "resting after a 429": "its provider asked for a rest after HTTP 429",
    "rate limit nearly used up": "the provider's rate limit of its credential is nearly used up",
}

#: What stands in the note of an attempt whose hold is charged whole.
AT_HOLD = "the bill is not known: charged at its hold"
NOBODY_KNOWS = "nobody knows whether the provider bills it"
#: what the records note of an attempt -> the same as a sentence
NOTES: dict[str, str] = {
    AT_HOLD: f"{NOBODY_KNOWS}, so its whole hold is charged",
    "no usage was sent: tokens were counted": "the provider sent no usage, so tokens were counted",
}

#: (stage, action) of a policy's verdict -> what was done
POLICY_DONE = {
    ("before", "allow"): "The call was marked and went on.",
    ("before", "redact"): "It was taken out before the provider saw it.",
    ("before", "require_approval"): "The call was refused, because someone must approve it first.",
    ("before", "block"): "The call was refused.",
    ("after", "allow"): "The answer was marked and passed on.",
    ("after", "redact"): "It was taken out before the service saw it.",
    ("after", "retry"): "The model was asked again.",
    ("after", "block"): "The answer was kept back.",
}

ANSWERED_FROM_CACHE = frozenset({"hit", "joined", "stale"})
#: how the response cache was used -> what the call's story says of it
CACHE = {
    "hit": "answered from it",
    "joined": "waited for the same request, which was under way",
    "stale": "an old answer from it, because nothing else could answer",
    "replayed": "not asked: the first answer under the same Idempotency-Key was given again",
    "miss": "asked in vain",
}

TOKEN_CLASSES = {
    "input": "Input",
    "cached_input": "Input, read from the provider's cache",
    "cache_write": "Input, written into the provider's cache",
    "output": "Output",
    "reasoning": "Reasoning",
    "audio_input": "Input, audio",
    "image_input": "Input, images",
    "audio_output": "Output, audio",
    "image_output": "Output, images",
    "characters": "Characters spoken",
    "seconds": "Seconds of audio heard",
    "images": "Images made",
}
#: Classes that are no tokens.
UNITS = frozenset({"characters", "seconds", "images"})


def status_word(status: str) -> str:
    return STATUSES.get(status, (status.capitalize(), ""))[0]


def status_meaning(status: str, attempts: int = 1) -> str:
    if status == "error" and not attempts:
        return _NOBODY_ASKED
    return STATUSES.get(status, ("", ""))[1]


def error_words(code: str) -> str:
    if code in ERRORS:
        return ERRORS[code]
    kind, _, status = code.partition("_")
    if kind == "upstream" and status.isdigit():
        if status == "429":
            return "The provider's own rate limit"
        return "The provider failed" if status >= "500" else "The provider refused the request"
    return code.replace("_", " ").capitalize()


def attempt_words(code: str) -> str:
    """What a code means that an attempt at a provider ended with."""
    return _OF_ATTEMPTS.get(code) or error_words(code)
