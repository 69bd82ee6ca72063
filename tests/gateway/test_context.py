"""An input that is longer than the context window: left out, summarised, or given to a larger model; else 400."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llmops.core.tokens import count_chat
from tests.gateway.rig import (
    Answer,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_model,
    a_provider,
    a_route,
    answers,
    completion,
    cuts,
    eventually,
    fails,
    usage,
)

WINDOW = 400
IN, OUT = 1_000, 10_000
#: About fifty tokens each.
WORDS = "one two three four five six seven eight nine ten " * 5


def talk(turns: int, *, system: bool = True) -> list[dict[str, Any]]:
    messages = [{"role": "system", "content": "Be brief."}] if system else []
    for number in range(turns):
        messages.append({"role": "user", "content": f"question {number} {WORDS}"})
        messages.append({"role": "assistant", "content": f"answer {number} {WORDS}"})
    return [*messages, {"role": "user", "content": "the last question"}]


def configure(rig: Rig, strategy: str, **route: Any) -> None:
    rig.configure(
        providers=[a_provider("up", rig.upstream.url), a_provider("big", rig.upstream.url)],
        models=[
            a_model("small", context_window=WINDOW, max_output_tokens=100, default_max_output_tokens=50),
            a_model("large", "big", context_window=100_000),
            a_model("writer", "big", context_window=20_000),
        ],
        routes=[
            a_route(
                "chat",
                "small",
                context_strategy=strategy,
                **({"larger_model": "large", "summary_model": "writer"} | route),
            )
        ],
        budgets=[a_budget()],
    )


def sent(asked: Asked) -> list[str]:
    return [one["content"].split(" one")[0] for one in asked.json["messages"]]


def strict(window: int = WINDOW, *, tell: bool = True, factor: float = 1.0) -> Any:
    """A provider that counts, and refuses what does not fit."""

    async def script(asked: Asked, reply: Reply) -> None:
        if asked.json["model"] != "sim-small":
            await reply.json(
                completion("The summary." if "writer" in asked.json["model"] else "large", usage(2_000, 20))
            )
            return
        wanted = int(count_chat(asked.json["messages"], "sim-small") * factor) + asked.json["max_tokens"]
        if wanted <= window:
            await reply.json(completion("fits"))
            return
        words = (
            f"This model's maximum context length is {window} tokens. However, you requested {wanted} tokens."
        )
        error = {"message": words if tell else "context length exceeded", "code": "context_length_exceeded"}
        await reply.json({"error": error}, 400)

    return script


async def ask(rig: Rig, messages: Any, **members: Any) -> Answer:
    return await rig.call({"model": "chat", "messages": messages} | members)


# ---------------------------------------------------------------------- drop_oldest


async def test_what_is_certainly_too_long_is_shortened_before_it_is_sent(rig: Rig) -> None:
    configure(rig, "drop_oldest")
    rig.upstream.does(strict())
    answer = await ask(rig, talk(6))
    assert answer.status == 200, answer.body
    [asked] = rig.upstream.asked
    said = sent(asked)
    assert (said[0], said[-1]) == ("Be brief.", "the last question")
    dropped = 14 - len(said)
    assert answer.headers["x-llmops-context"] == f"dropped={dropped}"
    assert said[1] == f"question {dropped // 2}", "the oldest went, whole turns of them"
    assert rig.outcome().attempts[0].why == (
        f"an input longer than its context window: {dropped} items were left out"
    )
    assert rig.held()[0].worst_cost <= (WINDOW * IN) + 50 * OUT


async def test_what_fits_is_sent_as_it_is(rig: Rig) -> None:
    configure(rig, "drop_oldest")
    rig.upstream.does(strict())
    answer = await ask(rig, talk(1))
    assert (answer.status, "x-llmops-context" in answer.headers) == (200, False)
    assert len(rig.upstream.asked[0].json["messages"]) == 4


@pytest.mark.parametrize("tell", [True, False])
async def test_what_the_provider_refuses_is_shortened_and_sent_again(rig: Rig, tell: bool) -> None:
    """It fits by our count without the answer, and does not by the provider's with it."""
    configure(rig, "drop_oldest")
    rig.upstream.does(strict(tell=tell))
    answer = await ask(rig, talk(3), max_tokens=100)
    assert answer.status == 200, answer.body
    assert len(rig.upstream.asked) == 2
    first, second = rig.outcome().attempts
    assert (first.code, first.cost) == ("context_length_exceeded", 0)
    assert second.why.startswith("after an input longer than its context window: ")
    assert answer.headers["x-llmops-context"].startswith("dropped=")
    assert answer.headers["x-llmops-attempts"] == "2"


