"""What a chat call costs when it hears, sees or speaks, and when it is served in another service tier than it asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmops.serving.snapshot import PriceRow
from tests.gateway.rig import DONE, USD, Asked, Reply, Rig, a_budget, a_model, chunk, completion, usage

PRICES = (
    PriceRow("input", 0, 2 * USD),
    PriceRow("output", 0, 10 * USD),
    PriceRow("input_priority", 0, 4 * USD),
    PriceRow("output_priority", 0, 20 * USD),
    PriceRow("input_flex", 0, USD),
    PriceRow("output_flex", 0, 5 * USD),
    PriceRow("audio_input", 0, 40 * USD),
    PriceRow("audio_output", 0, 80 * USD),
)


def a_priced_rig(rig: Rig) -> None:
    rig.configure(models=[a_model(prices=PRICES)], budgets=[a_budget()])


def answers_in(tier: Any) -> Any:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(completion(used=usage(10, 5), service_tier=tier))

    return script


@pytest.mark.parametrize(
    ("asked", "answered", "prices", "worst"),
    [
        (None, "default", (2_000, 10_000), (2_000, 10_000)),
        ("auto", None, (2_000, 10_000), (2_000, 10_000)),
        ("default", "priority", (4_000, 20_000), (2_000, 10_000)),
        ("priority", "priority", (4_000, 20_000), (4_000, 20_000)),
        ("fast", "priority", (4_000, 20_000), (4_000, 20_000)),
        ("priority", "default", (2_000, 10_000), (4_000, 20_000)),
        ("flex", "flex", (1_000, 5_000), (2_000, 10_000)),
        ("scale", "scale", (2_000, 10_000), (2_000, 10_000)),
    ],
)
async def test_the_tier_that_answered_is_priced_and_the_dearest_allowed_one_is_held(
    rig: Rig, asked: str | None, answered: str | None, prices: tuple[int, int], worst: tuple[int, int]
) -> None:
    a_priced_rig(rig)
    rig.upstream.does(answers_in(answered))
    members = {} if asked is None else {"service_tier": asked}
    answer = await rig.chat(**members)
    assert answer.status == 200
    assert rig.upstream.asked[0].json.get("service_tier") == asked
    size = rig.ended()[0].origin.bytes_in
    assert rig.held()[0].worst_cost == size * worst[0] + 100 * worst[1]
    assert rig.outcome().cost == 10 * prices[0] + 5 * prices[1]
    assert rig.outcome().tokens.tier == ("" if answered in (None, "default") else answered)
    rig.nothing_held()


@pytest.mark.parametrize("tier", ["priority", "fast", "ultrafast"])
async def test_a_dearer_tier_without_prices_is_refused_under_a_hard_budget(rig: Rig, tier: str) -> None:
    plain = PRICES[:2]
    rig.configure(models=[a_model(prices=plain)], budgets=[a_budget()])
    refused = await rig.chat(service_tier=tier)
    assert (refused.status, refused.error["code"]) == (422, "model_not_priced")
    assert refused.error["param"] == "service_tier"
    assert "'team'" in refused.error["message"]
    assert rig.upstream.asked == []
    rig.nothing_held()
    # Nothing is promised to a soft budget, and flex is cheaper than what is held.
    rig.configure(models=[a_model(prices=plain)], budgets=[a_budget(hard=False)], version=2)
    rig.upstream.does(answers_in(tier))
    assert (await rig.chat(service_tier=tier)).status == 200
    rig.configure(models=[a_model(prices=plain)], budgets=[a_budget()], version=3)
    rig.upstream.does(answers_in("flex"))
    assert (await rig.chat(service_tier="flex")).status == 200


async def test_a_stream_is_priced_by_the_tier_that_its_chunks_name(rig: Rig) -> None:
    a_priced_rig(rig)

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(
            chunk(content="Hi", service_tier="auto"),
            chunk(finish="stop", service_tier="priority"),
            chunk(choices=[], used=usage(10, 5), service_tier="priority"),
            DONE,
        )

    rig.upstream.does(script)
    await rig.chat(stream=True, service_tier="priority")
    assert rig.outcome().cost == 10 * 4_000 + 5 * 20_000
    assert rig.outcome().tokens.tier == "priority"


async def test_sound_is_priced_as_sound_and_held_for_only_where_it_can_come(rig: Rig) -> None:
    a_priced_rig(rig)
    used = usage(100, 50)
    used["prompt_tokens_details"] = {"audio_tokens": 60, "cached_tokens": 0}
    used["completion_tokens_details"] = {"audio_tokens": 30, "reasoning_tokens": 0}

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(completion(used=used))

    rig.upstream.does(script)
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 4_000, "format": "wav"}}
    body = {
        "model": "small",
        "messages": [{"role": "user", "content": [sound]}],
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "wav"},
    }
    await rig.call(body)
    assert rig.outcome().cost == 40 * 2_000 + 60 * 40_000 + 20 * 10_000 + 30 * 80_000
    media = rig.outcome().tokens.media
    assert (media.audio_input, media.audio_output) == (60, 30)
    tokens = len(json.dumps(body)) - 4_000 + 30
    assert rig.held()[0].worst_cost == tokens * 40_000 + 100 * 80_000


async def test_a_model_priced_by_what_it_makes_cannot_be_chatted_with_under_a_budget(rig: Rig) -> None:
    rig.configure(models=[a_model(prices=(PriceRow("characters", 0, USD),))], budgets=[a_budget()])
    answer = await rig.chat()
    assert (answer.status, answer.error["code"]) == (422, "model_not_priced")
    assert not rig.upstream.asked
