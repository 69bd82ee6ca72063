"""Calls that are in order and may not go now: what is paused, without a price, or limited."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from llmops.serving.snapshot import PriceRow
from tests.gateway.rig import (
    KEY,
    Rig,
    a_budget,
    a_key,
    a_model,
    a_route,
    ask,
    eventually,
)
from tests.gateway.test_bad_input import untouched


async def test_what_is_paused_says_why(rig: Rig) -> None:
    rig.configure(routes=[a_route()], paused_routes={"chat": "the model hallucinates dates"})
    answer = await rig.chat(model="chat")
    assert (answer.status, answer.error["code"]) == (503, "route_paused")
    assert "the model hallucinates dates" in answer.error["message"]
    rig.configure(paused_providers={"up": "contract ended"})
    answer = await rig.chat()
    assert (answer.status, answer.error["code"]) == (503, "provider_paused")
    assert "contract ended" in answer.error["message"]
    untouched(rig)


@pytest.mark.parametrize("hard", [True, False])
async def test_a_model_without_a_price_under_a_budget_is_refused_with_a_sentence(
    rig: Rig, hard: bool
) -> None:
    rig.configure(models=[a_model(prices=())], budgets=[a_budget("team", hard=hard)])
    answer = await rig.chat()
    assert (answer.status, answer.error["code"]) == (422, "model_not_priced")
    assert "'small'" in answer.error["message"]
    assert "'team'" in answer.error["message"]
    untouched(rig)


async def test_a_price_of_the_future_is_none_yet(rig: Rig) -> None:
    later = int(time.time()) + 1_000
    rig.configure(
        models=[a_model(prices=(PriceRow("input", later, 1), PriceRow("output", later, 1)))],
        budgets=[a_budget()],
    )
    assert (await rig.chat()).status == 422


async def test_without_a_budget_a_model_needs_no_price(rig: Rig) -> None:
    rig.configure(models=[a_model(prices=())])
    assert (await rig.chat()).status == 200
    assert rig.outcome().cost == 0


async def test_rate_limits_name_themselves_and_when_to_come_back(rig: Rig) -> None:
    rig.configure(keys={KEY: a_key("batch", rpm=2)})
    first, _, third = [await rig.chat() for _ in range(3)]
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert (third.status, third.error["code"]) == (429, "rate_limit_exceeded")
    assert "'batch'" in third.error["message"]
    assert 1 <= int(third.headers["retry-after"]) <= 120
    assert [one.outcome.status for one in rig.ended() if one.outcome] == ["ok", "ok", "refused"]


async def test_tokens_a_minute_are_counted_exactly_when_the_bound_does_not_fit(rig: Rig) -> None:
    # 600 bytes of words are far fewer tokens, so the call fits once it is counted.
    rig.configure(keys={KEY: a_key(tpm=500)}, models=[a_model(default_max_output_tokens=100)])
    assert (await rig.chat(text="hello " * 100)).status == 200
    answer = await rig.chat(text="hello " * 600)
    assert (answer.status, answer.error["code"]) == (429, "tokens_limit_exceeded")
    assert (
        "x-ratelimit-limit-tokens" not in answer.headers
        or answer.headers["x-ratelimit-limit-tokens"] == "500"
    )


async def test_what_a_call_did_not_use_is_given_back_to_the_minute(rig: Rig) -> None:
    rig.configure(keys={KEY: a_key(tpm=300)}, models=[a_model(default_max_output_tokens=100)])
    for _ in range(6):
        answer = await rig.chat(text="hi")
        assert answer.status == 200, answer.body
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) >= 300 - 6 * 15 - 1


async def test_calls_at_once_are_limited_and_freed_however_they_end(rig: Rig) -> None:
    async def waits(asked: Any, reply: Any) -> None:
        await asyncio.Event().wait()

    rig.configure(keys={KEY: a_key(concurrency=2)})
    rig.upstream.does(waits)
    under_way = [rig.start(ask()), rig.start(ask())]
    await eventually(lambda: len(rig.upstream.asked) == 2)
    third = await rig.chat()
    assert (third.status, third.error["code"]) == (429, "concurrency_limit_exceeded")
    for exchange in under_way:
        exchange.hang_up()
        await exchange.done()
    rig.upstream.does(rig.upstream.scripts[0])
    last = rig.start(ask())
    await eventually(lambda: len(rig.upstream.asked) == 3)
    last.hang_up()
    await last.done()
