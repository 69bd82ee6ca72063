"""POST /v1/responses and its sisters: what is sent, what is relayed, what it costs."""

from __future__ import annotations

import json

from llmops.serving.snapshot import PriceRow
from tests.gateway.responding import (
    IN,
    OUT,
    PATH,
    a_response,
    a_stream,
    ask,
    message,
    respond,
    responds,
    used,
)
from tests.gateway.rig import (
    USD,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_model,
    a_provider,
    a_route,
    hangs,
    streams,
)

# ---------------------------------------------------------------------- a good call


async def test_the_answer_is_the_providers_bytes_and_costs_its_usage(rig: Rig) -> None:
    rig.configure(budgets=[a_budget(limit_nano=USD)])
    body = json.dumps(a_response("Grüße \u2028", used(100, 50, cached=60, reasoning=20)), indent=1).encode()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(body)

    rig.upstream.does(script)
    answer = await respond(rig, store=False)
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["x-llmops-output-cap"] == "100"
    outcome = rig.outcome()
    tokens = outcome.tokens
    assert (tokens.input, tokens.cached, tokens.output, tokens.reasoning) == (100, 60, 50, 20)
    assert outcome.cost == 100 * IN + 50 * OUT
    assert (outcome.status, outcome.finish, outcome.upstream_model) == ("ok", "stop", "sim-small-2024")
    [held] = rig.held()
    assert (held.origin.endpoint, held.cap) == ("responses", 100)
    assert held.worst_cost == len(json.dumps(ask(store=False))) * IN + 100 * OUT


async def test_what_goes_upstream_is_the_request_with_its_model_and_cap(rig: Rig) -> None:
    rig.configure(models=[a_model(parameters={"temperature": 0.1})])
    rig.upstream.does(responds())
    odd = b'[ {"content" : "\\u00e9\\/ \\ud83d\\ude00", "role":"user", "x": 1.0e+2, "y":12345678901234567890123} ]'
    members = (
        b'"reasoning":{"effort":null},"text":{"format":{"type":"text"}},"include":[],"metadata":null,'
        b'"prompt_cache_key":"k","truncation":null,"never_heard_of":[1.50,null]'
    )
    await rig.call(b'{"input":' + odd + b',"model":"small",' + members + b"}", path=PATH)
    [asked] = rig.upstream.asked
    assert asked.path == PATH
    assert odd in asked.body
    for member in members.split(b',"'):
        assert member.strip(b'"') in asked.body
    assert asked.json["max_output_tokens"] == 100
    assert (asked.json["model"], asked.json["temperature"]) == ("sim-small", 0.1)


async def test_a_cap_of_the_callers_own_is_kept(rig: Rig) -> None:
    rig.upstream.does(responds())
    answer = await respond(rig, max_output_tokens=7)
    assert rig.upstream.asked[0].json["max_output_tokens"] == 7
    assert "x-llmops-output-cap" not in answer.headers
    assert (await respond(rig, max_output_tokens=4_001)).error["param"] == "max_output_tokens"


async def test_a_cap_is_lowered_to_what_the_budget_buys(rig: Rig) -> None:
    size = len(json.dumps(ask(max_output_tokens=1_000)))
    rig.configure(budgets=[a_budget(limit_nano=size * IN + 50 * OUT)])
    rig.upstream.does(responds())
    answer = await respond(rig, max_output_tokens=1_000)
    cap = rig.upstream.asked[0].json["max_output_tokens"]
    assert answer.headers["x-llmops-output-cap"] == str(cap)
    assert 16 <= cap < 1_000
    assert rig.outcome().clamped


async def test_tools_that_were_called_are_named_in_the_record(rig: Rig) -> None:
    output = [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "find", "arguments": "{}"},
        {"type": "function_call", "id": "fc_2", "call_id": "d", "name": "find", "arguments": "{}"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    ]
    rig.upstream.does(responds(output=output))
    await respond(rig)
    assert rig.outcome().tools == ["find", "web_search"]