async def test_twice_at_most(rig: Rig) -> None:
    configure(rig, "drop_oldest", attempts=9)
    rig.upstream.does(
        fails(400, "context_length_exceeded", "maximum context length is 10 tokens, you requested 11 tokens")
    )
    answer = await ask(rig, talk(3))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (
        400,
        "context_length_exceeded",
        "messages",
    )
    assert len(rig.upstream.asked) == 3
    assert (rig.outcome().status, rig.outcome().http) == ("error", 400)


async def test_the_attempts_of_the_route_bound_it_too(rig: Rig) -> None:
    configure(rig, "drop_oldest", attempts=1)
    rig.upstream.does(strict())
    answer = await ask(rig, talk(3), max_tokens=100)
    assert (answer.status, len(rig.upstream.asked)) == (400, 1)


async def test_a_tokenizer_that_counts_more_is_believed(rig: Rig) -> None:
    configure(rig, "drop_oldest")
    rig.upstream.does(strict(factor=1.4))
    answer = await ask(rig, talk(3))
    assert answer.status == 200, answer.body
    assert len(rig.upstream.asked) >= 2


async def test_one_long_message_cannot_be_shortened(rig: Rig) -> None:
    configure(rig, "drop_oldest")
    rig.upstream.does(strict())
    answer = await ask(rig, [{"role": "user", "content": WORDS * 20}])
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert len(rig.upstream.asked) == 1


async def test_bytes_that_stay_are_not_changed(rig: Rig) -> None:
    configure(rig, "drop_oldest")
    rig.upstream.does(strict())
    odd = b'{"content" : "\\u00e9 last", "role":"user", "x": 1.0e+2}'
    old = [json.dumps(one).encode() for one in talk(6)]
    body = b'{"model":"chat","seed": 1E3,"messages":[' + b",".join([*old, odd]) + b"]}"
    answer = await rig.call(body)
    assert answer.status == 200
    assert odd in rig.upstream.asked[0].body
    assert b"1E3" in rig.upstream.asked[0].body


async def test_without_a_strategy_the_provider_decides(rig: Rig) -> None:
    configure(rig, "refuse")
    rig.upstream.does(strict())
    answer = await ask(rig, talk(6))
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert len(rig.upstream.asked) == 1
    assert len(rig.upstream.asked[0].json["messages"]) == 14


async def test_a_fallback_gets_what_was_left(rig: Rig) -> None:
    configure(rig, "drop_oldest", fallbacks=("large",), attempts=2)

    async def script(asked: Asked, reply: Reply) -> None:
        await (fails(500) if asked.json["model"] == "sim-small" else answers())(asked, reply)

    rig.upstream.does(script)
    answer = await ask(rig, talk(6))
    assert answer.headers["x-llmops-model"] == "large"
    assert len(rig.upstream.asked[0].json["messages"]) == len(rig.upstream.asked[1].json["messages"]) < 14


# ---------------------------------------------------------------------- larger_model


async def test_a_larger_model_gets_what_is_certainly_too_long(rig: Rig) -> None:
    configure(rig, "larger_model")
    rig.upstream.does(strict())
    answer = await ask(rig, talk(6))
    assert (answer.status, answer.headers["x-llmops-model"]) == (200, "large")
    assert answer.headers["x-llmops-context"] == "larger_model"
    assert len(rig.upstream.asked) == 1
    [attempt] = rig.outcome().attempts
    assert attempt.why == "small is passed over: the input is longer than its context window"
    assert len(rig.upstream.asked[0].json["messages"]) == 14


