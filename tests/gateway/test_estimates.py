"""What an answer is charged for whose usage is missing or plainly not true: never less than what it shows, never more than the
hold, and marked as an estimate."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmops.core.tokens import count_text
from llmops.gateway.money.charging import ESTIMATED, UNDERSTATED, UNDERSTATED_INPUT, UNKNOWN_BILL
from llmops.providers.rules import looks_reasoning
from tests.gateway.responding import PATH, created, delta, ended, event, responds, used
from tests.gateway.responding import ask as respond
from tests.gateway.rig import (
    DONE,
    KEY,
    Answer,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_key,
    a_model,
    answers,
    ask,
    chunk,
    completion,
    streams,
    usage,
)

IN, OUT = 1_000, 10_000
LONG = "The quick brown fox jumps over the lazy dog, and then it does so once more. " * 20
#: Its tokens. A number, because counting loads tables, which every process that only collects would wait for.
COUNTED = 361
#: What is held for an answer of at most 2,000 tokens.
CAP = 2_000


async def left(rig: Rig, *pieces: bytes, path: str, body: dict[str, Any]) -> None:
    """A client hangs up in the middle of a stream."""

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(*pieces, end=False)
        await asyncio.Event().wait()

    rig.upstream.does(script)
    exchange = rig.start(body, path=path)
    await exchange.answer.until(lambda answer: b"lazy" in answer.body)
    exchange.hang_up()
    await exchange.done()


async def chat_left(rig: Rig, **members: Any) -> Any:
    body = ask(stream=True, max_completion_tokens=CAP, **members)
    await left(rig, chunk(LONG), path="/v1/chat/completions", body=body)
    return rig.outcome()


def test_the_texts_have_so_many_tokens() -> None:
    assert count_text(LONG, "sim-small") == COUNTED
    assert count_text(ASKED, "sim-small") == ASKED_TOKENS


def budgeted(rig: Rig, **model: Any) -> None:
    rig.configure(keys={KEY: a_key()}, models=[a_model(**model)], budgets=[a_budget()])


def hold(rig: Rig) -> int:
    return rig.held()[-1].worst_cost


async def test_a_stream_that_is_left_costs_what_it_showed(rig: Rig) -> None:
    budgeted(rig)
    outcome = await chat_left(rig)
    assert COUNTED * OUT < outcome.cost < COUNTED * OUT + 100 * IN
    assert (outcome.tokens.estimated, outcome.attempts[0].note) == (True, ESTIMATED)
    rig.nothing_held()


@pytest.mark.parametrize(
    ("model", "members"),
    [
        ({"capabilities": frozenset({"reasoning"})}, {}),
        ({"upstream_model": "o4-mini-2025-04-16"}, {}),
        ({"upstream_model": "openai/gpt-5.1-2025-11-13"}, {}),
        ({}, {"reasoning_effort": "low"}),
        ({}, {"thinking": {"type": "enabled", "budget_tokens": 100}}),
        ({}, {"enable_thinking": True}),
        ({"parameters": {"reasoning_effort": "high"}}, {}),
    ],
)
async def test_where_the_model_may_have_thought_unseen_it_costs_the_hold(
    rig: Rig, model: dict[str, Any], members: dict[str, Any]
) -> None:
    budgeted(rig, **model)
    outcome = await chat_left(rig, **members)
    assert outcome.cost == hold(rig)
    assert (outcome.tokens.estimated, outcome.attempts[0].note) == (True, UNKNOWN_BILL)
    rig.nothing_held()


@pytest.mark.parametrize(
    ("model", "members"),
    [
        ({}, {"reasoning_effort": "none"}),
        ({}, {"reasoning_effort": None}),
        ({}, {"thinking": {"type": "disabled"}}),
        ({}, {"reasoning": {"effort": "none"}}),
        ({"upstream_model": "gpt-4o-2024-08-06"}, {}),
        ({"upstream_model": "gpt-5-chat-latest"}, {}),
        ({"parameters": {"reasoning_effort": "high"}}, {"reasoning_effort": "none"}),
    ],
)
async def test_where_it_was_asked_not_to_it_costs_what_it_showed(
    rig: Rig, model: dict[str, Any], members: dict[str, Any]
) -> None:
    budgeted(rig, **model)
    assert (await chat_left(rig, **members)).cost < hold(rig) / 2


async def test_a_model_that_once_told_of_reasoning_may_do_it_again(rig: Rig) -> None:
    budgeted(rig)
    rig.upstream.does(answers("Hello", usage(10, 50, reasoning=40)))
    assert (await rig.chat()).status == 200
    body = ask(stream=True, max_completion_tokens=CAP)
    await left(rig, chunk(LONG), path="/v1/chat/completions", body=body)
    last = rig.ended()[-1].outcome
    assert last is not None and last.cost == hold(rig)


async def test_a_response_that_shows_a_thought_costs_the_hold_when_it_is_left(rig: Rig) -> None:
    budgeted(rig)
    thought = event("response.output_item.added", 1, output_index=0, item={"type": "reasoning", "id": "rs_1"})
    body = respond(stream=True, max_output_tokens=CAP)
    await left(rig, created(), thought, delta(LONG, 2), path=PATH, body=body)
    assert rig.outcome().cost == hold(rig)


async def test_reasoning_that_is_shown_is_counted(rig: Rig) -> None:
    budgeted(rig)
    for name in ("reasoning_content", "reasoning"):
        shown = chunk(choices=[{"index": 0, "delta": {name: LONG}}])
        body = ask(stream=True, max_completion_tokens=CAP)
        await left(rig, shown, path="/v1/chat/completions", body=body)
        last = rig.ended()[-1].outcome
        assert last is not None and last.tokens.output == COUNTED


# ---------------------------------------------------------------------- usage that is not true


def whole_chat(claimed: int) -> Any:
    return answers(LONG, usage(10, claimed))


def streamed_chat(claimed: int) -> Any:
    return streams(chunk(LONG), chunk(finish="stop"), chunk(choices=[], used=usage(10, claimed)), DONE)


def whole_response(claimed: int) -> Any:
    return responds(LONG, used(10, claimed))


def streamed_response(claimed: int) -> Any:
    return streams(created(), delta(LONG, 1), ended(number=2, usage=used(10, claimed)))


KINDS = pytest.mark.parametrize(
    ("path", "body", "script"),
    [
        ("/v1/chat/completions", ask(max_completion_tokens=CAP), whole_chat),
        ("/v1/chat/completions", ask(stream=True, max_completion_tokens=CAP), streamed_chat),
        (PATH, respond(max_output_tokens=CAP), whole_response),
        (PATH, respond(stream=True, max_output_tokens=CAP), streamed_response),
    ],
    ids=["chat", "chat stream", "response", "response stream"],
)


@KINDS
@pytest.mark.parametrize("claimed", [0, 1, 20, COUNTED // 10])
async def test_usage_that_plainly_says_too_little_is_not_believed(
    rig: Rig, path: str, body: dict[str, Any], script: Any, claimed: int
) -> None:
    budgeted(rig)
    rig.upstream.does(script(claimed))
    assert (await rig.call(body, path=path)).status == 200
    outcome = rig.outcome()
    assert (outcome.tokens.output, outcome.tokens.estimated) == (COUNTED, True)
    assert outcome.cost == 10 * IN + COUNTED * OUT <= hold(rig)
    assert outcome.attempts[0].note == UNDERSTATED
    rig.nothing_held()


@KINDS
@pytest.mark.parametrize("claimed", [COUNTED, COUNTED - 5, COUNTED * 2 // 3, COUNTED * 3])
async def test_other_tokenizers_are_believed(
    rig: Rig, path: str, body: dict[str, Any], script: Any, claimed: int
) -> None:
    budgeted(rig)
    rig.upstream.does(script(claimed))
    assert (await rig.call(body, path=path)).status == 200
    outcome = rig.outcome()
    assert (outcome.tokens.output, outcome.tokens.estimated) == (claimed, False)
    assert outcome.attempts[0].note == ""


async def test_what_is_counted_instead_is_bounded_by_the_hold(rig: Rig) -> None:
    budgeted(rig)
    rig.upstream.does(whole_chat(1))
    assert (await rig.chat(max_completion_tokens=50)).status == 200
    assert rig.outcome().cost == hold(rig)


async def test_but_never_less_than_what_the_provider_itself_says(rig: Rig) -> None:
    budgeted(rig)
    rig.upstream.does(answers(LONG, usage(5_000, 1)))
    assert (await rig.chat(max_completion_tokens=1)).status == 200
    assert rig.outcome().cost == 5_000 * IN + OUT > hold(rig)


@pytest.mark.parametrize("text", [" " * 3_000, "\n" * 2_000, "ab" * 3_000])
async def test_text_that_takes_few_tokens_is_counted_and_believed(rig: Rig, text: str) -> None:
    budgeted(rig)
    claimed = count_text(text, "sim-small")
    rig.upstream.does(answers(text, usage(10, claimed)))
    assert (await rig.chat(max_completion_tokens=CAP)).status == 200
    assert not rig.outcome().tokens.estimated


async def test_what_is_no_text_says_nothing_about_tokens(rig: Rig) -> None:
    budgeted(rig)
    probabilities = {
        "content": [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}] * 99
    }
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(completion(choices=[choice | {"logprobs": probabilities}], usage=usage(10, 1)))

    rig.upstream.does(script)
    assert (await rig.chat()).status == 200
    assert not rig.outcome().tokens.estimated


async def test_an_echo_of_the_request_says_nothing_about_tokens(rig: Rig) -> None:
    budgeted(rig)
    rig.upstream.does(responds("Hi", used(10, 1), instructions=LONG * 20))
    assert (await rig.call(respond(), path=PATH)).status == 200
    assert not rig.outcome().tokens.estimated


async def test_usage_early_in_a_stream_is_not_all_of_it(rig: Rig) -> None:
    """Some tell the input's usage with the first chunk, and the rest with the last, which never comes."""
    budgeted(rig)
    rig.upstream.does(streams(chunk("", used=usage(10, 1)), chunk(LONG)))
    answer: Answer = await rig.call(ask(stream=True, max_completion_tokens=CAP))
    assert b"stream_interrupted" in answer.body
    outcome = rig.outcome()
    assert outcome.tokens.output == COUNTED
    assert outcome.cost == 10 * IN + COUNTED * OUT


