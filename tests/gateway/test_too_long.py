"""That an input does not fit, in every provider's words, and by how much."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.gateway.attempts.failures import (
    STATUS,
    TOO_LONG,
)
from llmops.gateway.attempts.said import read_error
from llmops.gateway.attempts.too_long import excess_told, is_too_long
from tests.gateway.test_failures import TARGET, of, openai_error

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