async def test_a_larger_model_follows_a_refusal_also_of_plain_text(rig: Rig) -> None:
    configure(rig, "larger_model")
    rig.upstream.does(strict())
    answer = await ask(rig, talk(3), max_tokens=100)
    assert (answer.headers["x-llmops-model"], answer.headers["x-llmops-context"]) == ("large", "larger_model")
    assert [one.why for one in rig.outcome().attempts] == [
        "",
        "after an input longer than its context window",
    ]
    rig.upstream.does(fails(400, "context_length_exceeded"), answers())
    answer = await rig.call({"model": "chat", "input": "long"}, path="/v1/embeddings")
    assert answer.headers["x-llmops-model"] == "large"


async def test_what_fits_stays_with_the_smaller_one(rig: Rig) -> None:
    configure(rig, "larger_model")
    rig.upstream.does(strict())
    answer = await ask(rig, talk(1))
    assert answer.headers["x-llmops-model"] == "small"
    assert "x-llmops-context" not in answer.headers


# ---------------------------------------------------------------------- summarize


async def test_the_oldest_turns_are_summarised_by_a_call_of_its_own(rig: Rig) -> None:
    configure(rig, "summarize")
    rig.configure(
        models=[
            a_model("small", context_window=2_000, max_output_tokens=100, default_max_output_tokens=50),
            a_model("writer", context_window=20_000),
        ],
        routes=[a_route("chat", "small", context_strategy="summarize", summary_model="writer")],
        budgets=[a_budget()],
    )
    rig.upstream.does(strict(2_000))
    answer = await ask(rig, talk(25))
    assert answer.status == 200, answer.body
    assert answer.headers["x-llmops-context"] == "summarized"
    assert answer.headers["x-llmops-model"] == "small"
    asked, final = rig.upstream.asked
    assert asked.json["model"] == "sim-writer"
    assert asked.json["max_tokens"] == 512
    assert "question 0" in asked.json["messages"][1]["content"]
    assert "tools" not in asked.json
    said = sent(final)
    assert said[0] == "Be brief."
    assert said[1].endswith("\nThe summary.")
    assert final.json["messages"][1]["role"] == "user", "nobody's words become instructions"
    assert said[-1] == "the last question"
    summary, attempt = rig.outcome().attempts
    assert (summary.model, summary.code, summary.status) == ("writer", "", 200)
    assert summary.cost == 2_000 * IN + 20 * OUT
    assert summary.why.startswith("summarises the ")
    assert "summarised" in attempt.why
    assert rig.outcome().cost == summary.cost + attempt.cost
    assert rig.outcome().model == "small"
    assert (rig.outcome().retries, rig.outcome().fallbacks) == (0, 0)
    held = rig.held()
    assert [one.model for one in held] == ["writer", "small"]
    assert held[0].worst_cost >= 512 * OUT
    assert "x-llmops-output-cap" in answer.headers
    assert answer.headers["x-llmops-output-cap"] == "50"


@pytest.mark.parametrize("wrong", [fails(500), fails(401), cuts, answers("")])
async def test_without_a_summary_the_turns_are_left_out(rig: Rig, wrong: Any) -> None:
    rig.configure(
        models=[
            a_model("small", context_window=2_000, max_output_tokens=100, default_max_output_tokens=50),
            a_model("writer", context_window=20_000),
        ],
        routes=[a_route("chat", "small", context_strategy="summarize", summary_model="writer")],
        budgets=[a_budget()],
    )
    fine = strict(2_000)

    async def script(asked: Asked, reply: Reply) -> None:
        await (wrong if asked.json["model"] == "sim-writer" else fine)(asked, reply)

    rig.upstream.does(script)
    answer = await ask(rig, talk(25))
    assert answer.status == 200
    assert answer.headers["x-llmops-context"].startswith("dropped=")
    assert [one.model for one in rig.outcome().attempts] == ["writer", "small"]


async def test_a_summary_that_the_budget_does_not_allow_is_not_made(rig: Rig) -> None:
    rig.configure(
        models=[
            a_model("small", context_window=2_000, max_output_tokens=10, default_max_output_tokens=1),
            a_model("writer", context_window=20_000),
        ],
        routes=[
            a_route("chat", "small", context_strategy="summarize", summary_model="writer", clamp_output=False)
        ],
        budgets=[a_budget(limit_nano=512 * OUT)],
    )
    rig.upstream.does(strict(2_000))
    answer = await ask(rig, talk(25), max_tokens=1)
    assert answer.status == 200, answer.body
    assert [one.json["model"] for one in rig.upstream.asked] == ["sim-small"]


