"""Decisions about names, addresses and masks that need no database."""

from __future__ import annotations

import pytest

from llmops.providers import rules


@pytest.mark.parametrize(
    ("kind", "name", "floats"),
    [
        ("openai", "gpt-4o", True),
        ("openai", "gpt-4o-mini", True),
        ("openai", "gpt-5", True),
        ("openai", "chatgpt-4o-latest", True),
        ("openai", "o3", True),
        ("openai", "gpt-4o-2024-08-06", False),
        ("openai", "gpt-4-0613", False),
        ("openai", "text-embedding-3-small", False),
        ("openai", "ft:gpt-4o-2024-08-06:acme::abc", False),
        ("azure", "gpt-4o", True),
        ("azure", "gpt-4o-2024-08-06", False),
        ("compatible", "llama-3", False),
        ("simulator", "sim-gpt-4o", False),
    ],
)
def test_names_that_may_change_their_meaning(kind, name, floats):
    assert rules.looks_floating(kind, name) is floats


@pytest.mark.parametrize(
    "url",
    [
        "", "api.openai.com/v1", "ftp://api.openai.com", "http://api.openai.com/v1", "https://", "https:///v1",
        "https://user:secret@api.openai.com/v1", "https://token@api.openai.com/v1", "https://@api.openai.com/v1",
        "https://api.openai.com/v1?key=1", "https://api.openai.com/v1#x", "https://api.openai.com/v1?",
        "https://127.0.0.1/v1", "https://localhost/v1", "https://[::1]/v1", "https://10.0.0.5/v1",
        "https://169.254.169.254/latest", "https://api.openai.com:0/v1", "https://api.openai.com:99999/v1",
        "https://api.openai.com\\@127.0.0.1/v1", "https://api.open ai.com/v1", "https://api.openai.com/v1\nHost: x",
        "https://2130706433/v1", "https://[::ffff:127.0.0.1]/v1", "javascript:alert(1)", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_base_urls_that_are_refused(url):
    assert rules.url_problem(url, allow_private=False) is not None


@pytest.mark.parametrize(
    "url", ["https://api.openai.com/v1", "https://x.openai.azure.com/openai/v1", "https://h.example:8443/v1"]
)
def test_base_urls_that_pass(url):
    assert rules.url_problem(url, allow_private=False) is None


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        ("https://x.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2024-10-21", "x.openai.azure.com"),
        ("https://x.openai.azure.com/openai/deployments/gpt", "x.openai.azure.com"),
        ("https://x.openai.azure.com/openai/v1?api-version=preview", "x.openai.azure.com"),
        ("https://x.openai.azure.com/openai", "x.openai.azure.com"),
        ("https://X.openai.azure.com", "x.openai.azure.com"),
        ("https://x.cognitiveservices.azure.com/v1", "x.cognitiveservices.azure.com"),
        ("https://apim.example/openai/deployments/gpt?API-VERSION=1", "NAME.openai.azure.com"),
    ],
)  # fmt: skip
def test_addresses_of_azures_older_api_are_refused_with_what_to_enter_instead(url, instead):
    problem = rules.url_problem(url, allow_private=False)
    assert f"https://{instead}/openai/v1" in problem
    assert "the name of the deployment as the model's name" in problem


def test_private_networks_allow_plain_http_and_private_hosts_and_no_more():
    assert rules.url_problem("http://10.0.0.5:8000/v1", allow_private=True) is None
    assert rules.url_problem("http://localhost:8000/v1", allow_private=True) is None
    assert rules.url_problem("http://169.254.169.254/v1", allow_private=True) is not None
    assert rules.url_problem("http://user:pw@10.0.0.5/v1", allow_private=True) is not None


@pytest.mark.parametrize(
    ("url", "passes"),
    [
        ("", True),
        ("http://proxy.example.com:3128", True),
        ("http://10.0.0.5:3128/", True),
        ("https://proxy.example.com", False),
        ("http://user:pw@proxy.example.com", False),
        ("http://169.254.169.254", False),
        ("http://proxy.example.com/path", False),
        ("proxy.example.com", False),
        ("http://proxy:99999999", False),
    ],
)
def test_proxies(url, passes):
    assert (rules.proxy_problem(url) is None) is passes


@pytest.mark.parametrize(
    "text",
    ["****", "********************", "sk-pr****************7890", "sk-…abcd", "sk-abc...wxyz", "••••••••", "xxxxxxxx",
     "XXXX", "[redacted]", "[REDACTED]", "<hidden>", "sk-proj-•••"],
)  # fmt: skip
def test_masks_are_told_from_keys(text):
    assert rules.looks_masked(text)


@pytest.mark.parametrize(
    "text",
    ["sk-proj-Ab3_x-9xXxX12345", "simulator-needs-no-key", "0123456789abcdef", "a.b-c_d", "sk-xx-1",
     "AIzaSyA.bc-de_f..g", "eyJhbGciOi.J9eyJ.abc-_"],
)  # fmt: skip
def test_keys_are_not_masks(text):
    assert not rules.looks_masked(text)


@pytest.mark.parametrize(
    "parameters",
    [
        [], "x", {"model": "x"}, {"stream": True}, {"max_tokens": 5}, {"n": 2}, {"service_tier": "priority"}, {"store": True},
        {"api_key": "x"}, {"authorization": "x"}, {"": 1}, {"a b": 1}, {1: 2}, {"a": float("nan")},
        {"a": float("inf")}, {"a": "x" * 9000}, {"a": "\x00"}, {"a": "\ud800"}, {"a": ["b\n"]}, {"a": object()},
    ],
)  # fmt: skip
def test_request_defaults_that_are_refused(parameters):
    assert rules.parameters_problem(parameters) is not None


def test_request_defaults_that_pass():
    assert rules.parameters_problem({}) is None
    assert (
        rules.parameters_problem({"temperature": 0.2, "stop": ["a", "ß"], "logit_bias": {"50256": -100}})
        is None
    )


def test_no_state_of_a_key_is_left_once_revoked_and_every_state_is_reachable():
    states = {state for state, _ in rules.CREDENTIAL_STATES}
    assert set(rules.CREDENTIAL_MOVES) == states
    assert rules.CREDENTIAL_MOVES["revoked"] == frozenset()
    assert all("revoked" in moves for state, moves in rules.CREDENTIAL_MOVES.items() if state != "revoked")
    reached = {"staged"}
    while more := {to for state in reached for to in rules.CREDENTIAL_MOVES[state]} - reached:
        reached |= more
    assert reached == states
