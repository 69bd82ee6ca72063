"""Whoever is refused is told what to do next, and what an operator has switched off is recorded as refused, not as failed."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llmops.gateway.kept.owners import FILE
from tests.gateway.rig import (
    KEY,
    Answer,
    Rig,
    a_key,
    a_provider,
    a_route,
    ask,
    cuts,
    fails,
)

#: Each of these is a step: something that a caller can do, or can ask an operator for.
STEP = re.compile(
    r"\b(try again|use (?:a key|another|a model)|send|name|ask an operator|GET /v1/models|ask for|an operator can|make)\b",
    re.IGNORECASE,
)
CHAT = "/v1/chat/completions"


def provider(rig: Rig, slug: str = "up", **changes: Any) -> Any:
    return a_provider(slug, base_url=rig.upstream.url, **changes)


async def asked(rig: Rig, **members: Any) -> Answer:
    return await rig.call(ask(**members))


async def no_scope(rig: Rig) -> Answer:
    rig.configure(keys={KEY: a_key(scopes=frozenset({"metrics"}))})
    return await asked(rig)


async def no_metrics_scope(rig: Rig) -> Answer:
    return await rig.call(b"", path="/metrics", method="GET")


async def no_key(rig: Rig) -> Answer:
    return await rig.call(ask(), key=None)


async def unknown_key(rig: Rig) -> Answer:
    return await rig.call(ask(), key="llmops_nobody")


async def route_not_allowed(rig: Rig) -> Answer:
    rig.configure(keys={KEY: a_key(allowed_routes=frozenset())}, routes=[a_route()])
    return await asked(rig, model="chat")


async def model_not_allowed(rig: Rig) -> Answer:
    rig.configure(keys={KEY: a_key(allowed_models=frozenset())})
    return await asked(rig)


async def unknown_model(rig: Rig) -> Answer:
    return await asked(rig, model="none")


async def route_paused(rig: Rig) -> Answer:
    rig.configure(routes=[a_route()], paused_routes={"chat": "wrong answers"})
    return await asked(rig, model="chat")


async def route_degraded(rig: Rig) -> Answer:
    rig.configure(routes=[a_route()], degraded_routes={"chat": "an outage"})
    return await asked(rig, model="chat")


async def provider_paused(rig: Rig) -> Answer:
    rig.configure(paused_providers={"up": "an outage"})
    return await asked(rig)


async def files_paused(rig: Rig) -> Answer:
    key = a_key()
    rig.configure(keys={KEY: key}, paused_providers={"up": ""})
    rig.plane.objects.made(FILE, "file-1", key=key, provider="up")
    return await rig.call(b"", path="/v1/files/file-1", method="GET")


async def no_credential(rig: Rig) -> Answer:
    rig.configure(credentials={"up": ()})
    return await asked(rig)


async def no_credential_for_files(rig: Rig) -> Answer:
    rig.configure(credentials={"up": ()})
    return await rig.call(b"", path="/v1/files", method="GET")


async def provider_gone(rig: Rig) -> Answer:
    key = a_key()
    rig.configure(keys={KEY: key})
    rig.plane.objects.made(FILE, "file-1", key=key, provider="old")
    return await rig.call(b"", path="/v1/files/file-1", method="GET")


async def policy_unusable(rig: Rig) -> Answer:
    rig.configure(routes=[a_route(policies=("gone",))])
    return await asked(rig, model="chat")


async def circuit_open(rig: Rig) -> Answer:
    rig.configure(routes=[a_route(breaker_min_calls=1, attempts=1)])
    rig.upstream.does(fails(500))
    await asked(rig, model="chat")
    return await asked(rig, model="chat")


def provider_says(status: int, **how: Any) -> Callable[[Rig], Awaitable[Answer]]:
    async def failing(rig: Rig) -> Answer:
        rig.configure(routes=[a_route(attempts=1)])
        rig.upstream.does(fails(status, **how))
        return await asked(rig, model="chat")

    return failing


async def provider_cuts(rig: Rig) -> Answer:
    rig.configure(routes=[a_route(attempts=1)])
    rig.upstream.does(cuts)
    return await asked(rig, model="chat")


async def provider_away(rig: Rig) -> Answer:
    rig.configure(routes=[a_route(attempts=1)], providers=[a_provider(base_url="http://127.0.0.1:9/v1")])
    return await asked(rig, model="chat")


async def provider_is_no_api(rig: Rig) -> Answer:
    return await provider_says(404, message="nothing here")(rig)


async def files_are_not_offered(rig: Rig) -> Answer:
    rig.upstream.does(fails(405))
    return await rig.call(b"", path="/v1/files", method="GET")


#: situation -> (status, code, how the call is recorded, "" for not at all)
REFUSED, ERROR = "refused", "error"
TABLE: list[tuple[Callable[[Rig], Awaitable[Answer]], int, str, str]] = [
    (no_scope, 403, "permission_denied", REFUSED),
    (no_metrics_scope, 403, "permission_denied", ""),
    (no_key, 401, "invalid_api_key", ""),
    (unknown_key, 401, "invalid_api_key", ""),
    (route_not_allowed, 403, "permission_denied", REFUSED),
    (model_not_allowed, 403, "permission_denied", REFUSED),
    (unknown_model, 404, "model_not_found", REFUSED),
    (route_paused, 503, "route_paused", REFUSED),
    (route_degraded, 503, "route_degraded", REFUSED),
    (provider_paused, 503, "provider_paused", REFUSED),
    (files_paused, 503, "provider_paused", REFUSED),
    (no_credential, 502, "upstream_auth", ERROR),
    (no_credential_for_files, 502, "upstream_auth", ERROR),
    (provider_gone, 503, "provider_missing", ERROR),
    (policy_unusable, 503, "policy_unusable", ERROR),
    (circuit_open, 503, "circuit_open", ERROR),
    (provider_says(500), 502, "upstream_error", ERROR),
    (provider_says(401), 502, "upstream_auth", ERROR),
    (provider_says(429, code="insufficient_quota"), 429, "insufficient_quota", ERROR),
    (provider_says(429), 429, "rate_limit_exceeded", ERROR),
    (provider_says(504), 504, "upstream_timeout", ERROR),
    (provider_cuts, 502, "stream_interrupted", ERROR),
    (provider_away, 502, "upstream_error", ERROR),
    (files_are_not_offered, 502, "upstream_error", ERROR),
]


@pytest.mark.parametrize(("situation", "status", "code", "recorded"), TABLE)
async def test_every_error_says_what_to_do_next(
    rig: Rig, situation: Callable[[Rig], Awaitable[Answer]], status: int, code: str, recorded: str
) -> None:
    answer = await situation(rig)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert STEP.search(answer.error["message"]), answer.error["message"]
    outcomes = [one.outcome for one in rig.ended() if one.outcome is not None]
    if recorded:
        last = outcomes[-1]
        assert (last.status, last.http) == (recorded, status)
        assert last.bytes_out == len(answer.body), "what went out is counted, though it is an error"
    else:
        assert not outcomes


async def test_a_refusal_that_passes_says_when(rig: Rig) -> None:
    answer = await circuit_open(rig)
    assert "retry-after" in answer.error["message"]
    assert int(answer.headers["retry-after"]) >= 1
