"""Failures of providers: what is tried again, what falls back, and what the caller is told in the end."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from llmops.providers.rules import REFUSALS_OF_A_BURST
from llmops.usage.records import CredentialSeen, Ended
from tests.gateway.rig import (
    SECRET,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_credential,
    a_model,
    a_provider,
    a_route,
    answers,
    completion,
    cuts,
    fails,
    hangs,
)

IN, OUT = 1_000, 10_000  # nanodollars a token, as a_model has it


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
async def test_what_may_be_better_in_a_moment_is_tried_again(rig: Rig, status: int) -> None:
    rig.configure(budgets=[a_budget()])
    rig.upstream.does(fails(status), answers("at last"))
    answer = await rig.chat()
    assert (answer.status, answer.headers["x-llmops-attempts"]) == (200, "2")
    first, second = [one for one in rig.records() if isinstance(one, Ended)]
    assert (first.attempt, first.cost, first.outcome) == (1, 0, None)
    outcome = second.outcome
    assert (outcome.retries, outcome.fallbacks, outcome.cost) == (1, 0, 10 * IN + 5 * OUT)
    assert [(one.status, one.cost) for one in outcome.attempts] == [(status, 0), (200, outcome.cost)]
    assert outcome.attempts[1].why == f"again after status {status}"


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_the_caller_did_wrong_is_passed_on_in_the_providers_words(rig: Rig, status: int) -> None:
    rig.configure(budgets=[a_budget()])
    rig.upstream.does(fails(status, "some_code", "messages[0]: too odd"))
    answer = await rig.chat()
    assert answer.status == status
    assert answer.error == {
        "message": "messages[0]: too odd",
        "type": "some_error",
        "param": None,
        "code": "some_code",
    }
    assert len(rig.upstream.asked) == 1
    assert (rig.outcome().status, rig.outcome().http, rig.outcome().cost) == ("error", status, 0)
    assert rig.outcome().code == f"upstream_{status}"


async def test_a_provider_that_stays_broken_is_a_502_after_all_attempts(rig: Rig) -> None:
    rig.configure(routes=[a_route(attempts=3)], budgets=[a_budget()])
    rig.upstream.does(fails(500, message="stack trace at /srv/secret.py"))
    answer = await rig.chat(model="chat")
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert "secret.py" not in answer.error["message"]
    assert len(rig.upstream.asked) == 3
    assert answer.headers["x-llmops-attempts"] == "3"
    assert (rig.outcome().status, rig.outcome().retries, rig.outcome().cost) == ("error", 2, 0)


async def test_a_providers_rate_limit_reaches_the_caller_as_one(rig: Rig) -> None:
    rig.configure(routes=[a_route(attempts=1)])
    rig.upstream.does(fails(429, "rate_limit_exceeded", "slow down", {"retry-after": "7"}))
    answer = await rig.chat(model="chat")
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    assert answer.error["code"] == "rate_limit_exceeded"


async def test_fallbacks_follow_in_order_and_say_so(rig: Rig) -> None:
    rig.configure(
        models=[a_model("first"), a_model("second"), a_model("third")],
        routes=[a_route("chat", "first", fallbacks=("second", "third"), attempts=3)],
        budgets=[a_budget()],
    )
    rig.upstream.does(fails(500), fails(503), answers("third time"))
    answer = await rig.chat(model="chat")
    assert [one.json["model"] for one in rig.upstream.asked] == ["sim-first", "sim-second", "sim-third"]
    assert (answer.headers["x-llmops-model"], answer.headers["x-llmops-fallback"]) == ("third", "true")
    assert (rig.outcome().fallbacks, rig.outcome().retries) == (2, 0)


async def test_a_retired_model_falls_back_without_being_asked_twice(rig: Rig) -> None:
    rig.configure(
        models=[a_model("first"), a_model("second")],
        routes=[a_route("chat", "first", fallbacks=("second",), attempts=4)],
    )
    rig.upstream.does(fails(404, "model_not_found"), answers())
    answer = await rig.chat(model="chat")
    assert answer.status == 200
    assert [one.json["model"] for one in rig.upstream.asked] == ["sim-first", "sim-second"]


async def test_a_cap_is_lowered_to_what_a_fallback_can_do(rig: Rig) -> None:
    rig.configure(
        models=[a_model("first"), a_model("second", max_output_tokens=50, default_max_output_tokens=50)],
        routes=[a_route("chat", "first", fallbacks=("second",), attempts=2)],
    )
    rig.upstream.does(fails(500), answers())
    answer = await rig.chat(model="chat", max_tokens=3_000)
    assert [one.json["max_tokens"] for one in rig.upstream.asked] == [3_000, 50]
    assert answer.headers["x-llmops-output-cap"] == "50"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_credential_gives_way_to_the_next(rig: Rig, status: int) -> None:
    old, new = (
        a_credential(secret="old-" + SECRET, name="old"),
        a_credential(secret="new-" + SECRET, name="new"),
    )
    rig.configure(credentials={"up": (old, new)})
    rig.upstream.does(fails(status), answers())
    assert (await rig.chat()).status == 200
    assert [one.headers["authorization"] for one in rig.upstream.asked] == [
        f"Bearer old-{SECRET}",
        f"Bearer new-{SECRET}",
    ]
    seen = [one for one in rig.records() if isinstance(one, CredentialSeen)]
    assert [(one.credential, one.status, one.code) for one in seen] == [(old.id, status, "refused")]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_provider_that_refuses_the_console_is_never_the_callers_401(rig: Rig, status: int) -> None:
    rig.configure(budgets=[a_budget()])
    rig.upstream.does(fails(status, "invalid_api_key", f"Incorrect API key provided: {SECRET}"))
    answer = await rig.chat()
    assert (answer.status, answer.error["code"]) == (502, "upstream_auth")
    assert SECRET.encode() not in answer.body
    assert (rig.outcome().code, rig.outcome().cost) == ("upstream_auth", 0)


async def test_a_credential_that_is_refused_again_and_again_is_noted_twice(rig: Rig) -> None:
    """At the first refusal, and when as many as make a burst came one after the other."""
    refusals = [fails(401)] * (REFUSALS_OF_A_BURST + 2)
    rig.upstream.does(*refusals, answers())
    for _ in range(len(refusals) + 2):
        await rig.chat()
    seen = [one for one in rig.records() if isinstance(one, CredentialSeen)]
    assert [one.code for one in seen] == ["refused", "refused", "accepted"]


@pytest.mark.parametrize("where", ["message", "code"])
async def test_a_secret_that_the_provider_echoes_does_not_reach_the_caller(rig: Rig, where: str) -> None:
    other = "sk-proj-" + "a1B2" * 12
    said = {"message": "bad", "code": "c"} | {where: f"your key {SECRET} or {other} is odd"}
    rig.upstream.does(fails(400, said["code"], said["message"]))
    answer = await rig.chat()
    assert answer.status == 400
    assert SECRET.encode() not in answer.body
    if where == "message":
        assert other.encode() not in answer.body
        assert b"is odd" in answer.body
    written = b"".join(path.read_bytes() for path in rig.directory.glob("*.jsonl"))
    assert SECRET.encode() not in written


@pytest.mark.parametrize("shown", [SECRET[:14] + "***", "..." + SECRET[-14:], SECRET[:-1]])
async def test_the_better_part_of_a_secret_does_not_reach_the_caller_either(rig: Rig, shown: str) -> None:
    rig.upstream.does(fails(400, "c", f"the key {shown} is odd"))
    answer = await rig.chat()
    assert answer.error["message"] == "the key [redacted] is odd"


async def test_a_secret_in_place_of_a_requests_name_is_not_written_down(rig: Rig) -> None:
    async def echoes(_: Asked, reply: Reply) -> None:
        await reply.json(completion("Hello", None), headers={"x-request-id": f"Bearer {SECRET}"})

    rig.upstream.does(echoes)
    assert (await rig.chat()).status == 200
    written = b"".join(path.read_bytes() for path in rig.directory.glob("*.jsonl"))
    assert SECRET.encode() not in written


async def test_a_cut_or_silent_attempt_is_charged_at_its_hold(rig: Rig) -> None:
    rig.configure(routes=[a_route(attempts=2)], budgets=[a_budget()])
    rig.upstream.does(cuts, answers())
    assert (await rig.chat(model="chat")).status == 200
    first, second = rig.ended()
    held = rig.held()[0]
    assert (first.cost, first.charges[0].cost) == (held.worst_cost, held.worst_cost)
    attempts = second.outcome.attempts
    assert attempts[0].code == "upstream_cut"
    assert "not known" in attempts[0].note
    assert second.outcome.cost == held.worst_cost + attempts[1].cost


async def test_a_provider_that_never_answers_is_a_504_within_the_time(rig: Rig) -> None:
    rig.configure(
        providers=[a_provider(base_url=rig.upstream.url, read_timeout_ms=150)],
        routes=[a_route(attempts=2)],
        budgets=[a_budget()],
    )
    rig.upstream.does(hangs)
    answer = await rig.chat(model="chat")
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    assert len(rig.upstream.asked) == 2
    assert rig.outcome().cost == sum(one.worst_cost for one in rig.held())


async def test_one_deadline_covers_all_attempts(rig: Rig) -> None:
    rig.configure(routes=[a_route(attempts=10, total_timeout_ms=400)], budgets=[a_budget()])
    rig.upstream.does(hangs)
    began = time.monotonic()
    answer = await rig.chat(model="chat")
    assert time.monotonic() - began < 3
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    assert rig.outcome().cost == rig.held()[0].worst_cost
    assert rig.outcome().http == 504


async def test_a_back_off_that_outlasts_the_deadline_is_not_begun(rig: Rig) -> None:
    rig.configure(routes=[a_route(attempts=3, total_timeout_ms=5_000)])
    rig.upstream.does(fails(503, headers={"retry-after": "60"}))
    began = time.monotonic()
    answer = await rig.chat(model="chat")
    assert answer.status == 502
    assert time.monotonic() - began < 3
    assert len(rig.upstream.asked) == 1


async def test_nothing_listens_there(rig: Rig) -> None:
    rig.configure(providers=[a_provider(base_url="http://127.0.0.1:9/v1")], budgets=[a_budget()])
    answer = await rig.chat()
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert rig.outcome().cost == 0
    assert rig.outcome().attempts[0].code == "upstream_connect"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>gateway</html>",
        b"[]",
        b'{"choices":',
        b'"text"',
        b"null",
        b'{"error":{"message":"soft"}}',
    ],
)
async def test_an_answer_that_is_none_is_an_upstream_error(rig: Rig, body: bytes) -> None:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(body)

    rig.configure(routes=[a_route(attempts=1)], budgets=[a_budget()])
    rig.upstream.does(script)
    answer = await rig.chat(model="chat")
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")


async def test_a_body_that_breaks_off_is_tried_again(rig: Rig) -> None:
    async def half(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "application/json", "content-length": "1000"})
        await reply.raw(b'{"id":')
        await asyncio.sleep(0.02)
        reply.cut()

    rig.upstream.does(half, answers())
    assert (await rig.chat()).status == 200


async def test_a_redirect_is_not_followed(rig: Rig) -> None:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(302, {"location": "http://127.0.0.1:1/steal", "content-length": "0"})

    rig.upstream.does(script)
    answer = await rig.chat()
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert len(rig.upstream.asked) == 1


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:PORT/v1",
        "http://[::1]:PORT/v1",
        "http://10.0.0.1/v1",
        "http://169.254.169.254/latest",
        "http://localhost:PORT/v1",
        "http://2130706433:PORT/v1",
        "http://[::ffff:127.0.0.1]:PORT/v1",
    ],
)
async def test_an_inside_address_is_refused_unless_the_provider_allows_it(
    rig: Rig, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", rig.upstream.url)
    port = rig.upstream.url.rpartition(":")[2].removesuffix("/v1")
    url = address.replace("PORT", port)
    rig.configure(providers=[a_provider(base_url=url, allow_private_network=False)], budgets=[a_budget()])
    answer = await rig.chat()
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert rig.upstream.asked == []
    assert (rig.outcome().cost, len(rig.outcome().attempts)) == (0, 1)


async def test_a_name_that_leads_inside_is_refused_when_it_is_looked_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmops.providers.guarded_names import SystemNames

    async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> list[dict[str, Any]]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 6, "flags": 0}]

    monkeypatch.setattr(SystemNames, "resolve", resolve)
    port = rig.upstream.url.rpartition(":")[2].removesuffix("/v1")
    url = f"http://models.example.com:{port}/v1"
    rig.configure(providers=[a_provider(base_url=url, allow_private_network=False)])
    refused = await rig.chat()
    assert (refused.status, rig.upstream.asked) == (502, [])
    assert "loopback" in refused.error["message"]
    rig.configure(providers=[a_provider(base_url=url, allow_private_network=True)])
    assert (await rig.chat()).status == 200
