"""When nothing else could answer: the route's fixed answer, or an earlier one. Marked, free, and never for the caller's own errors."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest

from llmops.gateway.attempts.last_resort import response, response_events
from tests.gateway.rig import (
    DONE,
    KEY,
    Answer,
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
    cuts,
    fails,
    hangs,
    streams,
)

TEXT = "We are sorry: nobody can answer at the moment. Grüße!"


def configure(
    rig: Rig, *, provider: dict[str, Any] | None = None, live: dict[str, Any] | None = None, **route: Any
) -> None:
    given = {"last_resort": "static", "static_answer": TEXT, "attempts": 2}
    rig.configure(
        providers=[a_provider(base_url=rig.upstream.url, **(provider or {}))],
        models=[a_model("small"), a_model("second")],
        routes=[a_route("chat", "small", **(given | route))],
        budgets=[a_budget()],
        **(live or {}),
    )


class Wire(httpx2.AsyncBaseTransport):
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(self.answer.status, headers=self.answer.headers, content=self.answer.body)


def sdk(answer: Answer) -> openai.AsyncOpenAI:
    """A client that gets what the rig's client got."""
    return openai.AsyncOpenAI(
        api_key=KEY,
        base_url="http://console/v1",
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=Wire(answer)),
    )


def marked(rig: Rig, answer: Answer, attempts: int) -> None:
    assert answer.status == 200
    assert answer.headers["x-llmops-fallback"] == "static"
    assert "x-llmops-model" not in answer.headers
    assert answer.headers.get("x-llmops-attempts", "0") == str(attempts)
    outcome = rig.outcome()
    assert (outcome.status, outcome.http, outcome.code, outcome.cost) == ("ok", 200, "static_answer", 0)
    assert (outcome.model, outcome.provider, len(outcome.attempts)) == ("", "", attempts)
    assert outcome.tokens.input == outcome.tokens.output == 0
    assert outcome.fallbacks >= 1
    assert outcome.message
    assert outcome.bytes_out == len(answer.body)


async def test_a_fixed_answer_is_a_whole_chat_completion(rig: Rig) -> None:
    configure(rig)
    rig.upstream.does(fails(500))
    answer = await rig.chat(model="chat")
    marked(rig, answer, 2)
    found = await sdk(answer).chat.completions.create(**ask("chat"))
    assert (found.model, found.choices[0].message.content, found.choices[0].finish_reason) == (
        "chat",
        TEXT,
        "stop",
    )
    assert found.usage is not None
    assert found.usage.total_tokens == 0
    assert found.id == f"chatcmpl-{answer.headers['x-llmops-call-id']}"
    assert rig.outcome().message.startswith("The provider 'up' answered with status 500. Try again")


@pytest.mark.parametrize("usage", [True, False])
async def test_it_streams_as_well(rig: Rig, usage: bool) -> None:
    configure(rig)
    rig.upstream.does(fails(503))
    options = {"stream_options": {"include_usage": True}} if usage else {}
    answer = await rig.chat(model="chat", stream=True, **options)
    marked(rig, answer, 2)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.body.endswith(DONE)
    stream = await sdk(answer).chat.completions.create(**ask("chat", stream=True))
    chunks = [one async for one in stream]
    said = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert said == TEXT
    assert [one.choices[0].finish_reason for one in chunks if one.choices][-1] == "stop"
    assert (chunks[-1].usage is not None) == usage
    assert all(one.model == "chat" for one in chunks)


async def test_every_choice_gets_it(rig: Rig) -> None:
    configure(rig)
    rig.upstream.does(fails(500))
    answer = await rig.chat(model="chat", n=3)
    assert [one["index"] for one in answer.json["choices"]] == [0, 1, 2]


async def test_the_shapes_of_a_response_are_the_sdks() -> None:
    whole = Answer()
    whole.status, whole.headers = 200, {"content-type": "application/json"}
    whole.pieces = [response(TEXT, "0-1", "chat", 1)]
    found = await sdk(whole).responses.create(model="chat", input="x")
    assert (found.output_text, found.status, found.model, found.error) == (TEXT, "completed", "chat", None)
    assert found.usage is not None
    assert found.usage.total_tokens == 0
    events = Answer()
    events.status, events.headers = 200, {"content-type": "text/event-stream"}
    events.pieces = [response_events(TEXT, "0-1", "chat", 1)]
    seen = [one async for one in await sdk(events).responses.create(model="chat", input="x", stream=True)]
    assert [one.sequence_number for one in seen] == list(range(9))
    assert seen[0].type == "response.created"
    assert seen[-1].type == "response.completed"
    assert seen[-1].response.output_text == TEXT
    assert "".join(one.delta for one in seen if one.type == "response.output_text.delta") == TEXT


