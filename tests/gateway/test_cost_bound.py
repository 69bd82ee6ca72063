"""``x-llmops-max-cost-nano``: what the caller lets a call cost is kept by its worst cost, before anything is sent."""

from __future__ import annotations

import pytest

from llmops.core.tokens import count_chat
from tests.gateway.batching import create
from tests.gateway.keeping import MINE
from tests.gateway.making import TOKEN_PRICES
from tests.gateway.rig import KEY, Answer, Rig, a_budget, a_model, a_provider, a_route, answers, ask, cuts
from tests.gateway.test_images import GENERATIONS

IN, OUT = 1_000, 10_000


async def within(rig: Rig, nano: int | str, **members: object) -> Answer:
    return await rig.call(ask(**members), headers={"x-llmops-max-cost-nano": str(nano)})  # type: ignore[arg-type]


@pytest.mark.parametrize("budgets", [(), (a_budget(),)])
async def test_what_fits_goes_as_it_is_and_what_does_not_gets_a_lower_cap(
    rig: Rig, budgets: tuple[object]
) -> None:
    rig.configure(budgets=budgets)
    assert (await within(rig, 10**9)).status == 200
    assert rig.upstream.asked[-1].json["max_tokens"] == 100
    counted = count_chat(ask()["messages"], "sim-small")
    answer = await within(rig, counted * IN + 40 * OUT)
    assert answer.status == 200 and answer.headers["x-llmops-output-cap"] == "40"
    assert rig.upstream.asked[-1].json["max_tokens"] == 40
    assert rig.held()[-1].worst_cost == counted * IN + 40 * OUT
    rig.nothing_held()


async def test_what_cannot_fit_is_refused_with_what_to_do_and_nothing_is_sent(rig: Rig) -> None:
    refused = await within(rig, 5 * OUT)
    assert (refused.status, refused.error["code"]) == (422, "cost_bound_exceeded")
    assert refused.error["param"] == "x-llmops-max-cost-nano" and "lower cap" in refused.error["message"]
    rig.configure(routes=[a_route(clamp_output=False)])
    assert (await within(rig, 50 * OUT, model="chat")).status == 422
    assert rig.upstream.asked == []


async def test_a_model_without_a_price_cannot_be_bounded(rig: Rig) -> None:
    rig.configure(models=[a_model(prices=())])
    refused = await within(rig, 10**9)
    assert (refused.status, refused.error["code"]) == (422, "model_not_priced")


@pytest.mark.parametrize("bad", ["-1", "1.5", "x", "9" * 17, ""])
async def test_what_is_no_number_is_named(rig: Rig, bad: str) -> None:
    refused = await within(rig, bad)
    assert (refused.status, refused.error["param"]) == (400, "x-llmops-max-cost-nano")


async def test_attempts_of_a_call_share_what_it_may_cost(rig: Rig) -> None:
    """The first attempt breaks off in the middle, and is charged at its hold: what is left is too little for a second."""
    rig.configure(
        models=[a_model(), a_model("other")], routes=[a_route("chat", "small", fallbacks=("other",))]
    )
    most = count_chat(ask()["messages"], "sim-small") * IN + 110 * OUT
    rig.upstream.does(cuts, answers("Hello"))
    answer = await within(rig, most, model="chat")
    assert (answer.status, answer.error["code"]) == (422, "cost_bound_exceeded")
    assert len(rig.upstream.asked) == 1 and most - rig.held()[0].worst_cost < 16 * OUT


BOUND = {"x-llmops-max-cost-nano": str(10**12)}


async def test_what_is_not_known_before_cannot_be_bounded(kept: Rig) -> None:
    """However high the bound: a batch, a path that is passed through, a picture of any size, a tier without prices."""
    kept.configure(
        providers=[a_provider(base_url=kept.upstream.url, passthrough=("/rerank",))],
        models=[
            a_model(),
            a_model("draw", upstream_model="unheard-of", prices=TOKEN_PRICES, max_output_tokens=0),
        ],
        keys={KEY: MINE},
    )
    refused = [
        await create(kept, headers=BOUND),
        await kept.call({"model": "sim-small"}, path="/v1/rerank", headers=BOUND),
        await kept.call({"model": "draw", "prompt": "a cat"}, path=GENERATIONS, headers=BOUND),
        await kept.call(ask(service_tier="priority"), headers=BOUND),
    ]
    assert [(one.status, one.error["code"]) for one in refused] == [(422, "not_metered")] * 3 + [
        (422, "model_not_priced")
    ]
    assert all("x-llmops-max-cost-nano" in one.error["message"] for one in refused)
    assert kept.upstream.asked == []
