"""POST /v1/responses and its sisters: what is sent, what is relayed, whose objects may be named, what it costs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llmops.gateway.kept.objects import FILE, RESPONSE
from llmops.gateway.streaming import relaying
from llmops.serving.snapshot import PriceRow
from llmops.usage.records import Kept
from tests.gateway.responding import (
    PATH,
    a_response,
    a_stream,
    ask,
    created,
    delta,
    ended,
    event,
    message,
    responds,
    used,
)
from tests.gateway.rig import (
    KEY,
    SECRET,
    USD,
    Answer,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_credential,
    a_key,
    a_model,
    a_provider,
    a_route,
    eventually,
    fails,
    hangs,
    streams,
)

IN, OUT = 1_000, 10_000


async def respond(
    rig: Rig, given: Any = "Say hello", *, how: dict[str, Any] | None = None, **members: Any
) -> Answer:
    return await rig.call(ask(given, **members), **({"path": PATH} | (how or {})))


def last_event(answer: Answer) -> dict[str, Any]:
    name, _, data = answer.body.rstrip(b"\n").rpartition(b"\n\n")[2].partition(b"\n")
    found: dict[str, Any] = json.loads(data.removeprefix(b"data: "))
    assert name == f"event: {found['type']}".encode()
    return found


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


# ---------------------------------------------------------------------- streams


async def test_a_stream_is_relayed_as_it_is_and_settled_before_its_last_event(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])
    pieces = [b": hello\n\n", *a_stream("Hel", "lo"), b"data: [DONE]\n\n"]
    go_on = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        for piece in pieces[:-2]:
            await reply.chunk(piece)
        await go_on.wait()
        await reply.chunk(pieces[-2])
        await reply.raw(b"0\r\n\r\n")

    rig.upstream.does(script)
    exchange = rig.start(ask(stream=True), path=PATH)
    await exchange.answer.until(lambda answer: b"lo" in answer.body and answer.body.endswith(pieces[-3]))
    assert exchange.answer.body == b"".join(pieces[:-2])
    assert not rig.ended()
    go_on.set()
    answer = await exchange.done()
    assert answer.body == b"".join(pieces[:-1])
    outcome = rig.outcome()
    assert (outcome.status, outcome.finish, outcome.cost) == ("ok", "stop", 10 * IN + 5 * OUT)
    assert outcome.bytes_out == len(answer.body)
    assert "stream_options" not in rig.upstream.asked[0].json


@pytest.mark.parametrize("status", ["incomplete", "failed"])
async def test_a_stream_may_end_otherwise_than_well_and_is_whole_all_the_same(rig: Rig, status: str) -> None:
    pieces = [created(), delta("a", 1), ended(status, 2)]
    rig.upstream.does(streams(*pieces))
    answer = await respond(rig, stream=True)
    assert answer.body == b"".join(pieces)
    assert rig.outcome().status == ("ok" if status == "incomplete" else "error")


@pytest.mark.parametrize(
    ("pieces", "end"),
    [
        ([created(), delta("one", 1)], True),
        ([created(), delta("one", 1)], False),
        ([created(), delta("one", 1), delta("two", 2)[:-20]], True),
        ([created(), delta("one", 1), b"event: x\ndata: {nope\n\n", ended()], True),
        ([created(), delta("one", 1), event("error", 2, message="over", code="x"), ended()], True),
    ],
)
async def test_a_broken_stream_ends_with_an_error_event_and_never_looks_finished(
    rig: Rig, pieces: list[bytes], end: bool
) -> None:
    rig.configure(budgets=[a_budget()])

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(*pieces, end=end)
        if not end:
            reply.cut()

    rig.upstream.does(script)
    answer = await respond(rig, stream=True)
    assert answer.body.startswith(created() + delta("one", 1))
    assert b"response.completed" not in answer.body
    said = last_event(answer)
    assert (said["type"], said["code"], said["sequence_number"]) == ("error", "stream_interrupted", 2)
    assert said["error"]["code"] == "stream_interrupted"
    outcome = rig.outcome()
    assert (outcome.status, outcome.tokens.estimated, outcome.tokens.output) == ("interrupted", True, 1)
    assert 0 < outcome.cost < rig.held()[0].worst_cost


async def test_a_stream_that_stalls_breaks_off_after_the_read_time_out(rig: Rig) -> None:
    rig.configure(providers=[a_provider(base_url=rig.upstream.url, read_timeout_ms=100)])

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(created(), delta("one", 1), end=False)
        await asyncio.Event().wait()

    rig.upstream.does(script)
    answer = await respond(rig, stream=True)
    assert last_event(answer)["code"] == "stream_interrupted"
    assert rig.upstream.gone.is_set() or rig.outcome().status == "interrupted"


async def test_a_client_that_hangs_up_stops_the_provider_and_pays_for_what_came(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(created(), delta("one", 1), end=False)
        await asyncio.Event().wait()

    rig.upstream.does(script)
    exchange = rig.start(ask(stream=True), path=PATH)
    await exchange.answer.until(lambda answer: b"one" in answer.body)
    exchange.hang_up()
    await exchange.done()
    async with asyncio.timeout(5):
        await rig.upstream.gone.wait()
    outcome = rig.outcome()
    assert (outcome.status, outcome.tokens.output) == ("client_closed", 1)


async def test_an_error_as_the_first_event_is_what_an_error_status_would_have_been(rig: Rig) -> None:
    rig.configure(routes=[a_route(attempts=2)], budgets=[a_budget()])
    long = event("error", 0, code="context_length_exceeded", message="too long")
    rig.upstream.does(streams(long))
    answer = await respond(rig, model="chat", stream=True)
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert len(rig.upstream.asked) == 1
    limited = event("error", 0, code="rate_limit_exceeded", message="slower")
    rig.upstream.does(streams(limited), streams(*a_stream("a")))
    answer = await respond(rig, model="chat", stream=True)
    assert (answer.status, answer.headers["x-llmops-attempts"]) == (200, "2")
    assert [one.cost for one in rig.ended()] == [0, 0, 10 * IN + 5 * OUT]


# ---------------------------------------------------------------------- comments that keep a stream alive


async def test_a_silent_stream_gets_comments_between_its_events(rig: Rig) -> None:
    rig.configure(routes=[a_route(keep_alive_s=0.02)])
    go_on = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        whole = delta("one", 1)
        await reply.chunk(created() + whole[:10])
        await go_on.wait()
        await reply.chunk(whole[10:] + ended(number=2))
        await reply.raw(b"0\r\n\r\n")

    rig.upstream.does(script)
    exchange = rig.start(ask(model="chat", stream=True), path=PATH)
    await exchange.answer.until(lambda answer: answer.body.count(b": keep-alive\n\n") >= 3)
    go_on.set()
    answer = await exchange.done()
    assert answer.body.replace(b": keep-alive\n\n", b"") == created() + delta("one", 1) + ended(number=2)
    assert rig.outcome().bytes_out == len(answer.body)


async def test_after_a_comment_another_attempt_still_answers_in_the_same_stream(rig: Rig) -> None:
    rig.configure(routes=[a_route(keep_alive_s=0.02, attempts=3)])
    go_on = asyncio.Event()

    async def silent(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await go_on.wait()
        reply.cut()

    rig.upstream.does(silent, fails(500), streams(*a_stream("a")))
    exchange = rig.start(ask(model="chat", stream=True), path=PATH)
    await exchange.answer.until(lambda answer: b": keep-alive" in answer.body)
    go_on.set()
    answer = await exchange.done()
    assert (answer.status, answer.complete) == (200, True)
    assert answer.body.replace(b": keep-alive\n\n", b"") == b"".join(a_stream("a"))
    outcome = rig.outcome()
    assert (outcome.status, len(outcome.attempts)) == ("ok", 3)


@pytest.mark.parametrize("path", [PATH, "/v1/chat/completions"])
async def test_after_a_comment_a_failure_is_told_by_an_event(rig: Rig, path: str) -> None:
    rig.configure(routes=[a_route(keep_alive_s=0.02, attempts=2)])
    go_on = asyncio.Event()

    async def silent(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await go_on.wait()
        reply.cut()

    rig.upstream.does(silent, fails(429, "rate_limit_exceeded"))
    body = ask(model="chat", stream=True) | {"messages": [{"role": "user", "content": "x"}]}
    exchange = rig.start(body, path=path)
    await exchange.answer.until(lambda answer: b": keep-alive" in answer.body)
    go_on.set()
    answer = await exchange.done()
    assert answer.complete and answer.status == 200
    data = answer.body.rstrip(b"\n").rpartition(b"data: ")[2]
    assert json.loads(data)["error"]["message"]
    assert b"[DONE]" not in answer.body and b"response.completed" not in answer.body
    outcome = rig.outcome()
    assert (outcome.status, outcome.http) == ("error", 200)


async def test_time_that_is_over_after_a_comment_is_told_by_an_event(rig: Rig) -> None:
    rig.configure(routes=[a_route(keep_alive_s=0.02, total_timeout_ms=300)])

    async def silent(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await asyncio.Event().wait()

    rig.upstream.does(silent)
    answer = await respond(rig, model="chat", stream=True)
    assert answer.complete and b": keep-alive" in answer.body
    assert last_event(answer)["code"] == "upstream_timeout"
    assert rig.outcome().status == "error"


async def test_a_client_that_hangs_up_while_it_gets_comments_is_noticed(rig: Rig) -> None:
    rig.configure(routes=[a_route(keep_alive_s=0.02)])

    async def silent(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await asyncio.Event().wait()

    rig.upstream.does(silent)
    exchange = rig.start(ask(model="chat", stream=True), path=PATH)
    await exchange.answer.until(lambda answer: b": keep-alive" in answer.body)
    exchange.hang_up()
    await exchange.done()
    assert rig.outcome().status == "client_closed"


async def test_streams_that_ask_for_no_comments_have_no_timer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*given: Any) -> None:
        raise AssertionError("no timer is needed")

    monkeypatch.setattr(relaying, "KeepAlive", none)
    rig.configure(routes=[a_route(keep_alive_s=0)])
    rig.upstream.does(streams(*a_stream("a")))
    assert (await respond(rig, model="chat", stream=True)).body == b"".join(a_stream("a"))


# ---------------------------------------------------------------------- objects


async def test_a_response_is_registered_before_its_client_knows_it(rig: Rig) -> None:
    key = a_key()
    credential = a_credential()
    rig.configure(keys={KEY: key}, credentials={"up": (credential,)})
    go_on = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(created(id="resp_s"), end=False)
        await go_on.wait()
        await reply.chunk(ended(id="resp_s"))
        await reply.raw(b"0\r\n\r\n")

    rig.upstream.does(responds(id="resp_w"), script, responds(id="resp_n"))
    await respond(rig)
    exchange = rig.start(ask(stream=True), path=PATH)
    await exchange.answer.until(lambda answer: b"response.created" in answer.body)
    kept = [one for one in rig.records() if isinstance(one, Kept)]
    assert [(one.kind, one.object, one.project, one.provider, one.credential, one.model) for one in kept] == [
        (RESPONSE, name, key.project_id, "up", credential.id, "small") for name in ("resp_w", "resp_s")
    ]
    go_on.set()
    await exchange.done()
    await respond(rig, store=False)
    assert len([one for one in rig.records() if isinstance(one, Kept)]) == 2
    owner = await rig.plane.objects.owner(RESPONSE, "resp_s", key.project_id)
    assert owner.provider == "up"


async def test_a_response_that_goes_on_from_another_stays_where_that_is(rig: Rig) -> None:
    first, second = a_credential(name="first"), a_credential(name="second", secret="another-secret")
    rig.configure(
        keys={KEY: a_key()},
        providers=[a_provider("up", rig.upstream.url), a_provider("other", rig.upstream.url)],
        models=[a_model("small"), a_model("away", "other")],
        routes=[a_route("chat", "away", fallbacks=("small",)), a_route("far", "away")],
        credentials={"up": (first, second), "other": (a_credential("other", "third-secret"),)},
    )
    key = next(iter(rig.plane.snapshot.live.keys.values())).key
    rig.plane.objects.made(RESPONSE, "resp_1", key=key, provider="up", credential=second.id, model="chat")
    rig.upstream.does(responds(id="resp_2"))
    answer = await respond(rig, model="chat", previous_response_id="resp_1")
    assert answer.status == 200
    [asked] = rig.upstream.asked
    assert asked.json["previous_response_id"] == "resp_1"
    assert asked.headers["authorization"] == "Bearer another-secret"
    assert rig.held()[0].model == "small"
    # The provider adds what is not seen here: nothing but the window bounds it.
    assert rig.held()[0].worst_cost == 100_000 * IN + 100 * OUT
    refused = await respond(rig, model="far", previous_response_id="resp_1")
    assert (refused.status, refused.error["param"]) == (400, "previous_response_id")
    assert "'up'" in refused.error["message"]
    assert len(rig.upstream.asked) == 1


@pytest.mark.parametrize(
    ("members", "status", "code", "param"),
    [
        ({"previous_response_id": "resp_x"}, 400, "previous_response_not_found", "previous_response_id"),
        ({"conversation": "conv_x"}, 400, "conversation_not_found", "conversation"),
        ({"conversation": {"id": "conv_x"}}, 400, "conversation_not_found", "conversation"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file_x"}]}]},
            404,
            "not_found",
            "input",
        ),
        (
            {"tools": [{"type": "file_search", "vector_store_ids": ["vs_x"]}]},
            404,
            "not_found",
            "tools[0].vector_store_ids",
        ),
        (
            {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file_x"]}}]},
            404,
            "not_found",
            "tools[0].container.file_ids",
        ),
        (
            {
                "tools": [
                    {"type": "shell", "environment": {"type": "container_reference", "container_id": "vs_x"}}
                ]
            },
            404,
            "not_found",
            "tools[0].environment.container_id",
        ),
        (
            {"tools": [{"type": "shell", "environment": {"type": "container_auto", "file_ids": ["file_x"]}}]},
            404,
            "not_found",
            "tools[0].environment.file_ids",
        ),
        (
            {"tools": [{"type": "image_generation", "input_image_mask": {"file_id": "file_x"}}]},
            404,
            "not_found",
            "tools[0].input_image_mask.file_id",
        ),
        (
            {
                "tools": [
                    {"type": "namespace", "tools": [{"type": "file_search", "vector_store_ids": ["vs_x"]}]},
                ]
            },
            404,
            "not_found",
            "tools[0].tools.vector_store_ids",
        ),
        (
            {
                "input": [
                    {
                        "type": "tool_search_output",
                        "tools": [{"type": "file_search", "vector_store_ids": ["vs_x"]}],
                    }
                ]
            },
            404,
            "not_found",
            "input",
        ),
        (
            {"prompt": {"id": "pmpt_1", "variables": {"x": {"type": "input_file", "file_id": "file_x"}}}},
            404,
            "not_found",
            "prompt.id",
        ),
    ],
)
async def test_objects_of_other_projects_are_not_there(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, members: dict[str, Any], status: int, code: str, param: str
) -> None:
    monkeypatch.setattr("llmops.gateway.kept.objects.PATIENCE_S", 0.0)
    stranger = a_key("stranger")
    for name in ("resp_x", "conv_x", "vs_x"):
        rig.plane.objects.made(RESPONSE, name, key=stranger, provider="up")
    rig.plane.objects.made(FILE, "file_x", key=stranger, provider="up")
    answer = await rig.call(ask() | members, path=PATH)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, param)
    assert rig.upstream.asked == []
    assert rig.outcome().status == "refused"


async def test_files_in_a_chat_must_be_the_callers_own_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmops.gateway.kept.objects.PATIENCE_S", 0.0)
    key = a_key()
    rig.configure(keys={KEY: key})
    content = [{"type": "text", "text": "read"}, {"type": "file", "file": {"file_id": "file_1"}}]
    answer = await rig.call({"model": "small", "messages": [{"role": "user", "content": content}]})
    assert (answer.status, answer.error["param"]) == (404, "messages[0].content")
    rig.plane.objects.made(FILE, "file_1", key=key, provider="up")
    answer = await rig.call({"model": "small", "messages": [{"role": "user", "content": content}]})
    assert answer.status == 200


@pytest.mark.parametrize("escaped", [rb"file\u005fid", rb"fil\u0065_\u0069d"])
async def test_a_name_written_with_escapes_is_the_same_name(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, escaped: bytes
) -> None:
    monkeypatch.setattr("llmops.gateway.kept.objects.PATIENCE_S", 0.0)
    part = b'{"type":"file","file":{"' + escaped + b'":"file_1"}}'
    chat = b'{"model":"small","messages":[{"role":"user","content":[' + part + b"]}]}"
    assert (await rig.call(chat)).error["param"] == "messages[0].content"
    part = rb'{"type":"input\u005ffile","' + escaped + b'":"file_1"}'
    response = b'{"model":"small","input":[{"role":"user","content":[' + part + b"]}]}"
    answer = await rig.call(response, path=PATH)
    assert (answer.status, answer.error["param"]) == (404, "input")
    assert rig.upstream.asked == []


async def test_what_is_written_with_escapes_is_bounded_as_what_it_is(rig: Rig) -> None:
    body = rb'{"model":"small","input":[{"type":"item\u005freference","id":"msg_1"}]}'
    key = a_key()
    rig.configure(keys={KEY: key})
    rig.plane.objects.made(RESPONSE, "resp_0", key=key, provider="up", items=["msg_1"])
    rig.upstream.does(responds())
    await rig.call(body, path=PATH)
    assert rig.held()[0].worst_cost == 100_000 * IN + 100 * OUT


@pytest.mark.parametrize("stores", [5, "vs_x", {"a": 1}, [[1]], [None]])
async def test_stores_of_another_shape_are_the_providers_to_judge(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, stores: Any
) -> None:
    monkeypatch.setattr("llmops.gateway.kept.objects.PATIENCE_S", 0.0)
    rig.configure(budgets=())
    rig.upstream.does(responds())
    answer = await rig.call(
        ask() | {"tools": [{"type": "file_search", "vector_store_ids": stores}]}, path=PATH
    )
    assert answer.status == (404 if stores == "vs_x" else 200)


async def test_what_a_function_calls_its_own_parameters_names_nothing(rig: Rig) -> None:
    tool = {"type": "function", "name": "f", "parameters": {"properties": {"a": {"file_id": "file_x"}}}}
    rig.upstream.does(responds())
    assert (await rig.call(ask() | {"tools": [tool]}, path=PATH)).status == 200


# ---------------------------------------------------------------------- what is held, what is refused


@pytest.mark.parametrize(
    ("given", "bound"),
    [
        ("x" * 50, None),
        ([{"role": "user", "content": "x" * 50}], None),
        ([{"role": "user", "content": [{"type": "input_text", "text": "input_image"}]}], None),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "https://example.com/a"}]}],
            1_445,
        ),
        (
            [
                {
                    "role": "user",
                    "content": [{"type": "input_image", "image_url": "data:image/png;base64," + "A" * 9_000}],
                }
            ],
            1_445 - 9_022,
        ),
        (
            [
                {
                    "type": "function_call_output",
                    "call_id": "c",
                    "output": [{"type": "input_image", "image_url": "h"}],
                }
            ],
            1_445,
        ),
        (
            [
                {
                    "role": "user",
                    "content": [{"type": "input_file", "file_data": "data:application/pdf;base64,AA"}],
                }
            ],
            "window",
        ),
        ([{"type": "item_reference", "id": "msg_1"}], "window"),
        ([{"type": "compaction", "encrypted_content": "x"}], "window"),
    ],
)
async def test_the_hold_bounds_what_the_input_can_cost(rig: Rig, given: Any, bound: int | str | None) -> None:
    key = a_key()
    rig.configure(keys={KEY: key}, budgets=[a_budget(limit_nano=10 * USD)])
    rig.plane.objects.made(RESPONSE, "resp_0", key=key, provider="up", items=["msg_1"])
    rig.upstream.does(responds())
    assert (await respond(rig, given)).status == 200
    size = len(json.dumps(ask(given)))
    expected = 100_000 if bound == "window" else size + (bound or 0)  # type: ignore[operator]
    assert rig.held()[0].worst_cost == expected * IN + 100 * OUT


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"tools": [{"type": "web_search"}]}, "the tool 'web_search'"),
        (
            {"tools": [{"type": "function", "name": "f"}, {"type": "mcp", "server_url": "x"}]},
            "the tool 'mcp'",
        ),
        ({"tools": [{"type": "image_generation"}]}, "the tool 'image_generation'"),
        ({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, "'code_interpreter'"),
        ({"tools": [{"type": "not_invented_yet"}]}, "the tool 'not_invented_yet'"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]}]}, "'web_search'"),
        ({"tools": [{"type": "shell"}]}, "the tool 'shell'"),
        ({"prompt": {"id": "pmpt_1"}}, "a prompt kept at the provider"),
        ({"context_management": [{"type": "compaction"}]}, "context management"),
    ],
)
async def test_what_cannot_be_metered_is_refused_under_a_hard_budget_only(
    rig: Rig, members: dict[str, Any], said: str
) -> None:
    sharing = a_provider(base_url=rig.upstream.url, shared_objects=("pmpt_1",))
    rig.configure(providers=[sharing], budgets=[a_budget("team")])
    rig.upstream.does(responds())
    answer = await respond(rig, **members)
    assert (answer.status, answer.error["code"]) == (422, "not_metered")
    assert said in answer.error["message"] and "'team'" in answer.error["message"]
    assert rig.upstream.asked == []
    rig.configure(providers=[sharing], budgets=[a_budget(hard=False)])
    assert (await respond(rig, **members)).status == 200


@pytest.mark.parametrize(
    "tools",
    [
        None,
        [],
        [{"type": "function", "name": "f", "parameters": {}}],
        [{"type": "custom", "name": "c"}, {"type": "local_shell"}, {"type": "apply_patch"}],
        [{"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]}],
        [{"type": "shell", "environment": {"type": "local"}}],
    ],
)
async def test_tools_of_the_callers_own_are_nothing_but_tokens(rig: Rig, tools: Any) -> None:
    rig.configure(budgets=[a_budget()])
    rig.upstream.does(responds())
    assert (await respond(rig, tools=tools)).status == 200


async def test_web_search_in_a_chat_is_refused_under_a_hard_budget(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])
    answer = await rig.chat(web_search_options={})
    assert (answer.status, answer.error["code"]) == (422, "not_metered")
    assert (await rig.chat(web_search_options=None)).status == 200


async def test_a_stored_chat_is_registered(rig: Rig) -> None:
    await rig.chat(store=True)
    await rig.chat(store=False)
    await rig.chat()
    [kept] = [one for one in rig.records() if isinstance(one, Kept)]
    assert (kept.kind, kept.object) == ("chat.completion", "chatcmpl-1")


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": 5}, "input"),
        ({"input": {}}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["text"]}, "input[0]"),
        ({"input": [{"role": 5}]}, "input[0].role"),
        ({"input": None}, "input"),
        ({"model": None}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": "7"}, "max_output_tokens"),
        ({"previous_response_id": 5}, "previous_response_id"),
        ({"previous_response_id": "r" * 201}, "previous_response_id"),
        ({"conversation": 5}, "conversation"),
        ({"conversation": {"id": 5}}, "conversation"),
        ({"tools": "all"}, "tools"),
        ({"store": 1}, "store"),
        ({"background": "no"}, "background"),
        ({"background": True, "store": False}, "background"),
    ],
)
async def test_bad_input_is_a_400_that_names_the_member(
    rig: Rig, members: dict[str, Any], param: str
) -> None:
    answer = await rig.call(ask() | members, path=PATH)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert rig.upstream.asked == []


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


# ---------------------------------------------------------------------- work in the background


class Provider:
    """Runs one response in the background, as long as a test wants."""

    def __init__(self) -> None:
        self.now = a_response(status="queued", output=[], usage=None)
        self.status = 200
        self.looks = 0

    async def __call__(self, asked: Asked, reply: Reply) -> None:
        if asked.method == "GET":
            assert asked.path == PATH + "/resp_1"
            assert asked.headers["authorization"] == f"Bearer {SECRET}"
            self.looks += 1
            await reply.json(self.now, self.status)
        elif asked.json.get("stream"):
            await reply.events(created(), delta("one", 1), end=False)
            await asyncio.Event().wait()
        else:
            await reply.json(self.now)

    def ends(self, status: str = "completed", usage: Any = "stated", **changes: Any) -> None:
        self.now = a_response("Hello", used(7, 3) if usage == "stated" else usage, status=status, **changes)


@pytest.fixture
def provider(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Provider:
    monkeypatch.setattr("llmops.gateway.kept.background.FIRST_S", 0.01)
    monkeypatch.setattr("llmops.gateway.kept.background.SLOWEST_S", 0.02)
    made = Provider()
    rig.configure(budgets=[a_budget()])
    rig.upstream.does(made)
    return made


def held_now(rig: Rig) -> int:
    return sum(pot.held for pot in rig.purse._every_pot())


async def test_a_background_response_is_settled_when_it_ends(rig: Rig, provider: Provider) -> None:
    answer = await respond(rig, background=True)
    assert (answer.status, answer.json["status"]) == (200, "queued")
    [held] = rig.held()
    await eventually(lambda: provider.looks >= 3)
    assert rig.ended() == []
    assert held_now(rig) == held.worst_cost
    assert len(rig.plane.background) == 1
    provider.ends()
    await eventually(lambda: bool(rig.ended()))
    outcome = rig.outcome()
    assert (outcome.status, outcome.http, outcome.cost) == ("ok", 200, 7 * IN + 3 * OUT)
    assert outcome.attempts[0].total_us > 0
    assert len(rig.plane.background) == 0
    looks = provider.looks
    await asyncio.sleep(0.05)
    assert provider.looks == looks
    assert len(rig.upstream.asked) == looks + 1


@pytest.mark.parametrize(
    ("status", "usage", "recorded", "estimated"),
    [
        ("incomplete", "stated", "ok", False),
        ("failed", "stated", "error", False),
        ("failed", None, "error", True),
        ("cancelled", "stated", "client_closed", False),
        ("cancelled", None, "client_closed", True),
    ],
)
async def test_a_background_response_may_end_otherwise(
    rig: Rig, provider: Provider, status: str, usage: Any, recorded: str, estimated: bool
) -> None:
    await respond(rig, background=True)
    provider.ends(status, usage)
    await eventually(lambda: bool(rig.ended()))
    outcome = rig.outcome()
    assert (outcome.status, outcome.tokens.estimated) == (recorded, estimated)
    assert outcome.cost <= rig.held()[0].worst_cost


async def test_whoever_sees_the_end_first_settles_it_and_only_once(
    rig: Rig, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmops.gateway.kept.background.FIRST_S", 60.0)
    await respond(rig, background=True)
    background = rig.plane.background
    background.saw("up", "resp_1", json.dumps(provider.now).encode())
    background.saw("up", "resp_other", b"{}")
    await asyncio.sleep(0.02)
    assert rig.ended() == []
    provider.ends()
    told = json.dumps(provider.now).encode()
    for _ in range(3):
        background.saw("up", "resp_1", told)
    background.gone("up", "resp_1")
    await eventually(lambda: bool(rig.ended()))
    assert rig.outcome().cost == 7 * IN + 3 * OUT
    assert provider.looks == 0


async def test_a_provider_that_cannot_be_asked_is_asked_again(rig: Rig, provider: Provider) -> None:
    await respond(rig, background=True)
    provider.status = 500
    await eventually(lambda: provider.looks >= 3)
    assert rig.ended() == []
    provider.status = 200
    provider.ends()
    await eventually(lambda: bool(rig.ended()))
    assert rig.outcome().status == "ok"


async def test_a_response_that_was_deleted_before_its_end_costs_its_hold(
    rig: Rig, provider: Provider
) -> None:
    await respond(rig, background=True)
    provider.status = 404
    await eventually(lambda: bool(rig.ended()))
    outcome = rig.outcome()
    assert (outcome.status, outcome.code, outcome.cost) == (
        "error",
        "background_unknown",
        rig.held()[0].worst_cost,
    )
    assert "deleted" in outcome.message


async def test_a_response_that_takes_too_long_costs_its_hold(
    rig: Rig, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmops.gateway.kept.background.LONGEST_S", 0.05)
    await respond(rig, background=True)
    await eventually(lambda: bool(rig.ended()))
    assert rig.outcome().cost == rig.held()[0].worst_cost


async def test_a_process_that_stops_looks_once_more_and_says_so(rig: Rig, provider: Provider) -> None:
    await respond(rig, background=True)
    provider.ends()
    await rig.plane.background.close()
    assert rig.outcome().cost == 7 * IN + 3 * OUT


async def test_a_response_that_outlives_the_process_costs_its_hold(rig: Rig, provider: Provider) -> None:
    await respond(rig, background=True)
    await rig.plane.background.close()
    outcome = rig.outcome()
    assert (outcome.status, outcome.cost) == ("error", rig.held()[0].worst_cost)
    assert "stopped" in outcome.message


async def test_a_client_that_leaves_a_background_stream_does_not_end_it(rig: Rig, provider: Provider) -> None:
    exchange = rig.start(ask(background=True, stream=True), path=PATH)
    await exchange.answer.until(lambda answer: b"one" in answer.body)
    exchange.hang_up()
    await exchange.done()
    await eventually(lambda: provider.looks >= 2)
    assert rig.ended() == []
    assert len(rig.plane.background) == 1
    provider.ends()
    await eventually(lambda: bool(rig.ended()))
    outcome = rig.outcome()
    assert (outcome.status, outcome.cost) == ("ok", 7 * IN + 3 * OUT)


async def test_a_client_that_leaves_before_a_background_stream_says_its_name_costs_its_hold(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])
    asked = asyncio.Event()

    async def silent(_: Asked, reply: Reply) -> None:
        await reply.events(b": soon\n\n", end=False)
        asked.set()
        await asyncio.Event().wait()

    rig.upstream.does(silent)
    exchange = rig.start(ask(background=True, stream=True), path=PATH)
    await asked.wait()
    exchange.hang_up()
    await exchange.done()
    # The provider works on, and nobody here can ask how far it came.
    assert rig.outcome().cost == rig.held()[0].worst_cost


async def test_a_background_stream_that_breaks_off_without_a_name_costs_its_hold(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])

    async def nameless(_: Asked, reply: Reply) -> None:
        await reply.events(delta("one", 1), end=False)

    rig.upstream.does(nameless)
    answer = await respond(rig, background=True, stream=True)
    assert last_event(answer)["code"] == "stream_interrupted"
    assert rig.outcome().cost == rig.held()[0].worst_cost


async def test_a_background_stream_that_breaks_off_is_followed_to_its_end(
    rig: Rig, provider: Provider
) -> None:
    rig.configure(
        budgets=[a_budget()], providers=[a_provider(base_url=rig.upstream.url, read_timeout_ms=100)]
    )
    answer = await respond(rig, background=True, stream=True)
    assert last_event(answer)["code"] == "stream_interrupted"
    provider.ends()
    await eventually(lambda: bool(rig.ended()))
    assert rig.outcome().cost == 7 * IN + 3 * OUT


async def test_a_background_stream_that_is_read_to_its_end_is_settled_by_it(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])
    rig.upstream.does(streams(*a_stream("a")))
    answer = await respond(rig, background=True, stream=True)
    assert answer.body == b"".join(a_stream("a"))
    assert rig.outcome().cost == 10 * IN + 5 * OUT
    assert len(rig.plane.background) == 0


async def test_more_responses_than_can_be_followed_are_refused(
    rig: Rig, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmops.gateway.kept.background.MAX_FOLLOWED", 1)
    await respond(rig, background=True)
    refused = await respond(rig, background=True)
    assert (refused.status, refused.error["code"]) == (429, "queue_full")
    provider.ends()
    await eventually(lambda: len(rig.ended()) == 2)