def summarising(rig: Rig, **route: Any) -> None:
    rig.configure(
        models=[
            a_model("small", context_window=2_000, max_output_tokens=100, default_max_output_tokens=50),
            a_model("writer", context_window=20_000),
        ],
        routes=[
            a_route("chat", "small", context_strategy="summarize", summary_model="writer", **route),
        ],
        budgets=[a_budget()],
    )


class OneByOne:
    """A provider that counts how many summaries are asked of it at once, and answers when it is told to."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.go_on = asyncio.Event()

    async def __call__(self, asked: Asked, reply: Reply) -> None:
        if asked.json["model"] != "sim-writer":
            await strict(2_000)(asked, reply)
            return
        self.now += 1
        self.most = max(self.most, self.now)
        await self.go_on.wait()
        self.now -= 1
        await reply.json(completion("The summary."))


async def test_a_summary_takes_a_place_at_its_target_as_any_call_does(rig: Rig) -> None:
    summarising(rig, max_concurrency=1)
    provider = OneByOne()
    rig.upstream.does(provider)
    exchanges = [rig.start({"model": "chat", "messages": talk(25)}) for _ in range(5)]
    await eventually(lambda: provider.now == 1)
    await asyncio.sleep(0.1)
    assert provider.most == 1, "the others wait for their turn"
    provider.go_on.set()
    for exchange in exchanges:
        answer = await exchange.done()
        assert (answer.status, answer.headers["x-llmops-context"]) == (200, "summarized")
    assert provider.most == 1
    outcomes = [one.outcome for one in rig.ended() if one.outcome is not None]
    assert sum(one.queue_us > 50_000 for one in outcomes) >= 4, "and their waiting is recorded"
    assert all(gate.in_flight == 0 for gate in rig.plane.gates.all.values())
    rig.nothing_held()


async def test_where_no_place_comes_free_the_turns_are_left_out(rig: Rig) -> None:
    summarising(rig, max_concurrency=1, queue_size=0)
    provider = OneByOne()
    rig.upstream.does(provider)
    first = rig.start({"model": "chat", "messages": talk(25)})
    await eventually(lambda: provider.now == 1)
    second = await rig.call({"model": "chat", "messages": talk(25)})
    assert second.status == 200, second.body
    assert second.headers["x-llmops-context"].startswith("dropped=")
    provider.go_on.set()
    assert (await first.done()).headers["x-llmops-context"] == "summarized"
    rig.nothing_held()


async def test_a_client_that_hangs_up_while_its_summary_waits_leaves_its_place(rig: Rig) -> None:
    summarising(rig, max_concurrency=1)
    provider = OneByOne()
    rig.upstream.does(provider)
    first = rig.start({"model": "chat", "messages": talk(25)})
    await eventually(lambda: provider.now == 1)
    second = rig.start({"model": "chat", "messages": talk(25)})
    await eventually(lambda: any(gate.queued for gate in rig.plane.gates.all.values()))
    await asyncio.sleep(0.2)
    second.hang_up()
    await second.done()
    provider.go_on.set()
    assert (await first.done()).status == 200
    third = await rig.call({"model": "chat", "messages": talk(25)})
    assert third.headers["x-llmops-context"] == "summarized"
    rig.nothing_held()


async def test_a_summary_model_without_any_room_keeps_no_probe_to_itself(rig: Rig) -> None:
    configure(rig, "summarize")
    rig.configure(
        models=[
            a_model("small", context_window=2_000, max_output_tokens=100, default_max_output_tokens=50),
            a_model("writer", context_window=600),
        ],
        routes=[a_route("chat", "small", context_strategy="summarize", summary_model="writer")],
        budgets=[a_budget()],
    )
    view = rig.plane.view
    breaker = rig.plane.breakers.of(view.snapshot.routes["chat"], view.targets["writer"], "support")
    breaker.open_until = 0.001
    rig.upstream.does(answers("fits"))
    answer = await ask(rig, talk(40))
    assert (answer.status, len(rig.upstream.asked)) == (200, 1)
    assert answer.headers["x-llmops-context"].startswith("dropped=")
    assert not breaker.probing and breaker.allows(1e9), "the next one may find out"
