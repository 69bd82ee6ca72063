"""Calls that go upstream: what is sent, what is relayed, what is written down and when, what it costs."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from typing import Any

import pytest

from llmops.core.errors import ServiceUnavailable
from llmops.core.tokens import count_chat, count_text
from llmops.gateway import call as call_module
from llmops.gateway.kept.objects import AUDIO, FILE
from llmops.gateway.money.bank import Short
from llmops.serving.snapshot import PriceRow
from llmops.usage.records import CredentialSeen, Ended, Held
from tests.gateway.rig import (
    DONE,
    KEY,
    SECRET,
    USD,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_credential,
    a_key,
    a_model,
    a_provider,
    a_route,
    answers,
    ask,
    chunk,
    completion,
    cuts,
    eventually,
    fails,
    hangs,
    streams,
    usage,
    usage_chunk,
)

IN, OUT = 1_000, 10_000  # nanodollars a token, as a_model has it


# ---------------------------------------------------------------------- a good call


async def test_the_answer_is_the_providers_bytes_and_the_call_is_written_down(rig: Rig) -> None:
    rig.configure(budgets=[a_budget(limit_nano=USD)], routes=[a_route()])
    body = json.dumps(completion("Grüße \u2028"), indent=1).encode()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(body, headers={"x-request-id": "req_up", "openai-processing-ms": "12"})

    rig.upstream.does(script)
    answer = await rig.chat(model="chat", temperature=0.5, unknown_member={"a": [1.50, None]})
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["content-type"] == "application/json"
    assert {name: answer.headers[name] for name in answer.headers if name.startswith("x-llmops")} == {
        "x-llmops-call-id": rig.ended()[0].origin.call,
        "x-llmops-model": "small",
        "x-llmops-attempts": "1",
        "x-llmops-fallback": "false",
        "x-llmops-cache": "off",
        "x-llmops-output-cap": "100",
    }
    held, ended = rig.records()[1:]
    assert isinstance(held, Held)
    assert isinstance(ended, Ended)
    sent = json.dumps(ask("chat", temperature=0.5, unknown_member={"a": [1.50, None]}))
    worst = len(sent) * IN + 100 * OUT
    cost = 10 * IN + 5 * OUT
    assert (held.model, held.provider, held.cap, held.worst_cost) == ("small", "up", 100, worst)
    assert [(one.window, one.held) for one in held.charges] == [(1, worst)]
    assert [(one.window, one.held, one.cost, one.overrun) for one in ended.charges] == [(1, worst, cost, 0)]
    outcome = ended.outcome
    assert outcome is not None
    assert (outcome.status, outcome.http, outcome.finish, outcome.upstream_model) == (
        "ok",
        200,
        "stop",
        "sim-small-2024",
    )
    assert (outcome.tokens.input, outcome.tokens.output, outcome.cost, ended.cost) == (10, 5, cost, cost)
    assert not outcome.tokens.estimated
    assert (outcome.provider_request, outcome.provider_us) == ("req_up", 12_000)
    assert ended.origin == held.origin
    assert (ended.origin.route, ended.origin.revision, ended.origin.bytes_in) == ("chat", 7, len(sent))
    assert outcome.bytes_out == len(body)
    [attempt] = outcome.attempts
    assert (attempt.n, attempt.status, attempt.code, attempt.cost) == (1, 200, "", cost)


async def test_what_goes_upstream_is_the_request_with_its_model_and_cap(rig: Rig) -> None:
    rig.configure(models=[a_model(parameters={"temperature": 0.1, "seed": 7})])
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "x": 1e-9}}}]
    await rig.chat(tools=tools, temperature=0.9, metadata={"k": "v"}, user="u")
    [asked] = rig.upstream.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.json == ask(
        "sim-small", tools=tools, temperature=0.9, metadata={"k": "v"}, user="u", seed=7, max_tokens=100
    )
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.headers["user-agent"].startswith("llmops-console")
    assert "x-llmops-attempt-id" not in asked.headers
    assert KEY not in json.dumps(asked.headers)


async def test_members_that_need_not_change_keep_their_very_bytes(rig: Rig) -> None:
    odd = b'[ {"content" : "\\u00e9\\/ \\ud83d\\ude00", "role":"user", "x": 1.0e+2, "y":12345678901234567890123} ]'
    await rig.call(b'{"messages":' + odd + b',"model":"small","seed":  1E3}')
    assert odd in rig.upstream.asked[0].body
    assert b"1E3" in rig.upstream.asked[0].body


@pytest.mark.parametrize(
    ("kind", "given", "sent"),
    [
        ("openai", {}, {"max_completion_tokens": 100}),
        ("compatible", {}, {"max_tokens": 100}),
        ("openai", {"max_tokens": 7}, {"max_tokens": 7}),
        ("compatible", {"max_completion_tokens": 7}, {"max_completion_tokens": 7}),
        (
            "openai",
            {"max_tokens": 9, "max_completion_tokens": 7},
            {"max_tokens": 9, "max_completion_tokens": 7},
        ),
    ],
)
async def test_the_output_is_capped_under_the_name_that_the_provider_knows(
    rig: Rig, kind: str, given: dict[str, int], sent: dict[str, int]
) -> None:
    rig.configure(providers=[a_provider(base_url=rig.upstream.url, kind=kind)])
    answer = await rig.chat(**given)
    found = {name: value for name, value in rig.upstream.asked[0].json.items() if name.startswith("max_")}
    assert found == sent
    assert ("x-llmops-output-cap" in answer.headers) == (not given)


async def test_providers_are_spoken_to_in_their_own_way(rig: Rig) -> None:
    rig.configure(
        providers=[
            a_provider("az", rig.upstream.url, kind="azure"),
            a_provider(
                "sim", rig.upstream.url + "/", kind="simulator", organization="org-1", provider_project="p-1"
            ),
        ],
        models=[a_model("a", "az"), a_model("s", "sim")],
    )
    await rig.chat(model="a")
    answer = await rig.chat(model="s")
    azure, simulator = rig.upstream.asked
    assert azure.headers["api-key"] == SECRET
    assert "authorization" not in azure.headers
    assert simulator.headers["x-llmops-attempt-id"] == answer.headers["x-llmops-call-id"] + ".1"
    assert (simulator.headers["openai-organization"], simulator.headers["openai-project"]) == ("org-1", "p-1")


async def test_cached_and_reasoning_tokens_are_priced_as_what_they_are(rig: Rig) -> None:
    prices = (
        PriceRow("input", 0, 2 * USD),
        PriceRow("cached_input", 0, USD // 2),
        PriceRow("output", 0, 8 * USD),
        PriceRow("reasoning", 0, 9 * USD),
    )
    rig.configure(models=[a_model(prices=prices)], budgets=[a_budget()])
    rig.upstream.does(answers(used=usage(100, 50, cached=60, reasoning=20)))
    await rig.chat()
    cost = 40 * 2_000 + 60 * 500 + 30 * 8_000 + 20 * 9_000
    assert rig.outcome().cost == cost
    tokens = rig.outcome().tokens
    assert (tokens.input, tokens.cached, tokens.output, tokens.reasoning) == (100, 60, 50, 20)


async def test_embeddings_cost_their_input(rig: Rig) -> None:
    rig.configure(models=[a_model("e", prices=(PriceRow("input", 0, USD),))], budgets=[a_budget()])

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json({"object": "list", "data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}})

    rig.upstream.does(script)
    answer = await rig.call({"model": "e", "input": ["a", "b"], "dimensions": 5}, path="/v1/embeddings")
    assert answer.status == 200
    [asked] = rig.upstream.asked
    assert (asked.path, asked.json) == (
        "/v1/embeddings",
        {"model": "sim-e", "input": ["a", "b"], "dimensions": 5},
    )
    assert (rig.outcome().cost, rig.outcome().tokens.input) == (8 * IN, 8)
    assert rig.ended()[0].origin.endpoint == "embeddings"
    assert "x-llmops-output-cap" not in answer.headers


# ---------------------------------------------------------------------- order of what is written


async def test_the_hold_is_written_before_the_request_and_the_end_before_the_answer(rig: Rig) -> None:
    seen: list[int] = []

    async def script(asked: Asked, reply: Reply) -> None:
        seen.append(len(rig.held()))
        await reply.json(completion())

    rig.upstream.does(script)
    exchange = rig.start(ask())
    await exchange.answer.until(lambda answer: answer.status != 0)
    assert len(rig.ended()) == 1
    await exchange.done()
    assert seen == [1]


async def test_the_end_of_a_stream_is_written_before_done(rig: Rig) -> None:
    release = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await reply.chunk(chunk("one"))
        await release.wait()
        await reply.chunk(usage_chunk() + DONE)
        await reply.raw(b"0\r\n\r\n")

    rig.upstream.does(script)
    exchange = rig.start(ask(stream=True))
    await exchange.answer.until(lambda answer: b"one" in answer.body)
    assert rig.ended() == []
    release.set()
    await exchange.answer.until(lambda answer: b"[DONE]" in answer.body)
    assert len(rig.ended()) == 1
    await exchange.done()


async def test_a_journal_that_can_not_be_written_stops_calls_before_they_cost(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.configure(budgets=[a_budget()])

    def full(record: Any) -> None:
        raise ServiceUnavailable("no space")

    with monkeypatch.context() as patch:
        patch.setattr(rig.journal, "append", full)
        answer = await rig.chat()
        assert (answer.status, answer.error["code"]) == (503, "service_unavailable")
    assert rig.upstream.asked == []
    ready = await rig.call(b"", method="GET", path="/readyz", key=None)
    assert ready.json == {"status": "journal"}
    rig.plane.write_kept()
    assert (await rig.call(b"", method="GET", path="/readyz", key=None)).status == 200
    assert (await rig.chat()).status == 200


async def test_an_end_that_can_not_be_written_is_kept_and_written_later(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = rig.journal.append

    def only_holds(record: Any) -> None:
        if isinstance(record, Ended):
            raise ServiceUnavailable("no space")
        append(record)

    with monkeypatch.context() as patch:
        patch.setattr(rig.journal, "append", only_holds)
        assert [(await rig.chat()).status for _ in range(3)] == [200, 200, 200]
    assert rig.ended() == []
    rig.plane.write_kept()
    assert len(rig.ended()) == 3
    assert [one.n for one in rig.records()] == list(range(1, 8))


# ---------------------------------------------------------------------- usage that is missing or absurd


@pytest.mark.parametrize(
    "used",
    [
        "absent",
        None,
        "many",
        {"prompt_tokens": "10", "completion_tokens": "5"},
        {"prompt_tokens": -1, "completion_tokens": 5},
        {"prompt_tokens": 10, "completion_tokens": -5},
        {"prompt_tokens": 10**15, "completion_tokens": 10**15},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 1.5, "completion_tokens": 2},
        [1],
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_are_counted_where_the_usage_can_not_be_believed(
    rig: Rig, used: Any, stream: bool
) -> None:
    text = "The quick brown fox jumps over the lazy dog."
    rig.configure(budgets=[a_budget()])
    if stream:
        last = [] if used == "absent" else [chunk(choices=[], used=used)]
        rig.upstream.does(streams(chunk(text), chunk(finish="stop"), *last, DONE))
    else:
        shown = completion(text)
        if used == "absent":
            del shown["usage"]
        else:
            shown["usage"] = used
        rig.upstream.does(answers(**shown))

        async def script(asked: Asked, reply: Reply) -> None:
            await reply.json(shown)

        rig.upstream.does(script)
    answer = await rig.chat(stream=stream)
    assert answer.status == 200
    tokens = rig.outcome().tokens
    assert tokens.estimated
    assert tokens.output == count_text(text, "sim-small")
    assert tokens.input == count_chat(ask()["messages"], "sim-small")
    assert rig.outcome().cost == tokens.input * IN + tokens.output * OUT
    assert rig.outcome().attempts[0].note


async def test_hidden_reasoning_without_usage_is_charged_at_the_hold(rig: Rig) -> None:
    rig.configure(models=[a_model(capabilities=("chat", "reasoning"))], budgets=[a_budget()])
    rig.upstream.does(streams(chunk("x"), DONE))
    await rig.chat(stream=True)
    [held], [ended] = rig.held(), rig.ended()
    assert ended.cost == held.worst_cost
    assert "charged at its hold" in ended.outcome.attempts[0].note


async def test_a_bill_beyond_the_hold_is_an_overrun(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])
    rig.upstream.does(answers(used=usage(5_000, 5_000)))
    await rig.chat()
    [held], [ended] = rig.held(), rig.ended()
    cost = 5_000 * IN + 5_000 * OUT
    [charge] = ended.charges
    assert (charge.held, charge.cost, charge.overrun) == (
        held.worst_cost,
        held.worst_cost,
        cost - held.worst_cost,
    )
    assert ended.outcome.cost == cost


# ---------------------------------------------------------------------- streams


async def test_a_stream_is_relayed_byte_for_byte_when_usage_was_asked_for(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])
    pieces = [
        chunk("Hel", used=None),
        b": comment\n\n" + chunk("lo", used=None),
        chunk(finish="stop"),
        usage_chunk(),
        DONE,
    ]
    rig.upstream.does(streams(*pieces))
    answer = await rig.chat(stream=True, stream_options={"include_usage": True, "other": 1})
    assert answer.body == b"".join(pieces)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert rig.upstream.asked[0].json["stream_options"] == {"include_usage": True, "other": 1}
    assert (rig.outcome().cost, rig.outcome().finish, rig.outcome().status) == (
        10 * IN + 5 * OUT,
        "stop",
        "ok",
    )
    assert rig.outcome().ttft_us > 0
    assert rig.ended()[0].origin.streamed


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None, "x": 2}])
async def test_usage_is_asked_for_and_hidden_where_the_client_did_not_ask(rig: Rig, options: Any) -> None:
    rig.configure(budgets=[a_budget()])
    rig.upstream.does(streams(chunk("a", used=None), chunk(finish="stop", used=None), usage_chunk(), DONE))
    members = {} if options is None else {"stream_options": options}
    answer = await rig.chat(stream=True, **members)
    assert answer.body == chunk("a") + chunk(finish="stop") + DONE
    assert rig.upstream.asked[0].json["stream_options"] == (options or {}) | {"include_usage": True}
    assert rig.outcome().cost == 10 * IN + 5 * OUT


@pytest.mark.parametrize(
    "broken",
    [
        [chunk("one"), chunk("two")],
        [chunk("one"), chunk(finish="stop")],
        [chunk("one"), chunk("two")[:30]],
        [chunk("one"), b"data: {broken\n\n", chunk("never"), DONE],
        [chunk("one") + b'data: {"error":{"message":"overloaded","code":"x"}}\n\n', DONE],
    ],
)
async def test_a_broken_stream_never_looks_finished(rig: Rig, broken: list[bytes]) -> None:
    rig.configure(budgets=[a_budget()])
    rig.upstream.does(streams(*broken))
    answer = await rig.chat(stream=True)
    assert b"[DONE]" not in answer.body
    assert answer.body.startswith(chunk("one"))
    assert b"never" not in answer.body
    last = answer.body.rstrip(b"\n").rpartition(b"\n\n")[2]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "stream_interrupted"
    assert answer.complete
    outcome = rig.outcome()
    assert (outcome.status, outcome.code, outcome.http) == ("interrupted", "stream_interrupted", 200)
    assert outcome.tokens.estimated
    assert outcome.tokens.output >= 1
    assert 0 < outcome.cost < rig.held()[0].worst_cost
    assert len(rig.upstream.asked) == 1, "nothing is tried again once something was relayed"


async def test_a_connection_that_dies_in_a_stream_breaks_it(rig: Rig) -> None:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await reply.chunk(chunk("one"))
        await asyncio.sleep(0.05)
        reply.cut()

    rig.upstream.does(script)
    answer = await rig.chat(stream=True)
    assert answer.body.startswith(chunk("one"))
    assert b"stream_interrupted" in answer.body
    assert b"[DONE]" not in answer.body


async def test_a_stream_that_stalls_is_given_up_after_the_read_time_out(rig: Rig) -> None:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await reply.chunk(chunk("one"))
        await asyncio.Event().wait()

    rig.configure(providers=[a_provider(base_url=rig.upstream.url, read_timeout_ms=200)])
    rig.upstream.does(script)
    answer = await rig.chat(stream=True)
    assert b"stream_interrupted" in answer.body
    await asyncio.wait_for(rig.upstream.gone.wait(), 5)


async def test_a_slow_stream_may_take_longer_than_the_whole_deadline(rig: Rig) -> None:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        for word in ("a", "b", "c", "d", "e"):
            await reply.chunk(chunk(word))
            await asyncio.sleep(0.25)
        await reply.chunk(usage_chunk() + DONE)
        await reply.raw(b"0\r\n\r\n")

    rig.configure(routes=[a_route(total_timeout_ms=800)])
    rig.upstream.does(script)
    answer = await rig.chat(model="chat", stream=True)
    assert answer.body.endswith(DONE)


async def test_a_stream_that_fails_before_its_first_event_is_tried_again(rig: Rig) -> None:
    rig.configure(routes=[a_route()], budgets=[a_budget()])
    rig.upstream.does(
        streams(b"", end=True),
        streams(b'data: {"error":{"message":"busy"}}\n\n'),
        streams(chunk("fine"), usage_chunk(), DONE),
    )
    answer = await rig.chat(model="chat", stream=True)
    assert answer.body == chunk("fine") + DONE
    assert answer.headers["x-llmops-attempts"] == "3"


async def test_a_connection_is_used_again_after_a_stream(rig: Rig) -> None:
    ports = set()
    rig.upstream.does(streams(chunk("a"), usage_chunk(), DONE))
    for _ in range(5):
        assert (await rig.chat(stream=True)).body.endswith(DONE)
        ports |= {id(task) for task in rig.upstream._tasks}
    assert len(ports) == 1


async def test_an_answer_that_is_no_stream_is_not_taken_for_one(rig: Rig) -> None:
    rig.upstream.does(answers())
    answer = await rig.chat(stream=True)
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")


# ---------------------------------------------------------------------- failures, retries, fallbacks


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


async def test_a_credential_that_is_refused_again_and_again_is_noted_once(rig: Rig) -> None:
    rig.upstream.does(fails(401), fails(401), fails(401), answers())
    for _ in range(5):
        await rig.chat()
    seen = [one for one in rig.records() if isinstance(one, CredentialSeen)]
    assert [one.code for one in seen] == ["refused", "accepted"]


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
    from aiohttp import ThreadedResolver

    async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> list[dict[str, Any]]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 6, "flags": 0}]

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    port = rig.upstream.url.rpartition(":")[2].removesuffix("/v1")
    url = f"http://models.example.com:{port}/v1"
    rig.configure(providers=[a_provider(base_url=url, allow_private_network=False)])
    refused = await rig.chat()
    assert (refused.status, rig.upstream.asked) == (502, [])
    assert "loopback" in refused.error["message"]
    rig.configure(providers=[a_provider(base_url=url, allow_private_network=True)])
    assert (await rig.chat()).status == 200


# ---------------------------------------------------------------------- hang-ups


async def test_a_client_that_hangs_up_cancels_a_plain_call_at_once(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])
    rig.upstream.does(hangs)
    exchange = rig.start(ask())
    await eventually(lambda: len(rig.upstream.asked) == 1)
    exchange.hang_up()
    began = time.monotonic()
    await asyncio.wait_for(rig.upstream.gone.wait(), 5)
    assert time.monotonic() - began < 1
    await exchange.done()
    assert exchange.answer.status == 0
    outcome = rig.outcome()
    assert (outcome.status, outcome.http, outcome.code) == ("client_closed", 499, "client_closed")
    assert outcome.cost == rig.held()[0].worst_cost, "what the provider did by then nobody knows"
    assert "not known" in outcome.attempts[0].note


async def test_a_client_that_hangs_up_pays_for_what_it_was_sent(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await reply.chunk(chunk("one two three four"))
        await asyncio.Event().wait()

    rig.upstream.does(script)
    exchange = rig.start(ask(stream=True))
    await exchange.answer.until(lambda answer: b"four" in answer.body)
    exchange.hang_up()
    await asyncio.wait_for(rig.upstream.gone.wait(), 5)
    await exchange.done()
    assert b"[DONE]" not in exchange.answer.body
    outcome = rig.outcome()
    assert outcome.status == "client_closed"
    assert outcome.tokens.estimated
    assert outcome.tokens.output == count_text("one two three four", "sim-small")
    assert outcome.cost == outcome.tokens.input * IN + outcome.tokens.output * OUT


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_before_there_is_a_connection_pays_nothing(
    rig: Rig, stream: bool
) -> None:
    with socket.socket() as deaf:
        # A full backlog: connecting to it hangs.
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = deaf.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        rig.configure(
            providers=[a_provider(base_url=f"http://127.0.0.1:{address[1]}/v1", connect_timeout_ms=60_000)],
            budgets=[a_budget()],
        )
        exchange = rig.start(ask(stream=stream))
        await eventually(lambda: len(rig.held()) == 1)
        await asyncio.sleep(0.1)
        exchange.hang_up()
        await exchange.done()
        for filler in fillers:
            filler.close()
    assert (rig.outcome().status, rig.outcome().cost) == ("client_closed", 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_before_there_is_a_connection_costs_nothing(rig: Rig, stream: bool) -> None:
    rig.configure(
        providers=[a_provider(base_url=rig.upstream.url, max_connections=1, pool_timeout_ms=60_000)],
        routes=[a_route(total_timeout_ms=300)],
        budgets=[a_budget()],
    )
    rig.upstream.does(hangs)
    first = rig.start(ask())
    await eventually(lambda: len(rig.upstream.asked) == 1)
    answer = await rig.chat(model="chat", stream=stream)
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    assert rig.outcome().cost == 0
    first.hang_up()
    await first.done()


async def test_a_hang_up_between_attempts_ends_the_call(rig: Rig) -> None:
    rig.configure(routes=[a_route(attempts=3)], budgets=[a_budget()])
    rig.upstream.does(fails(503, headers={"retry-after": "30"}), answers())
    exchange = rig.start(ask("chat"))
    await eventually(lambda: len(rig.ended()) == 1)
    exchange.hang_up()
    await exchange.done()
    assert len(rig.upstream.asked) == 1
    assert [one.attempt for one in rig.ended()] == [1, 0]
    assert rig.outcome().status == "client_closed"
    assert [one.status for one in rig.outcome().attempts] == [503]


async def test_a_hang_up_after_the_answer_changes_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "LISTEN_AFTER_S", 0.0)
    for _ in range(30):
        exchange = rig.start(ask())
        exchange.hang_up()
        await exchange.done()
    statuses = [one.outcome.status for one in rig.ended() if one.outcome]
    assert len(statuses) == 30
    assert set(statuses) <= {"ok", "client_closed"}


async def test_a_server_that_says_by_an_error_that_the_client_is_gone(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await reply.chunk(chunk("one two"))
        await asyncio.Event().wait()

    rig.upstream.does(script)

    async def gone(message: Any) -> None:
        raise BrokenPipeError("client left")

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [(b"authorization", b"Bearer " + KEY.encode())],
    }
    inbox: asyncio.Queue[Any] = asyncio.Queue()
    inbox.put_nowait(
        {"type": "http.request", "body": json.dumps(ask(stream=True)).encode(), "more_body": False}
    )
    await rig.app(scope, inbox.get, gone)
    outcome = rig.outcome()
    assert (outcome.status, outcome.code) == ("client_closed", "client_closed")
    assert 0 < outcome.cost < rig.held()[0].worst_cost


async def test_a_probe_that_nobody_waits_for_does_not_block_its_target(rig: Rig) -> None:
    rig.configure(routes=[a_route(attempts=1, breaker_min_calls=1, breaker_cooldown_s=1)])
    rig.upstream.does(fails(500))
    assert (await rig.chat(model="chat")).status == 502
    refused = await rig.chat(model="chat")
    assert (refused.status, refused.error["code"]) == (503, "circuit_open")
    [breaker] = rig.plane.breakers._all.values()
    breaker.open_until = 0.001
    rig.upstream.does(hangs)
    probe = rig.start(ask("chat"))
    await eventually(lambda: len(rig.upstream.asked) == 2)
    assert (await rig.chat(model="chat")).status == 503, "one probe at a time"
    probe.hang_up()
    await probe.done()
    rig.upstream.does(answers())
    assert (await rig.chat(model="chat")).status == 200
    assert not breaker.open_until


@pytest.mark.parametrize("before", [[], [chunk("one")]])
async def test_a_secret_in_a_streams_error_does_not_reach_the_caller(rig: Rig, before: list[bytes]) -> None:
    error = json.dumps({"error": {"message": f"bad key {SECRET} at upstream"}}).encode()
    rig.configure(routes=[a_route(attempts=1)])
    rig.upstream.does(streams(*before, b"data: " + error + b"\n\n"))
    answer = await rig.chat(model="chat", stream=True)
    assert b"at upstream" in answer.body
    assert SECRET.encode() not in answer.body
    written = b"".join(path.read_bytes() for path in rig.directory.glob("*.jsonl"))
    assert SECRET.encode() not in written


async def test_a_server_that_stops_ends_and_settles_what_is_under_way(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])

    async def script(asked: Asked, reply: Reply) -> None:
        if asked.json.get("stream"):
            await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
            await reply.chunk(chunk("one"))
        await asyncio.Event().wait()

    rig.upstream.does(script)
    plain, stream = rig.start(ask()), rig.start(ask(stream=True))
    await stream.answer.until(lambda answer: b"one" in answer.body)
    await eventually(lambda: len(rig.upstream.asked) == 2)
    for one in list(rig.plane.calls):
        one.watch.fire("shutdown")
    await plain.done()
    await stream.done()
    assert (plain.answer.status, plain.answer.error["code"]) == (503, "service_unavailable")
    assert b"service_unavailable" in stream.answer.body
    assert b"[DONE]" not in stream.answer.body
    assert {one.outcome.code for one in rig.ended() if one.outcome} == {"server_closed"}


# ---------------------------------------------------------------------- budgets


async def test_a_refusal_names_the_budget_what_is_left_and_when_it_resets(rig: Rig) -> None:
    rig.configure(budgets=[a_budget("team-month", limit_nano=10 * OUT)])
    answer = await rig.chat()
    assert (answer.status, answer.error["code"], answer.error["type"]) == (
        429,
        "insufficient_quota",
        "insufficient_quota",
    )
    message = answer.error["message"]
    assert "'team-month'" in message
    assert "$0.0001 " in message or "$0.000100 " in message
    assert "resets at 20" in message
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["x-should-retry"] == "false"
    assert rig.upstream.asked == []
    [ended] = rig.ended()
    assert (ended.attempt, ended.outcome.status, ended.outcome.code) == (0, "refused", "insufficient_quota")


async def test_the_output_cap_is_lowered_to_what_is_left(rig: Rig) -> None:
    counted = count_chat(ask()["messages"], "sim-small")
    rig.configure(budgets=[a_budget(limit_nano=counted * IN + 40 * OUT + 999)])
    answer = await rig.chat()
    assert answer.status == 200
    assert answer.headers["x-llmops-output-cap"] == "40"
    assert rig.upstream.asked[0].json["max_tokens"] == 40
    assert (rig.outcome().clamped, rig.outcome().cap) == (True, 40)
    [held] = rig.held()
    assert held.worst_cost == counted * IN + 40 * OUT


async def test_a_route_may_refuse_rather_than_lower_the_cap(rig: Rig) -> None:
    counted = count_chat(ask()["messages"], "sim-small")
    rig.configure(
        budgets=[a_budget(limit_nano=counted * IN + 40 * OUT)], routes=[a_route(clamp_output=False)]
    )
    assert (await rig.chat(model="chat")).status == 429
    assert (await rig.chat(model="chat", max_tokens=40)).status == 200


async def test_a_cap_of_no_use_is_a_refusal(rig: Rig) -> None:
    counted = count_chat(ask()["messages"], "sim-small")
    rig.configure(budgets=[a_budget(limit_nano=counted * IN + 15 * OUT)])
    assert (await rig.chat()).status == 429
    assert (await rig.chat(max_tokens=15)).status == 200


async def test_choices_share_the_cap(rig: Rig) -> None:
    counted = count_chat(ask()["messages"], "sim-small")
    rig.configure(budgets=[a_budget(limit_nano=counted * IN + 100 * OUT)])
    answer = await rig.chat(n=4)
    assert answer.headers["x-llmops-output-cap"] == "25"
    assert rig.held()[0].worst_cost == counted * IN + 100 * OUT


async def test_the_tightest_of_several_budgets_decides_and_all_are_charged(rig: Rig) -> None:
    key = a_key()
    rig.configure(
        keys={KEY: key},
        routes=[a_route()],
        budgets=[
            a_budget("org", scope_kind="organisation", scope_value="", project=None),
            a_budget("project"),
            a_budget("key", scope_kind="key", scope_value=key.id),
            a_budget("route", scope_kind="route", scope_value="chat", project=None),
            a_budget("feature", scope_kind="feature", scope_value="triage"),
            a_budget("user", scope_kind="user", scope_value="ada"),
            a_budget("tag", scope_kind="tag", scope_value="beta"),
            a_budget("soft", hard=False),
            a_budget("other-route", scope_kind="route", scope_value="other", limit_nano=0),
            a_budget("other-project", scope_value="search", project="search", limit_nano=0),
            a_budget("other-key", scope_kind="key", scope_value="someone", limit_nano=0),
            a_budget(
                "others-feature", scope_kind="feature", scope_value="triage", project="search", limit_nano=0
            ),
            a_budget("other-user", scope_kind="user", scope_value="bob", limit_nano=0),
        ],
    )
    headers = {"x-llmops-feature": "triage", "x-llmops-user": "ada", "x-llmops-tags": "alpha,beta"}
    answer = await rig.chat(model="chat", how={"headers": headers})
    assert answer.status == 200, answer.body
    [ended] = rig.ended()
    assert len(ended.charges) == 7
    assert {(one.cost, one.held) for one in ended.charges} == {(10 * IN + 5 * OUT, rig.held()[0].worst_cost)}
    assert len(ended.soft) == 1
    refused = await rig.chat(model="chat", how={"headers": {"x-llmops-user": "bob"}})
    assert "'other-user'" in refused.error["message"]


async def test_concurrent_calls_never_hold_more_than_there_is(rig: Rig) -> None:
    counted = count_chat(ask()["messages"], "sim-small")
    limit = 20 * (counted * IN + 5 * OUT)
    rig.configure(budgets=[a_budget(limit_nano=limit)])
    most = 0

    async def script(asked: Asked, reply: Reply) -> None:
        nonlocal most
        [pot] = rig.purse.pots.values()
        most = max(most, pot.spent + pot.held)
        await asyncio.sleep(0.01)
        await reply.json(completion(used=usage(counted, 5)))

    rig.upstream.does(script)
    found = await asyncio.gather(*(rig.chat(max_tokens=5) for _ in range(60)))
    statuses = [answer.status for answer in found]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) == 20
    assert most <= limit
    assert sum(one.cost for one in rig.ended()) == limit
    assert isinstance(await rig.purse.hold(list(rig.plane.snapshot.live.budgets), 1, wait=False), Short)


async def test_a_refusal_for_money_that_others_hold_says_so(rig: Rig) -> None:
    rig.configure(budgets=[a_budget(limit_nano=200 * OUT)])
    rig.upstream.does(hangs)
    first = rig.start(ask(max_tokens=190))
    await eventually(lambda: len(rig.upstream.asked) == 1)
    answer = await rig.chat(max_tokens=100)
    assert (answer.status, answer.headers["retry-after"]) == (429, "2")
    assert "held by calls under way" in answer.error["message"]
    assert "x-should-retry" not in answer.headers
    first.hang_up()
    await first.done()


async def test_a_budget_store_that_is_away_is_a_503_not_a_refusal(rig: Rig) -> None:
    rig.configure(budgets=[a_budget("team")])
    rig.vault.away = True
    answer = await rig.chat()
    assert (answer.status, answer.error["code"]) == (503, "budget_unavailable")
    assert "'team'" in answer.error["message"]
    assert rig.upstream.asked == []


# ---------------------------------------------------------------------- bounds of what is not text


def picture(bytes_: int) -> dict[str, Any]:
    data = base64.b64encode(b"\x89PNG" + b"x" * bytes_).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


async def test_a_picture_is_bounded_by_its_tokens_not_its_bytes(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()], models=[a_model(upstream_model="gpt-4o-2024-08-06")])
    body = ask()
    body["messages"][0]["content"] = [{"type": "text", "text": "What is this?"}, picture(300_000)]
    assert (await rig.call(body)).status == 200
    worst = rig.held()[0].worst_cost
    assert 1_400 * IN < worst - 100 * OUT < 2_500 * IN


@pytest.mark.parametrize(
    "part",
    [
        b'{"type":"\\u0069mage_url","image_url":{"url":"https://example.com/large.png"}}',
        b'{"\\u0074ype":"image_url","image_url":{"url":"https://example.com/large.png"}}',
    ],
)
async def test_a_picture_can_not_hide_behind_escapes(rig: Rig, part: bytes) -> None:
    rig.configure(budgets=[a_budget()], models=[a_model(upstream_model="gpt-4o-2024-08-06")])
    body = b'{"model":"small","messages":[{"role":"user","content":[' + part + b"]}]}"
    assert (await rig.call(body)).status == 200
    assert rig.held()[0].worst_cost - 100 * OUT > 1_400 * IN


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]},
        {"role": "assistant", "audio": {"id": "audio-1"}, "content": None},
    ],
)
async def test_what_is_not_in_the_request_is_bounded_by_the_context_window(
    rig: Rig, message: dict[str, Any]
) -> None:
    key = a_key()
    rig.configure(keys={KEY: key}, budgets=[a_budget()])
    rig.plane.objects.made(FILE, "file-1", key=key, provider="up")
    rig.plane.objects.made(AUDIO, "audio-1", key=key, provider="up")
    assert (await rig.call(ask(messages=[message]))).status == 200
    assert rig.held()[0].worst_cost == 100_000 * IN + 100 * OUT


async def test_text_in_parts_costs_no_more_than_its_bytes(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])
    body = ask(messages=[{"role": "user", "content": [{"type": "text", "text": "one"}]}])
    assert (await rig.call(body)).status == 200
    assert rig.held()[0].worst_cost == len(json.dumps(body)) * IN + 100 * OUT


async def test_a_large_body_is_relayed_whole(rig: Rig) -> None:
    text = "word " * 150_000
    assert (await rig.chat(text=text)).status == 200
    assert rig.upstream.asked[0].json["messages"][0]["content"] == text


# ---------------------------------------------------------------------- what changes while calls are under way


async def test_a_call_keeps_the_snapshot_it_began_with(rig: Rig) -> None:
    release = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await release.wait()
        await reply.json(completion())

    rig.upstream.does(script)
    exchange = rig.start(ask())
    await eventually(lambda: len(rig.upstream.asked) == 1)
    rig.configure(keys={}, providers=[a_provider(base_url="http://127.0.0.1:9/v1")])
    await rig.plane.transport.tidy()
    release.set()
    assert (await exchange.done()).status == 200
    assert (await rig.chat()).status == 401


async def test_a_provider_that_moves_is_found_where_it_is_now(rig: Rig) -> None:
    assert (await rig.chat()).status == 200
    rig.configure(providers=[a_provider(base_url="http://127.0.0.1:9/v1")])
    assert (await rig.chat()).status == 502
    await rig.plane.transport.tidy()
    assert len(rig.plane.transport._channels) == 1
    assert rig.plane.transport._retired == []
    rig.configure()
    assert (await rig.chat()).status == 200
