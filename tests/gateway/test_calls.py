"""Calls that go upstream: what is sent, what is relayed, what is written down and when, what it costs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llmops.core.errors import ServiceUnavailable
from llmops.core.tokens import count_chat, count_text
from llmops.serving.snapshot import PriceRow
from llmops.usage.records import Ended, Held
from tests.gateway.rig import (
    DONE,
    KEY,
    SECRET,
    USD,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_model,
    a_provider,
    a_route,
    answers,
    ask,
    chunk,
    completion,
    eventually,
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
