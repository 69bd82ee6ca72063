"""POST /v1/moderations: free unless it has a price, and nothing of it is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmops.serving.snapshot import PriceRow
from tests.gateway.rig import USD, Asked, Reply, Rig, a_budget, a_model, a_route, hangs

PATH = "/v1/moderations"
JUDGED = {"id": "modr-1", "model": "omni-moderation-2024-09-26", "results": [{"flagged": False}]}


async def judges(asked: Asked, reply: Reply) -> None:
    await reply.json(JUDGED)


@pytest.mark.parametrize(
    "given",
    [
        "text",
        "",
        ["one", "two"],
        [
            {"type": "text", "text": "x"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
        ],
    ],
)
async def test_a_moderation_needs_no_price_and_costs_nothing(rig: Rig, given: Any) -> None:
    rig.configure(models=[a_model("mod", prices=())], budgets=[a_budget(limit_nano=1)])
    rig.upstream.does(judges)
    answer = await rig.call({"model": "mod", "input": given, "more": None}, path=PATH)
    assert (answer.status, answer.json) == (200, JUDGED)
    [asked] = rig.upstream.asked
    assert (asked.path, asked.json) == (PATH, {"model": "sim-mod", "input": given, "more": None})
    outcome = rig.outcome()
    assert (outcome.cost, outcome.tokens.input, outcome.tokens.estimated) == (0, 0, False)
    assert rig.ended()[0].origin.endpoint == "moderations"


async def test_a_moderation_with_a_price_costs_what_its_text_counts(rig: Rig) -> None:
    rig.configure(models=[a_model("mod", prices=(PriceRow("input", 0, USD),))], budgets=[a_budget()])
    rig.upstream.does(judges)
    await rig.call({"model": "mod", "input": ["one two", "three"]}, path=PATH)
    outcome = rig.outcome()
    assert (outcome.cost, outcome.tokens.input, outcome.tokens.estimated) == (3_000, 3, True)


async def test_without_a_model_it_is_the_one_that_openai_takes(rig: Rig) -> None:
    rig.configure(models=[a_model("mod", prices=())], routes=[a_route("omni-moderation-latest", "mod")])
    rig.upstream.does(judges)
    assert (await rig.call({"input": "x"}, path=PATH)).status == 200
    assert rig.ended()[0].origin.route == "omni-moderation-latest"
    rig.configure()
    answer = await rig.call({"input": "x"}, path=PATH)
    assert (answer.status, answer.error["param"]) == (404, "model")


async def test_a_moderation_that_fails_is_free(rig: Rig) -> None:
    rig.configure(
        models=[a_model("mod", prices=())], routes=[a_route("chat", "mod", attempts=1, total_timeout_ms=200)]
    )
    rig.upstream.does(hangs)
    assert (await rig.call({"model": "chat", "input": "x"}, path=PATH)).status == 504
    assert rig.outcome().cost == 0


@pytest.mark.parametrize(
    ("given", "param"), [(None, "input"), (5, "input"), ({}, "input"), ([5], "input[0]")]
)
async def test_bad_input_is_a_400_that_names_the_member(rig: Rig, given: Any, param: str) -> None:
    answer = await rig.call(json.dumps({"model": "small", "input": given}).encode(), path=PATH)
    assert (answer.status, answer.error["param"]) == (400, param)