@pytest.mark.parametrize(
    "name",
    ["gpt-4o", "gpt-4.1-mini", "llama-3.3-70b", "mistral-large", "claude-sonnet-4", "foo1", "gpt-5-chat"],
)
def test_names_that_say_nothing(name: str) -> None:
    assert not looks_reasoning(name)


@pytest.mark.parametrize(
    "name",
    ["o1", "o3-2025-04-16", "azure/o4-mini", "gpt-5-mini", "gpt-5.1-codex", "gpt-oss-120b", "deepseek-reasoner",
     "DeepSeek-R1", "qwen3-30b-thinking", "gemini-2.5-pro", "models/gemini-3-pro"],
)  # fmt: skip
def test_names_that_say_that_a_model_reasons(name: str) -> None:
    assert looks_reasoning(name)


# ---------------------------------------------------------------------- input

ASKED = "Please read what follows with care, and tell me in one word how it made you feel. " * 200
ASKED_TOKENS = 3_801
EMBED = {"embedding": [0.1], "index": 0, "object": "embedding"}


def says(prompt: int) -> dict[str, Any]:
    """Scripts by kind of answer, each of which states ``prompt`` input tokens."""
    return {
        "chat": answers("Fine.", usage(prompt, 2)),
        "chat stream": streams(
            chunk("Fine."), chunk(finish="stop"), chunk(choices=[], used=usage(prompt, 2)), DONE
        ),
        "response": responds("Fine.", used(prompt, 2)),
        "response stream": streams(created(), delta("Fine.", 1), ended(number=2, usage=used(prompt, 2))),
        "embeddings": answers(data=[EMBED], usage={"prompt_tokens": prompt, "total_tokens": prompt}),
    }


