"""One vocabulary for what providers do wrong: whose fault it is, what class it has, what the caller is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.gateway.attempts.failures import (
    AUTH,
    CONNECT,
    CUT,
    FILTERED,
    FORBIDDEN,
    MALFORMED,
    STATUS,
    TIMEOUT,
    TOO_LONG,
    Failure,
    describe,
)
from llmops.gateway.attempts.refusals import failure_in_answer, failure_of_error
from llmops.gateway.attempts.said import read_error
from llmops.gateway.attempts.too_long import excess_told, is_too_long
from llmops.gateway.routing import Target
from llmops.providers.rules import FAILURE_CLASSES
from tests.gateway.rig import SECRET, a_model, a_provider

CLASSES = {"", *(name for name, _ in FAILURE_CLASSES)}
TARGET = Target(a_model("small"), a_provider("up"))


def openai_error(message: str = "no", code: Any = None, **more: Any) -> bytes:
    return json.dumps(
        {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code} | more}
    ).encode()


def of(status: int, body: bytes = b"", **more: Any) -> Failure:
    return failure_of_error(status, body, secret=SECRET, **more)


# ---------------------------------------------------------------------- too long, in every provider's words

#: (who, status, body): as their servers write it.
TOO_LONG_BODIES: list[tuple[str, int, Any]] = [
    (
        "OpenAI",
        400,
        {
            "error": {
                "message": "This model's maximum context length is 8192 tokens. However, your messages resulted in 9012 "
                "tokens. Please reduce the length of the messages.",
                "type": "invalid_request_error",
                "param": "messages",
                "code": "context_length_exceeded",
            }
        },
    ),
    (
        "OpenAI responses",
        400,
        {
            "error": {
                "message": "Your input exceeds the context window of this model. Please adjust your input and try again.",
                "type": "invalid_request_error",
                "param": "input",
                "code": "context_length_exceeded",
            }
        },
    ),
    (
        "OpenAI embeddings",
        400,
        {
            "error": {
                "message": "Invalid 'input': maximum context length is 8192 tokens.",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            }
        },
    ),
    (
        "Azure",
        400,
        {
            "error": {
                "message": "This model's maximum context length is 4097 tokens, however you requested 5031 tokens (4031 in "
                "your prompt; 1000 for the completion). Please reduce your prompt; or completion length.",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            }
        },
    ),
    (
        "vLLM, old",
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens. However, you requested 4200 tokens (4100 in the "
            "messages, 100 in the completion). Please reduce the length of the messages or completion.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
    ),
    (
        "vLLM, new",
        400,
        {
            "error": {
                "message": "The decoder prompt (length 5021) is longer than the maximum model length of 4096. Make sure "
                "that `max_model_len` is no smaller than the number of text tokens.",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            }
        },
    ),
    (
        "vLLM, answer",
        400,
        {
            "error": {
                "message": "'max_tokens' or 'max_completion_tokens' is too large: 2000. This model's maximum context length "
                "is 4096 tokens and your request has 3000 input tokens (2000 > 4096 - 3000).",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            }
        },
    ),
    (
        "SGLang",
        400,
        {
            "object": "error",
            "message": "The input (40000 tokens) is longer than the model's context length (32768 tokens).",
            "type": "BadRequestError",
            "code": 400,
        },
    ),
    (
        "llama.cpp",
        400,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size. try increasing the context size or enable "
                "context shift",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 9000,
                "n_ctx": 4096,
            }
        },
    ),
    (
        "llama.cpp, old",
        500,
        {
            "error": {
                "code": 500,
                "message": "Input prompt is too big compared to KV size / context size exceeded",
                "type": "server_error",
            }
        },
    ),
    (
        "LM Studio",
        400,
        {
            "error": "Trying to keep the first 6000 tokens when context the overflows. However, the model is loaded with "
            "context length of only 4096 tokens, which is not enough."
        },
    ),
    (
        "Ollama",
        400,
        {
            "error": {
                "message": "input length exceeds the context length",
                "type": "api_error",
                "param": None,
                "code": None,
            }
        },
    ),
    ("Ollama, prompt", 400, {"error": "prompt too long; exceeded max context length by 812 tokens"}),
    (
        "text-generation-inference",
        422,
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` "
            "tokens and 100 `max_new_tokens`",
            "error_type": "validation",
        },
    ),
    (
        "text-generation-inference, input",
        422,
        {
            "error": "Input validation error: `inputs` must have less than 4095 tokens. Given: 5012",
            "error_type": "validation",
        },
    ),
    (
        "Anthropic",
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "prompt is too long: 210044 tokens > 200000 maximum",
            },
        },
    ),
    (
        "Anthropic, with the answer",
        400,
        {
            "error": {
                "type": "invalid_request_error",
                "message": "input length and `max_tokens` exceed context limit: 195000 + 8192 > 200000, decrease input "
                "length or `max_tokens` and try again",
            }
        },
    ),
    (
        "Google",
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
    ),
    (
        "Mistral",
        400,
        {
            "object": "error",
            "message": "Prompt contains 40960 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
            "type": "invalid_request_invalid_args",
            "code": "3051",
        },
    ),
    (
        "Cohere",
        400,
        {
            "message": "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000."
        },
    ),
    (
        "Groq",
        400,
        {
            "error": {
                "message": "Please reduce the length of the messages or completion.",
                "type": "invalid_request_error",
                "param": "messages",
                "code": "context_length_exceeded",
            }
        },
    ),
    (
        "xAI",
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        },
    ),
    ("Bedrock", 400, {"message": "Input is too long for requested model."}),
    (
        "OpenRouter",
        400,
        {
            "error": {
                "message": "This endpoint's maximum context length is 32768 tokens. However, you requested about 40100 tokens "
                "(40000 of text input, 100 in the output). Please reduce the length of either one, or use the "
                '"middle-out" transform to compress your prompt automatically.',
                "code": 400,
            }
        },
    ),
    (
        "DeepSeek",
        400,
        {
            "error": {
                "message": "This model's maximum context length is 65536 tokens. However, you requested 71031 tokens (66935 in "
                "the messages, 4096 in the completion). Please reduce the length of the messages or completion.",
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_request_error",
            }
        },
    ),
    ("FastAPI in between", 422, {"detail": "context length exceeded: 9000 tokens, maximum 8192"}),
]


@pytest.mark.parametrize(("who", "status", "body"), TOO_LONG_BODIES, ids=[who for who, *_ in TOO_LONG_BODIES])
def test_an_input_that_is_too_long_is_known_by_any_providers_words(who: str, status: int, body: Any) -> None:
    failure = of(status, json.dumps(body).encode())
    assert (failure.kind, failure.code, failure.failure_class) == (STATUS, TOO_LONG, "context_length")
    assert failure.callers_own
    assert not failure.retryable
    assert not failure.elsewhere
    assert not failure.counts
    for param in ("messages", "input"):
        error = failure.error(TARGET, param=param)
        assert (error.status, error.code, error.param) == (400, "context_length_exceeded", param)
        assert error.openai_type == "invalid_request_error"
        assert error.message


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (
            400,
            "max_tokens is too large: 5000. This model supports at most 4096 completion tokens.",
            "invalid_value",
        ),
        (400, "Invalid value for 'temperature': maximum is 2.", None),
        (400, "Unknown parameter: 'context'.", "unknown_parameter"),
        (400, "messages[0].content: must be text", None),
        (
            400,
            "The response was filtered due to the prompt triggering the content management policy",
            "content_filter",
        ),
        (429, "Rate limit reached: too many tokens per minute", "rate_limit_exceeded"),
        (
            413,
            "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 7000",
            "rate_limit_exceeded",
        ),
        (413, "Request Entity Too Large", None),
        (400, "You tried to use a tool with a name longer than 64 characters", None),
        (404, "The model `gpt-9` does not exist or you do not have access to it.", "model_not_found"),
        (502, "the context of the proxy is too long gone", None),
        (400, "", None),
    ],
)
def test_other_errors_are_not_taken_for_it(status: int, message: str, code: str | None) -> None:
    assert of(status, openai_error(message, code)).failure_class != "context_length"


@pytest.mark.parametrize(
    ("words", "excess"),
    [
        ("maximum context length is 8192 tokens. However, your messages resulted in 9012 tokens.", 820),
        (
            "maximum context length is 4097 tokens, however you requested 5031 tokens (4031 in your prompt; 1000 for the completion)",
            934,
        ),
        ("prompt is too long: 210044 tokens > 200000 maximum", 10_044),
        ("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", 151_424),
        ("maximum prompt length is 131072 but the request contains 537812 tokens.", 406_740),
        ("maximum context length is 32,768 tokens. However, you requested about 40,100 tokens", 7_332),
        ("The decoder prompt (length 5021) is longer than the maximum model length of 4096.", 925),
        ("Your input exceeds the context window of this model.", None),
        ("", None),
    ],
)
def test_by_how_much_it_is_too_long_is_read_where_it_is_told(words: str, excess: int | None) -> None:
    assert excess_told(words) == excess


@given(st.text(max_size=300))
def test_any_words_can_be_read(words: str) -> None:
    found = excess_told(words)
    assert found is None or found > 0
    said = read_error(openai_error(words))
    assert said is not None
    is_too_long(400, said)


# ---------------------------------------------------------------------- classes


@pytest.mark.parametrize(
    ("failure", "found"),
    [
        (of(429), "rate_limit"),
        (of(429, openai_error("You exceeded your current quota", "insufficient_quota")), "rate_limit"),
        (of(402, openai_error("Insufficient Balance")), "rate_limit"),
        (of(413, openai_error("Limit 6000 tokens per minute (TPM)", "rate_limit_exceeded")), "rate_limit"),
        (of(408), "timeout"),
        (of(504), "timeout"),
        (of(500), "server_error"),
        (of(529), "server_error"),
        (of(302), "server_error"),
        (of(204), "server_error"),
        (of(401), "credential"),
        (of(403, openai_error("Country, region, or territory not supported")), "credential"),
        (of(400, openai_error("API key not valid. Please pass a valid API key.")), "credential"),
        (of(400, openai_error("filtered", "content_filter")), "content_filter"),
        (
            of(400, openai_error("rejected by the safety system", "content_policy_violation")),
            "content_filter",
        ),
        (of(400, openai_error()), ""),
        (of(404, openai_error("no such model", "model_not_found")), ""),
        (Failure(CONNECT, ""), "server_error"),
        (Failure(CUT, ""), "server_error"),
        (Failure(MALFORMED, ""), "server_error"),
        (Failure(TIMEOUT, ""), "timeout"),
        (Failure(AUTH, ""), "credential"),
        (Failure(FILTERED, ""), "content_filter"),
        (Failure(FORBIDDEN, ""), ""),
    ],
)
def test_every_failure_has_its_class(failure: Failure, found: str) -> None:
    assert failure.failure_class == found
    assert describe(failure)


# ---------------------------------------------------------------------- what the caller is told


@pytest.mark.parametrize(
    ("status", "body", "told", "code"),
    [
        (400, openai_error("bad", "invalid_value"), "own", ""),
        (400, b"<html>Bad Request</html>", 502, "upstream_error"),
        (400, b"", 502, "upstream_error"),
        (400, b'{"error":', 502, "upstream_error"),
        (400, b'"text"', 502, "upstream_error"),
        (400, b'{"error": null}', 502, "upstream_error"),
        (400, b'{"detail": [{"loc": ["body"], "msg": "field required"}]}', "own", ""),
        (401, openai_error(f"Incorrect API key provided: {SECRET}", "invalid_api_key"), 502, "upstream_auth"),
        (402, openai_error("Insufficient Balance"), 429, "insufficient_quota"),
        (403, openai_error("Country not supported"), 502, "upstream_auth"),
        (404, openai_error("The model does not exist", "model_not_found"), 502, "upstream_error"),
        (404, openai_error("Resource not found", "404"), 502, "upstream_error"),
        (
            404,
            openai_error("The API deployment for this resource does not exist", "DeploymentNotFound"),
            502,
            "upstream_error",
        ),
        (404, openai_error("File not found", "file_not_found"), "own", ""),
        (404, openai_error("not there", None, param="previous_response_id"), "own", ""),
        (405, openai_error(), 502, "upstream_error"),
        (408, b"", 504, "upstream_timeout"),
        (409, openai_error("conflict"), "own", ""),
        (413, openai_error("too big"), "own", ""),
        (413, b"<html>", 502, "upstream_error"),
        (422, openai_error("odd"), "own", ""),
        (429, openai_error("slow down, org-abc123", "rate_limit_exceeded"), 429, "rate_limit_exceeded"),
        (429, b"<html>", 429, "rate_limit_exceeded"),
        (
            429,
            openai_error("You exceeded your current quota", "insufficient_quota"),
            429,
            "insufficient_quota",
        ),
        (500, openai_error("trace"), 502, "upstream_error"),
        (503, b"", 502, "upstream_error"),
        (504, b"", 504, "upstream_timeout"),
        (301, b"", 502, "upstream_error"),
        (204, b"", 502, "upstream_error"),
        (201, b"{}", 502, "upstream_error"),
    ],
)
def test_whose_fault_it_is_and_what_is_said(status: int, body: bytes, told: Any, code: str) -> None:
    failure = of(status, body)
    if told == "own":
        assert failure.callers_own
        assert failure.body is not None
        assert set(json.loads(failure.body)["error"]) == {"message", "type", "param", "code"}
        return
    assert not failure.callers_own
    error = failure.error(TARGET)
    assert (error.status, error.code) == (told, code)
    assert "org-abc123" not in error.message
    assert SECRET not in error.message


def test_a_model_that_the_provider_does_not_know_is_for_the_operator() -> None:
    error = of(404, openai_error("nope", "model_not_found")).error(TARGET)
    assert "'sim-small'" in error.message
    assert "operator" in error.message


@pytest.mark.parametrize("status", [429, 503, 500, 504])
def test_when_to_come_back_is_kept(status: int) -> None:
    assert of(status, retry_after=7.0).error(TARGET).retry_after == 7.0


@pytest.mark.parametrize(
    ("raw", "status", "kind"),
    [
        (b'{"message": "overloaded", "code": 503}', 503, STATUS),
        (b'{"message": "slow", "code": "429"}', 429, STATUS),
        (b'{"message": "bad", "code": 400}', 400, STATUS),
        (b'{"message": "key", "code": 401}', 401, AUTH),
        (b'{"message": "soft"}', 502, STATUS),
        (b'{"message": "odd", "code": 99999}', 502, STATUS),
        (b'"text"', 502, STATUS),
        (b"7", 502, STATUS),
    ],
)
def test_an_error_with_status_200_is_what_it_says_it_is(raw: bytes, status: int, kind: str) -> None:
    failure = failure_in_answer(raw, secret=SECRET)
    assert (failure.status, failure.kind) == (status, kind)


@given(st.integers(201, 599), st.binary(max_size=200) | st.builds(lambda text: json.dumps(text).encode(), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["error", "message", "code", "type", "param", "detail", "msg", "x"]), inner, max_size=4),
    max_leaves=8,
)))  # fmt: skip
def test_whatever_a_provider_sends_becomes_a_failure_with_an_error(status: int, body: bytes) -> None:
    failure = of(status, body)
    assert failure.failure_class in CLASSES
    error = failure.error(TARGET, param="messages")
    assert error.status in (400, 429, 502, 504)
    assert error.message
    if failure.kind != AUTH:
        assert failure.body is None or set(json.loads(failure.body)) == {"error"}
    assert not (failure.callers_own and failure.counts)
    assert describe(failure)
    if status in (401, 403):
        assert (error.status, error.code) == (502, "upstream_auth")
