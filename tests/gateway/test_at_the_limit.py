"""What happens to a call that no longer fits into a budget: it goes the cheaper route, or is refused in so many words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from llmops.serving.snapshot import PriceRow
from tests.gateway.rig import (
    DONE,
    USD,
    Rig,
    a_budget,
    a_model,
    a_route,
    answers,
    chunk,
    cuts,
    fails,
    streams,
    usage,
    usage_chunk,
)

#: A hundred times the price of ``small``: an answer of 100 tokens is held at about 0.1 USD, and at 0.001 by ``small``.
DEAR = a_model("large", prices=(PriceRow("input", 0, 100 * USD), PriceRow("output", 0, 1000 * USD)))
CENT = USD // 100


def configured(rig: Rig, *budgets: Any, **more: Any) -> None:
    routes = more.pop("routes", (a_route("chat", "large", clamp_output=False), a_route("cheap", "small")))
    rig.configure(models=(a_model(), DEAR), routes=routes, budgets=budgets, **more)


def tight(slug: str = "team", limit: int = 5 * CENT, **changes: Any) -> Any:
    return a_budget(slug, limit, **({"at_limit_route": "cheap"} | changes))


async def test_what_no_longer_fits_goes_the_cheaper_route_and_says_so(rig: Rig) -> None:
    configured(rig, tight())
    answer = await rig.chat(model="chat")
    assert answer.status == 200
    assert answer.headers["x-llmops-budget-route"] == "cheap"
    assert answer.headers["x-llmops-budget"] == "team"
    assert answer.headers["x-llmops-model"] == "small" and answer.headers["x-llmops-attempts"] == "1"
    assert [one.json["model"] for one in rig.upstream.asked] == ["sim-small"]
    outcome, held = rig.outcome(), rig.held()
    assert "the budget 'team' has too little left: by the route 'cheap'" in outcome.attempts[0].why
    assert [len(one.charges) for one in held] == [1], "it is inside the budget that it did not fit into"
    assert rig.ended()[-1].origin.route == "chat"
    rig.nothing_held()


async def test_what_fits_stays_where_it_was(rig: Rig) -> None:
    configured(rig, tight(limit=USD))
    answer = await rig.chat(model="chat")
    assert answer.headers["x-llmops-model"] == "large" and "x-llmops-budget-route" not in answer.headers
    rig.nothing_held()


async def test_what_fits_nowhere_is_refused_with_everything_one_needs_to_know(rig: Rig) -> None:
    configured(rig, tight(limit=1_000))
    answer = await rig.chat(model="chat")
    assert answer.status == 429 and answer.error["code"] == "insufficient_quota"
    message = answer.error["message"]
    assert "'team'" in message and "$0.000001 of its $0.000001 left" in message
    assert "may cost up to $0.00" in message and "resets at" in message and "raise" in message
    headers = answer.headers
    assert headers["x-llmops-budget"] == "team" and headers["x-llmops-budget-left-usd"] == "0.000001"
    assert float(headers["x-llmops-budget-needed-usd"]) > 0.000001
    resets = datetime.strptime(headers["x-llmops-budget-resets"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert resets.day == 1 and resets > datetime.now(UTC)
    assert headers["x-should-retry"] == "false"
    assert not rig.upstream.asked
    rig.nothing_held()


async def test_a_budget_that_never_resets_says_no_moment(rig: Rig) -> None:
    configured(rig, tight(limit=1_000, period="once", at_limit_route=""))
    answer = await rig.chat(model="chat")
    assert answer.status == 429 and "x-llmops-budget-resets" not in answer.headers
    assert "does not reset" in answer.error["message"]


@pytest.mark.parametrize("why", ["unknown", "paused", "its own", "none"])
async def test_without_a_route_that_can_be_used_it_is_refused(rig: Rig, why: str) -> None:
    named = {"unknown": "nowhere", "paused": "cheap", "its own": "chat", "none": ""}[why]
    configured(rig, tight(at_limit_route=named), paused_routes={"cheap": "closed"} if why == "paused" else {})
    answer = await rig.chat(model="chat")
    assert answer.status == 429 and not rig.upstream.asked
    rig.nothing_held()


async def test_the_cheaper_route_comes_before_a_lower_cap_and_the_cap_after_it(rig: Rig) -> None:
    routes = (a_route("chat", "large"), a_route("cheap", "small"))
    configured(rig, tight(), routes=routes)
    answer = await rig.chat(model="chat")
    assert answer.headers["x-llmops-budget-route"] == "cheap"
    assert answer.headers["x-llmops-output-cap"] == "100", "the model's own"
    # 100 tokens of the cheaper model do not fit either: fewer do.
    configured(rig, tight("tighter", limit=700_000), routes=routes)
    answer = await rig.chat(model="chat", max_tokens=100)
    assert answer.status == 200 and 16 <= int(answer.headers["x-llmops-output-cap"]) < 100
    rig.nothing_held()


async def test_it_holds_on_every_budget_there_too(rig: Rig) -> None:
    of_route = a_budget("cheap-route", 10, scope_kind="route", scope_value="cheap", project=None)
    configured(rig, tight(), of_route)
    answer = await rig.chat(model="chat")
    assert answer.status == 429 and "'cheap-route'" in answer.error["message"]
    configured(rig, tight(), a_budget("roomy", USD, scope_kind="route", scope_value="cheap", project=None))
    answer = await rig.chat(model="chat")
    assert answer.status == 200 and len(rig.held()[-1].charges) == 2
    rig.nothing_held()


async def test_of_several_the_one_that_is_short_decides(rig: Rig) -> None:
    roomy = a_budget(
        "roomy", 10 * USD, scope_kind="organisation", scope_value="", project=None, at_limit_route="chat"
    )
    configured(rig, roomy, tight())
    answer = await rig.chat(model="chat")
    assert answer.headers["x-llmops-budget"] == "team"
    # One that is short and names nothing does not keep another that is short from naming a route.
    silent = a_budget("silent", 5 * CENT, scope_kind="organisation", scope_value="", project=None)
    configured(rig, silent, tight("loud"))
    answer = await rig.chat(model="chat")
    assert answer.headers["x-llmops-budget"] == "loud" and len(rig.held()[-1].charges) == 2
    rig.nothing_held()


async def test_a_second_attempt_that_does_not_fit_goes_there(rig: Rig) -> None:
    configured(rig, tight(limit=15 * CENT))
    # The first attempt may have been billed: its hold is spent, and the second has too little.
    rig.upstream.does(cuts, answers("there"))
    answer = await rig.chat(model="chat")
    assert answer.status == 200 and answer.headers["x-llmops-budget-route"] == "cheap"
    assert [one.model for one in rig.outcome().attempts] == ["large", "small"]
    assert sum(one.cost for ended in rig.ended() for one in ended.charges) <= 15 * CENT
    rig.nothing_held()


async def test_streams_go_there(rig: Rig) -> None:
    configured(rig, tight())
    rig.upstream.does(streams(chunk("Hel"), chunk("lo", finish="stop"), usage_chunk(), DONE))
    answer = await rig.chat(model="chat", stream=True)
    assert answer.status == 200 and answer.body.endswith(DONE)
    assert answer.headers["x-llmops-budget-route"] == "cheap"
    rig.nothing_held()


async def test_its_answer_is_not_kept_for_those_who_pay_in_full(rig: Rig) -> None:
    routes = (a_route("chat", "large", clamp_output=False, cache_ttl_s=60), a_route("cheap", "small"))
    configured(rig, tight(), routes=routes)
    await rig.chat(model="chat")
    again = await rig.chat(model="chat")
    assert again.headers["x-llmops-cache"] == "miss" and len(rig.upstream.asked) == 2
    rig.nothing_held()


async def test_when_that_fails_too_its_failure_is_told(rig: Rig) -> None:
    configured(rig, tight())
    rig.upstream.does(fails(500))
    answer = await rig.chat(model="chat")
    assert answer.status == 502 and rig.outcome().attempts[0].model == "small"
    rig.nothing_held()


async def test_calls_by_a_models_own_name_go_there(rig: Rig) -> None:
    configured(rig, tight(), routes=(a_route("cheap", "small"),))
    rig.upstream.does(answers("Hello", used=usage(3, 3)))
    answer = await rig.chat(model="large", max_tokens=100)
    assert answer.status == 200 and answer.headers["x-llmops-model"] == "small"
    rig.nothing_held()
