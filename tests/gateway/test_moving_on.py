"""What a caller sees of a call that is tried elsewhere: plain, streamed, stopped by a filter, broken midway."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.gateway import responding
from tests.gateway.rig import (
    DONE,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_model,
    a_route,
    answers,
    ask,
    chunk,
    completion,
    cuts,
    fails,
    hangs,
    streams,
    usage,
    usage_chunk,
)


def arranged(rig: Rig, **route: Any) -> None:
    rig.configure(
        models=[a_model(name) for name in ("small", "second", "third", "large")],
        routes=[a_route("chat", "small", **route)],
        budgets=[a_budget()],
    )


def by_model(rig: Rig, **scripts: Any) -> None:
    async def script(asked: Asked, reply: Reply) -> None:
        await scripts[asked.json["model"].removeprefix("sim-")](asked, reply)

    rig.upstream.does(script)


async def test_a_call_that_failed_over_twice_tells_its_story(rig: Rig) -> None:
    arranged(rig, fallbacks=("third",), fallbacks_for={"rate_limit": ("second", "large")}, attempts=3)
    by_model(rig, small=fails(429), second=cuts, large=answers("at last"))
    answer = await rig.chat(model="chat")
    assert (answer.status, answer.headers["x-llmops-model"]) == (200, "large")
    attempts = rig.outcome().attempts
    assert [(one.model, one.code, one.why) for one in attempts] == [
        ("small", "upstream_429", ""),
        ("second", "upstream_cut", "after status 429"),
        ("large", "", "after an answer that broke off"),
    ]
    assert attempts[0].cost == 0
    assert attempts[1].cost == rig.held()[1].worst_cost
    assert rig.outcome().cost == sum(one.cost for one in attempts)
    assert rig.outcome().fallbacks == 2


@pytest.mark.parametrize("named", [True, False])
async def test_an_answer_stopped_by_a_content_filter_moves_on_where_the_route_says_so(
    rig: Rig, named: bool
) -> None:
    arranged(
        rig, fallbacks=("third",), **({"fallbacks_for": {"content_filter": ("second",)}} if named else {})
    )
    stopped = completion("half an ans")
    stopped["choices"][0]["finish_reason"] = "content_filter"

    async def filtered(asked: Asked, reply: Reply) -> None:
        await reply.json(stopped)

    by_model(rig, small=filtered, second=answers("whole"))
    answer = await rig.chat(model="chat")
    assert answer.status == 200
    one = 10 * 1_000 + 5 * 10_000
    if not named:
        assert answer.json == stopped
        assert rig.outcome().finish == "content_filter"
        return
    assert answer.json["choices"][0]["message"]["content"] == "whole"
    outcome = rig.outcome()
    assert [(attempt.code, attempt.cost) for attempt in outcome.attempts] == [
        ("upstream_filtered", one),
        ("", one),
    ]
    assert outcome.cost == 2 * one, "the filtered answer is billed too"


ROLE = chunk(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
STOPPED = [chunk(finish="content_filter"), usage_chunk(), DONE]


@pytest.mark.parametrize(
    "before",
    [[], [ROLE], [chunk(choices=[], prompt_filter_results=[]), ROLE]],
    ids=["at once", "role", "azure"],
)
async def test_a_stream_stopped_by_a_content_filter_before_it_said_anything_moves_on(
    rig: Rig, before: list[bytes]
) -> None:
    arranged(rig, fallbacks_for={"content_filter": ("second",)})
    whole = [ROLE, chunk("whole"), chunk(finish="stop"), usage_chunk(), DONE]
    by_model(rig, small=streams(*before, *STOPPED), second=streams(*whole))
    answer = await rig.chat(model="chat", stream=True)
    assert (answer.status, answer.headers["x-llmops-model"]) == (200, "second")
    assert answer.body == b"".join([*whole[:3], DONE])
    one = 10 * 1_000 + 5 * 10_000
    outcome = rig.outcome()
    assert [(attempt.code, attempt.cost) for attempt in outcome.attempts] == [
        ("upstream_filtered", one),
        ("", one),
    ]
    assert outcome.cost == 2 * one
    rig.nothing_held()


async def test_a_stream_that_had_said_something_is_told_to_its_end(rig: Rig) -> None:
    arranged(rig, fallbacks_for={"content_filter": ("second",)})

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await reply.chunk(ROLE + chunk("half an"))
        await exchange.answer.until(lambda answer: answer.body == ROLE + chunk("half an"))
        await reply.chunk(b"".join(STOPPED))
        await reply.raw(b"0\r\n\r\n")

    by_model(rig, small=script)
    exchange = rig.start(ask("chat", stream=True))
    assert (await exchange.done()).body == b"".join([ROLE, chunk("half an"), STOPPED[0], DONE])
    assert [one.model for one in rig.outcome().attempts] == ["small"]
    assert rig.outcome().finish == "content_filter"


async def test_what_waits_for_the_first_word_goes_out_with_it_and_no_later(rig: Rig) -> None:
    arranged(rig, fallbacks_for={"content_filter": ("second",)})

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await reply.chunk(ROLE)
        await reply.chunk(chunk("one"))
        await exchange.answer.until(lambda answer: answer.body == ROLE + chunk("one"))
        await reply.chunk(b"".join([chunk(finish="stop"), usage_chunk(), DONE]))
        await reply.raw(b"0\r\n\r\n")

    by_model(rig, small=script)
    exchange = rig.start(ask("chat", stream=True))
    assert (await exchange.done()).body.endswith(DONE)


@pytest.mark.parametrize("pieces", [[ROLE], [ROLE, chunk(finish="stop")]])
async def test_a_stream_that_breaks_before_its_first_word_is_tried_elsewhere(
    rig: Rig, pieces: list[bytes]
) -> None:
    arranged(rig, fallbacks=("third",), fallbacks_for={"content_filter": ("second",)}, attempts=2)
    by_model(
        rig, small=streams(*pieces), third=streams(chunk("ok"), chunk(finish="stop"), usage_chunk(), DONE)
    )
    answer = await rig.chat(model="chat", stream=True)
    assert b'"ok"' in answer.body and answer.body.endswith(DONE)


async def test_a_response_stopped_by_a_content_filter_before_it_said_anything_moves_on(rig: Rig) -> None:
    arranged(rig, fallbacks_for={"content_filter": ("second",)})
    stopped = responding.ended("incomplete", incomplete_details={"reason": "content_filter"}, output=[])
    by_model(
        rig,
        small=streams(responding.created(), stopped),
        second=streams(*responding.a_stream("whole")),
    )
    answer = await rig.call(responding.ask(model="chat", stream=True, store=False), path=responding.PATH)
    assert answer.body == b"".join(responding.a_stream("whole"))
    assert [one.code for one in rig.outcome().attempts] == ["upstream_filtered", ""]


async def test_a_stream_without_a_word_is_whole_all_the_same(rig: Rig) -> None:
    arranged(rig, fallbacks_for={"content_filter": ("second",)})
    by_model(rig, small=streams(ROLE, chunk(finish="stop"), usage_chunk(), DONE))
    answer = await rig.chat(model="chat", stream=True)
    assert answer.body == ROLE + chunk(finish="stop") + DONE


async def test_a_provider_without_the_model_is_not_the_callers_404(rig: Rig) -> None:
    rig.upstream.does(fails(404, "model_not_found", "The model `sim-small` does not exist"))
    answer = await rig.chat()
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert "operator" in answer.error["message"]


async def test_a_context_length_has_our_code_and_param_whatever_the_providers(rig: Rig) -> None:
    async def vllm(asked: Asked, reply: Reply) -> None:
        said = {
            "object": "error",
            "message": "This model's maximum context length is 10 tokens. However, you requested 12 tokens.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        }
        await reply.json(said, 400)

    rig.upstream.does(vllm)
    error = (await rig.chat()).error
    assert (error["code"], error["param"], error["type"]) == (
        "context_length_exceeded",
        "messages",
        "invalid_request_error",
    )
    assert "12 tokens" in error["message"]
    embedded = await rig.call({"model": "small", "input": "x"}, path="/v1/embeddings")
    assert embedded.error["param"] == "input"


async def test_a_stream_that_breaks_midway_is_a_failure_of_its_target(rig: Rig) -> None:
    rig.configure(routes=[a_route(attempts=1, breaker_min_calls=2)])
    rig.upstream.does(streams(chunk("one"), end=True))
    for _ in range(2):
        assert b"stream_interrupted" in (await rig.chat(model="chat", stream=True)).body
    assert (await rig.chat(model="chat")).error["code"] == "circuit_open"


async def test_a_client_that_hangs_up_is_no_failure_of_the_target(rig: Rig) -> None:
    rig.configure(routes=[a_route(attempts=1, breaker_min_calls=1)])
    rig.upstream.does(hangs)
    for number in range(1, 4):
        exchange = rig.start({"model": "chat", "messages": [{"role": "user", "content": "x"}]})
        while len(rig.upstream.asked) < number:
            await asyncio.sleep(0.005)
        exchange.hang_up()
        await exchange.done()
    assert not list(rig.plane.breakers.open())


@pytest.mark.parametrize(
    "wrong",
    [
        fails(400, "x"),
        fails(422),
        fails(400, "context_length_exceeded"),
        fails(401),
        fails(429, headers={"retry-after": "0.01"}),
    ],
)
async def test_what_says_nothing_about_the_target_opens_no_breaker(rig: Rig, wrong: Any) -> None:
    rig.configure(routes=[a_route(attempts=1, breaker_min_calls=1)])
    rig.upstream.does(wrong)
    for _ in range(3):
        await rig.chat(model="chat")
    assert not list(rig.plane.breakers.open())


async def test_a_stream_shows_that_a_probed_target_answers_with_its_first_event(rig: Rig) -> None:
    rig.configure(routes=[a_route(attempts=1, breaker_min_calls=1)])
    rig.upstream.does(fails(500))
    await rig.chat(model="chat")
    [breaker] = rig.plane.breakers.open()
    assert breaker.why == "1 of 1 calls failed within 60 s: status 500 (1)"
    breaker.open_until = 0.001
    release = asyncio.Event()

    async def slow(asked: Asked, reply: Reply) -> None:
        if not asked.json.get("stream"):
            await reply.json(completion())
            return
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await reply.chunk(chunk("one"))
        await release.wait()
        await reply.chunk(chunk(choices=[], used=usage()) + DONE)
        await reply.raw(b"0\r\n\r\n")

    rig.upstream.does(slow)
    exchange = rig.start({"model": "chat", "stream": True, "messages": [{"role": "user", "content": "x"}]})
    await exchange.answer.until(lambda answer: b"one" in answer.body)
    assert not breaker.open_until
    assert (await rig.chat(model="chat")).status == 200
    release.set()
    await exchange.done()