async def test_an_incomplete_answer_says_why_and_a_failed_one_is_on_record(rig: Rig) -> None:
    rig.upstream.does(
        responds(status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
        responds(status="failed", error={"code": "server_error", "message": "no"}, output=[]),
    )
    assert (await respond(rig)).status == 200
    answer = await respond(rig)
    assert (answer.status, answer.json["status"]) == (200, "failed")
    first, second = (one.outcome for one in rig.ended() if one.outcome)
    assert (first.status, first.finish) == ("ok", "max_output_tokens")
    assert (second.status, second.code, second.http) == ("error", "answer_failed", 200)


async def test_usage_that_is_missing_is_counted_from_what_was_said(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])
    rig.upstream.does(responds("one two three four", usage={"input_tokens": -4}))
    await respond(rig)
    outcome = rig.outcome()
    assert outcome.tokens.estimated
    assert outcome.tokens.output == 4
    assert 0 < outcome.cost <= rig.held()[0].worst_cost


async def test_hidden_reasoning_without_usage_costs_the_hold(rig: Rig) -> None:
    rig.configure(models=[a_model(capabilities=("reasoning",))], budgets=[a_budget()])
    rig.upstream.does(responds(usage={}))
    await respond(rig)
    assert rig.outcome().cost == rig.held()[0].worst_cost


async def test_the_tier_that_answered_has_the_price(rig: Rig) -> None:
    prices = (
        PriceRow("input", 0, USD),
        PriceRow("output", 0, 10 * USD),
        PriceRow("input_flex", 0, USD // 2),
        PriceRow("output_flex", 0, 5 * USD),
    )
    rig.configure(models=[a_model(prices=prices)], budgets=[a_budget()])
    rig.upstream.does(responds(service_tier="flex"), streams(*a_stream("a", service_tier="flex")))
    await respond(rig, service_tier="flex")
    await respond(rig, service_tier="flex", stream=True)
    costs = [one.cost for one in rig.ended()]
    assert costs == [(10 * IN + 5 * OUT) // 2] * 2


# ---------------------------------------------------------------------- its sisters


async def test_compacting_is_a_call_that_costs_its_usage(rig: Rig) -> None:
    rig.configure(models=[a_model(parameters={"temperature": 0.5})], budgets=[a_budget(limit_nano=10 * USD)])
    compacted = {
        "id": "resp_c",
        "object": "response.compaction",
        "created_at": 1,
        "output": [message("Hi"), {"type": "compaction", "id": "cmp_1", "encrypted_content": "x"}],
        "usage": used(100, 20),
    }

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(compacted)

    rig.upstream.does(script)
    answer = await rig.call(ask([{"role": "user", "content": "Hi"}]), path=PATH + "/compact")
    assert (answer.status, answer.json) == (200, compacted)
    [asked] = rig.upstream.asked
    assert asked.path == PATH + "/compact"
    assert set(asked.json) == {"model", "input"}
    assert rig.outcome().cost == 100 * IN + 20 * OUT
    assert rig.ended()[0].origin.endpoint == "responses.compact"
    assert "x-llmops-output-cap" not in answer.headers
    # Nothing caps its output but the model.
    assert rig.held()[0].worst_cost >= 4_000 * OUT


async def test_counting_input_is_free_and_on_record(rig: Rig) -> None:
    rig.configure(models=[a_model(prices=(), capabilities=("reasoning",))], budgets=[a_budget(limit_nano=1)])

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json({"object": "response.input_tokens", "input_tokens": 11})

    rig.upstream.does(script)
    answer = await rig.call(ask(), path=PATH + "/input_tokens")
    assert (answer.status, answer.json["input_tokens"]) == (200, 11)
    outcome = rig.outcome()
    assert (outcome.cost, outcome.tokens.input, outcome.tokens.estimated) == (0, 0, False)
    assert rig.ended()[0].origin.endpoint == "responses.input_tokens"


async def test_counting_input_that_fails_is_free_too(rig: Rig) -> None:
    rig.configure(
        providers=[a_provider(base_url=rig.upstream.url, read_timeout_ms=100)],
        routes=[a_route(attempts=1)],
        budgets=[a_budget()],
    )
    rig.upstream.does(hangs)
    answer = await rig.call(ask(model="chat"), path=PATH + "/input_tokens")
    assert answer.status == 504
    assert rig.outcome().cost == 0