def asks(text: Any = ASKED) -> dict[str, tuple[str, dict[str, Any]]]:
    parts = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    spoken = [{"role": "user", "content": [{"type": "input_text", "text": text}]}]
    return {
        "chat": ("/v1/chat/completions", ask(text=text, max_completion_tokens=50)),
        "chat stream": ("/v1/chat/completions", ask(messages=parts, stream=True, max_completion_tokens=50)),
        "response": (PATH, respond(input=text, max_output_tokens=50)),
        "response stream": (PATH, respond(input=spoken, stream=True, max_output_tokens=50)),
        "embeddings": ("/v1/embeddings", {"model": "small", "input": [text]}),
    }


@pytest.mark.parametrize("kind", asks())
@pytest.mark.parametrize("stated", [1, 20, ASKED_TOKENS // 10])
async def test_input_that_is_plainly_understated_is_not_believed(rig: Rig, kind: str, stated: int) -> None:
    budgeted(rig)
    rig.upstream.does(says(stated)[kind])
    path, body = asks()[kind]
    assert (await rig.call(body, path=path)).status == 200
    outcome = rig.outcome()
    output = 0 if kind == "embeddings" else 2
    assert (outcome.tokens.input, outcome.tokens.output) == (ASKED_TOKENS, output)
    assert outcome.cost == ASKED_TOKENS * IN + output * OUT <= hold(rig)
    assert (outcome.tokens.estimated, outcome.attempts[0].note) == (True, UNDERSTATED_INPUT)
    rig.nothing_held()


@pytest.mark.parametrize("kind", asks())
@pytest.mark.parametrize("stated", [ASKED_TOKENS * 2 // 3, ASKED_TOKENS, ASKED_TOKENS * 2])
async def test_input_as_another_tokenizer_counts_it_is_believed(rig: Rig, kind: str, stated: int) -> None:
    budgeted(rig)
    rig.upstream.does(says(stated)[kind])
    path, body = asks()[kind]
    assert (await rig.call(body, path=path)).status == 200
    outcome = rig.outcome()
    assert (outcome.tokens.input, outcome.tokens.estimated) == (stated, False)
    assert outcome.attempts[0].note == ""


async def test_input_that_a_small_window_may_have_cut_off_is_believed(rig: Rig) -> None:
    budgeted(rig, context_window=512, default_max_output_tokens=0)
    rig.upstream.does(says(1_000)["embeddings"])
    body = {"model": "small", "input": [ASKED, ASKED]}
    assert (await rig.call(body, path="/v1/embeddings")).status == 200
    assert (rig.outcome().tokens.input, rig.outcome().tokens.estimated) == (1_000, False)
    rig.upstream.does(says(20)["embeddings"])
    assert (await rig.call(body, path="/v1/embeddings")).status == 200
    assert rig.ended()[-1].outcome.tokens.input == 1_024


@pytest.mark.parametrize(
    "members",
    [
        {"messages": [{"role": "user", "content": " " * 3_000}]},
        {"metadata": {"note": "x" * 5_000}},
        {"prediction": {"type": "content", "content": ASKED}},
        {"messages": [{"role": "assistant", "content": "Hi", "reasoning_content": ASKED}]},
        {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9_000}}
        ]}]},
        {"input": ASKED},
    ],
)  # fmt: skip
async def test_what_may_be_no_input_says_nothing_about_it(rig: Rig, members: dict[str, Any]) -> None:
    rig.configure(keys={KEY: a_key()}, models=[a_model()])
    rig.upstream.does(answers("Fine.", usage(count_text(" " * 3_000, "sim-small"), 2)))
    assert (await rig.chat(**members)).status == 200
    assert not rig.outcome().tokens.estimated


async def test_both_sides_understated_are_told(rig: Rig) -> None:
    budgeted(rig)
    rig.upstream.does(answers(LONG, usage(1, 1)))
    assert (await rig.chat(text=ASKED, max_completion_tokens=CAP)).status == 200
    outcome = rig.outcome()
    assert outcome.cost == ASKED_TOKENS * IN + COUNTED * OUT
    assert outcome.attempts[0].note == f"{UNDERSTATED}; {UNDERSTATED_INPUT}"