@pytest.mark.parametrize(
    ("wrong", "attempts"),
    [
        (fails(429), 2),
        (fails(401), 1),
        (fails(404, "model_not_found"), 1),
        (cuts, 2),
        (streams(b""), 2),
        (fails(429, "insufficient_quota"), 1),
    ],
)
async def test_whatever_failed_at_the_provider(rig: Rig, wrong: Any, attempts: int) -> None:
    configure(rig)
    rig.upstream.does(wrong)
    answer = await rig.chat(model="chat")
    assert answer.json["choices"][0]["message"]["content"] == TEXT
    assert rig.outcome().status == "ok"
    assert len(rig.outcome().attempts) == attempts


async def test_a_deadline_ends_with_it_and_the_hold_is_charged(rig: Rig) -> None:
    configure(rig, total_timeout_ms=200)
    rig.upstream.does(hangs)
    answer = await rig.chat(model="chat")
    assert answer.json["choices"][0]["message"]["content"] == TEXT
    assert rig.outcome().cost == rig.held()[0].worst_cost, "what the provider did by then nobody knows"


async def test_an_open_breaker_a_pause_or_a_degraded_route_end_with_it(rig: Rig) -> None:
    configure(rig, breaker_min_calls=1, attempts=1)
    rig.upstream.does(fails(500))
    await rig.chat(model="chat")
    assert (await rig.chat(model="chat")).headers["x-llmops-fallback"] == "static"
    configure(rig, live={"paused_providers": {"up": "tests"}})
    assert (await rig.chat(model="chat")).headers["x-llmops-fallback"] == "static"
    configure(rig, live={"degraded_routes": {"chat": "tests"}})
    answer = await rig.chat(model="chat")
    assert answer.headers["x-llmops-fallback"] == "static"
    assert len(rig.upstream.asked) == 1
    last = [one.outcome for one in rig.ended() if one.outcome][-1]
    assert "degraded (tests)" in last.message


async def test_a_fallback_comes_first(rig: Rig) -> None:
    configure(rig, fallbacks=("second",), live={"degraded_routes": {"chat": "tests"}})
    answer = await rig.chat(model="chat")
    assert (answer.headers["x-llmops-model"], answer.headers["x-llmops-fallback"]) == ("second", "true")
    assert rig.outcome().attempts[0].why == "the route is degraded: tests"


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_never_for_what_the_caller_did_wrong(rig: Rig, status: int) -> None:
    configure(rig)
    rig.upstream.does(fails(status, "x"))
    assert (await rig.chat(model="chat")).status == status
    rig.upstream.does(fails(400, "context_length_exceeded"))
    assert (await rig.chat(model="chat")).status == 400
    assert (await rig.chat(model="chat", max_tokens=0)).status == 400
    assert (await rig.chat(model="chat", how={"key": "llmops_nobody"})).status == 401


async def test_never_for_a_budget(rig: Rig) -> None:
    rig.configure(
        routes=[a_route("chat", last_resort="static", static_answer=TEXT)], budgets=[a_budget(limit_nano=10)]
    )
    assert (await rig.chat(model="chat")).error["code"] == "insufficient_quota"


async def test_never_once_an_answer_has_begun(rig: Rig) -> None:
    configure(rig)
    rig.upstream.does(streams(chunk("one")))
    answer = await rig.chat(model="chat", stream=True)
    assert b"stream_interrupted" in answer.body
    assert TEXT.split(":")[0].encode() not in answer.body


async def test_an_endpoint_that_has_no_text_gets_the_error(rig: Rig) -> None:
    configure(rig)
    rig.upstream.does(fails(500))
    answer = await rig.call({"model": "chat", "input": "x"}, path="/v1/embeddings")
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert [one.attempt for one in rig.ended()] == [1, 2, 0]
    assert (rig.outcome().status, rig.outcome().code, len(rig.outcome().attempts)) == (
        "error",
        "upstream_500",
        2,
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_an_earlier_answer_however_old(rig: Rig, stream: bool) -> None:
    configure(rig, last_resort="cached")
    if stream:

        async def script(asked: Asked, reply: Reply) -> None:
            await reply.events(chunk("earlier"), chunk(finish="stop"), DONE)

        rig.upstream.does(script)
    else:
        rig.upstream.does(answers("earlier"))
    first = await rig.chat(model="chat", stream=stream)
    assert first.headers["x-llmops-cache"] == "miss"
    rig.upstream.does(fails(500))
    answer = await rig.chat(model="chat", stream=stream)
    assert (answer.status, answer.body) == (200, first.body)
    assert answer.headers["x-llmops-cache"] == "stale"
    assert answer.headers["x-llmops-fallback"] == "cached"
    assert answer.headers["x-llmops-model"] == "small"
    outcome = [one.outcome for one in rig.ended() if one.outcome][-1]
    assert (outcome.status, outcome.code, outcome.cost, outcome.cache) == ("ok", "stale_answer", 0, "stale")
    assert [one.status for one in outcome.attempts] == [500, 500]
    other = await rig.chat(model="chat", text="Something else", stream=stream)
    assert other.status == 502, "only for the same request"


def test_events_are_events() -> None:
    for event in response_events(TEXT, "0-1", "chat", 1).split(b"\n\n")[:-1]:
        name, data = event.split(b"\n")
        assert json.loads(data.removeprefix(b"data: "))["type"] == name.removeprefix(b"event: ").decode()
