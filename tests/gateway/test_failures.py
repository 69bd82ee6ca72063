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
    Failure,
    describe,
)
from llmops.gateway.attempts.refusals import failure_in_answer, failure_of_error
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
        (of(400, openai_error("Invalid API key")), "credential"),
        (of(422, openai_error("The provided API key is invalid.")), "credential"),
        # What a caller sent, told again, says nothing of the console's own key.
        (
            of(
                400,
                openai_error(
                    "Invalid value: 'invalid api key'. Supported values are: 'text'.", "invalid_value"
                ),
            ),
            "",
        ),
        (of(400, openai_error("'invalid api key' is not one of ['auto', 'none']")), ""),
        (of(400, openai_error("Invalid API key: no such tool", param="tools[0].name")), ""),
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
