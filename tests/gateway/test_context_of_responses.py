"""An input of /v1/responses that is longer than the context window is made to fit as messages of a chat are."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llmops.core.tokens import count_text
from llmops.gateway.kept.owners import RESPONSE
from tests.gateway.responding import PATH, a_response, a_stream
from tests.gateway.rig import (
    KEY,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_key,
    a_model,
    a_route,
    completion,
    eventually,
    fails,
    hangs,
    streams,
    usage,
)
from tests.gateway.test_context import WORDS, ask, configure, strict, talk


def turns(count: int) -> list[dict[str, Any]]:
    """A conversation as the input of a response: instructions, then turns in which the model thinks, calls and is answered."""
    items: list[dict[str, Any]] = [{"role": "developer", "content": "Be brief."}]
    for number in range(count):
        items += [
            {"role": "user", "content": [{"type": "input_text", "text": f"question {number} {WORDS}"}]},
            {"type": "reasoning", "id": f"rs_{number}", "summary": [], "encrypted_content": f"e{number}"},
            {"type": "function_call", "id": f"fc_{number}", "call_id": f"c{number}", "name": "look",
             "arguments": json.dumps({"what": f"thing {number} {WORDS}"})},
            {"type": "function_call_output", "call_id": f"c{number}", "output": f"found {number} {WORDS}"},
            {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": f"answer {number} {WORDS}", "annotations": []}]},
        ]  # fmt: skip
    return [*items, {"role": "user", "content": "the last question"}]


def counting(window: int) -> Any:
    """A provider of responses that counts in its own way, and refuses what does not fit."""

    async def script(asked: Asked, reply: Reply) -> None:
        if asked.path.endswith("/chat/completions"):
            await reply.json(completion("The summary.", usage(100, 20)))
            return
        wanted = count_text(json.dumps(asked.json["input"]), "sim-small") + asked.json["max_output_tokens"]
        if asked.json["model"] == "sim-small" and wanted > window:
            words = (
                f"This model's maximum context length is {window} tokens, but you requested {wanted} tokens."
            )
            await reply.json({"error": {"message": words, "code": "context_length_exceeded"}}, 400)
            return
        await reply.json(a_response("fits"))

    return script


def whole_turns(items: list[dict[str, Any]]) -> bool:
    """No call without its result, no result without its call, no thought without what it led to."""
    calls = [one["call_id"] for one in items if one.get("type") == "function_call"]
    results = [one["call_id"] for one in items if one.get("type") == "function_call_output"]
    thoughts = [index for index, one in enumerate(items) if one.get("type") == "reasoning"]
    return calls == results and all(items[index + 1].get("type") == "function_call" for index in thoughts)


@pytest.mark.parametrize("window", [600, 1_200, 3_000])
@pytest.mark.parametrize("strategy", ["drop_oldest", "summarize", "larger_model"])
async def test_the_input_of_a_response_is_made_to_fit_in_the_same_ways(
    rig: Rig, strategy: str, window: int
) -> None:
    rig.configure(
        models=[
            a_model("small", context_window=window, max_output_tokens=100, default_max_output_tokens=50),
            a_model("large", context_window=100_000),
            a_model("writer", context_window=20_000),
        ],
        routes=[
            a_route("chat", "small", context_strategy=strategy, larger_model="large", summary_model="writer")
        ],
        budgets=[a_budget()],
    )
    rig.upstream.does(counting(window))
    given = turns(20)
    answer = await rig.call({"model": "chat", "input": given, "max_output_tokens": 50}, path=PATH)
    assert answer.status == 200, answer.body
    sent_ = rig.upstream.asked[-1].json["input"]
    if strategy == "larger_model":
        assert answer.headers["x-llmops-context"] == "larger_model"
        assert (rig.upstream.asked[-1].json["model"], sent_) == ("sim-large", given)
        return
    assert sent_[0] == given[0] and sent_[-1] == given[-1], "instructions and the last question stay"
    rest = sent_[1:]
    if answer.headers["x-llmops-context"] == "summarized":
        assert strategy == "summarize"
        assert rest[0]["role"] == "user" and rest[0]["content"].endswith("\nThe summary.")
        rest = rest[1:]
        told, *_ = [one for one in rig.upstream.asked if one.path.endswith("/chat/completions")]
        transcript = told.json["messages"][1]["content"]
        for word in ("question 0", "[calls look(", "tool: found 0", "assistant: answer 0"):
            assert word in transcript
    else:
        assert answer.headers["x-llmops-context"] == f"dropped={len(given) - len(sent_)}"
    assert rest == given[len(given) - len(rest) :], "what stays is the end of it, as it was"
    assert whole_turns(sent_)
    rig.nothing_held()


async def test_an_input_that_is_text_or_goes_on_from_a_response_is_not_cut(rig: Rig) -> None:
    key = a_key()
    rig.configure(
        keys={KEY: key},
        models=[a_model("small", context_window=200, max_output_tokens=50, default_max_output_tokens=50)],
        routes=[a_route("chat", "small", context_strategy="drop_oldest")],
    )
    rig.plane.objects.made(RESPONSE, "resp_0", key=key, provider="up")
    rig.upstream.does(fails(400, "context_length_exceeded"))
    for members in ({"input": WORDS * 20}, {"input": turns(9), "previous_response_id": "resp_0"}):
        answer = await rig.call({"model": "chat", "max_output_tokens": 50} | members, path=PATH)
        assert (answer.status, answer.error["code"], answer.error["param"]) == (
            400,
            "context_length_exceeded",
            "input",
        )
        assert rig.upstream.asked[-1].json["input"] == members["input"]


async def test_a_streamed_response_is_made_to_fit_before_its_first_event(rig: Rig) -> None:
    rig.configure(
        models=[a_model("small", context_window=600, max_output_tokens=100, default_max_output_tokens=50)],
        routes=[a_route("chat", "small", context_strategy="drop_oldest")],
    )
    rig.upstream.does(fails(400, "context_length_exceeded"), streams(*a_stream("fits")))
    body = {"model": "chat", "input": turns(20), "stream": True, "max_output_tokens": 50}
    answer = await rig.call(body, path=PATH)
    assert answer.body == b"".join(a_stream("fits"))
    assert answer.headers["x-llmops-context"].startswith("dropped=")
    first, second = (one.json["input"] for one in rig.upstream.asked)
    assert len(second) < len(first) < len(turns(20))


async def test_a_client_that_hangs_up_during_a_summary_leaves_nothing_held(rig: Rig) -> None:
    rig.configure(
        models=[a_model("small", context_window=2_000), a_model("writer", context_window=20_000)],
        routes=[a_route("chat", "small", context_strategy="summarize", summary_model="writer")],
        budgets=[a_budget()],
    )
    rig.upstream.does(hangs)
    exchange = rig.start({"model": "chat", "messages": talk(25)})
    await eventually(lambda: len(rig.upstream.asked) == 1)
    exchange.hang_up()
    await asyncio.wait_for(rig.upstream.gone.wait(), 5)
    await exchange.done()
    outcome = rig.outcome()
    assert (outcome.status, outcome.code) == ("client_closed", "client_closed")
    assert outcome.cost == rig.held()[0].worst_cost, "what the provider did by then nobody knows"
    assert [one.attempt for one in rig.ended()] == [1, 0]


async def test_a_conversation_that_the_provider_keeps_is_not_cut(rig: Rig) -> None:
    configure(rig, "drop_oldest")
    rig.upstream.does(strict())
    answer = await ask(rig, talk(6), previous_response_id="resp_1")
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert len(rig.upstream.asked) == 1
