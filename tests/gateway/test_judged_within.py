"""What policies ask of moderation models is within what the caller lets the call cost, and on the budgets that the call is on."""

from __future__ import annotations

from typing import Any

import pytest

from llmops.core.tokens import count_chat
from llmops.core.verdicts import AFTER, BEFORE, BLOCK
from llmops.serving.snapshot import PriceRow
from tests.gateway.rig import (
    DONE,
    KEY,
    USD,
    Answer,
    Asked,
    Reply,
    Rig,
    Script,
    a_budget,
    a_key,
    a_model,
    a_route,
    answers,
    ask,
    chunk,
    cuts,
    streams,
    usage,
    usage_chunk,
)
from tests.gateway.test_policing import policy

IN, OUT, JUDGING = 1_000, 10_000, 50_000
TEXT = "Say something about the weather in the town where you live"
ASKED = count_chat(ask(text=TEXT)["messages"], "sim-small")


def judges(flagged: bool = False, tokens: int = 10) -> Script:
    async def script(asked: Asked, reply: Reply) -> None:
        result = {"flagged": flagged, "categories": {"violence": flagged}, "category_scores": {}}
        content = {"id": "m", "model": "omni", "results": [result]}
        await reply.json(content | {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}})

    return script


def configured(rig: Rig, *stages: str, price: int = JUDGING, on_failure: str = "closed", **what: Any) -> None:
    """A moderation model that is dearer than the model itself: nanodollars a token of its input."""
    rig.configure(
        models=[
            a_model(),
            a_model("omni", prices=(PriceRow("input", 0, price * 1_000_000),)),
            a_model("other"),
        ],
        policies=[
            policy(
                *(
                    ("moderation", stage, BLOCK, {"model": "omni", "on_failure": on_failure})
                    for stage in stages
                )
            )
        ],
        **({"budgets": [a_budget(limit_nano=USD)]} | what),
    )


async def within(rig: Rig, nano: int, **members: Any) -> Answer:
    return await rig.call(ask(text=TEXT, **members), headers={"x-llmops-max-cost-nano": str(nano)})


def spent(rig: Rig) -> int:
    return sum(one.cost for one in rig.ended())


def sent(rig: Rig) -> list[str]:
    return [one.path.removeprefix("/v1/") for one in rig.upstream.asked]


async def test_what_is_asked_about_the_request_is_taken_from_what_it_may_cost(rig: Rig) -> None:
    configured(rig, BEFORE)
    rig.upstream.does(judges(tokens=10), answers("Rain", usage(ASKED, 5)))
    most = 10 * JUDGING + ASKED * IN + 40 * OUT
    answer = await within(rig, most + 5 * JUDGING)
    assert answer.status == 200
    held = {one.origin.endpoint: one for one in rig.held()}
    assert held["chat.completions"].worst_cost <= most + 5 * JUDGING - 10 * JUDGING
    assert held["moderations"].charges and spent(rig) <= most
    rig.nothing_held()


async def test_a_bound_that_the_opinion_alone_exceeds_refuses_before_anything_is_sent(rig: Rig) -> None:
    for on_failure in ("closed", "open"):
        configured(rig, BEFORE, on_failure=on_failure)
        refused = await within(rig, 3 * JUDGING)
        assert (refused.status, refused.error["code"]) == (422, "cost_bound_exceeded")
        assert refused.error["param"] == "x-llmops-max-cost-nano"
        assert "the moderation model 'omni'" in refused.error["message"]
    assert sent(rig) == [] and spent(rig) == 0


async def test_what_is_left_after_the_opinion_bounds_the_call(rig: Rig) -> None:
    configured(rig, BEFORE)
    rig.upstream.does(judges(tokens=11))
    refused = await within(rig, 14 * JUDGING)
    assert (refused.status, refused.error["code"]) == (422, "cost_bound_exceeded")
    assert sent(rig) == ["moderations"] and spent(rig) == 11 * JUDGING
    rig.nothing_held()


@pytest.mark.parametrize("stream", [False, True])
async def test_for_an_opinion_about_the_answer_money_is_put_aside_before(rig: Rig, stream: bool) -> None:
    configured(rig, AFTER)
    body = [chunk("Rain"), chunk(finish="stop"), usage_chunk(prompt=ASKED, completion=1), DONE]
    said = streams(*body) if stream else answers("Rain", usage(ASKED, 1))
    rig.upstream.does(said, judges(tokens=1))
    # Each token of the answer may cost its own price, and that of an opinion about it.
    most = ASKED * IN + 100 * (OUT + JUDGING)
    answer = await within(rig, most, stream=stream)
    assert answer.status == 200 and "x-llmops-output-cap" in answer.headers
    assert rig.held()[0].cap == 100
    assert sent(rig) == ["chat/completions", "moderations"] and spent(rig) <= most
    # With less there is room for a shorter answer, or for none.
    rig.upstream.does(said, judges(tokens=1))
    less = await within(rig, most - 20 * OUT, stream=stream)
    assert less.status == 200 and int(less.headers["x-llmops-output-cap"]) < 100
    refused = await within(rig, 100 * JUDGING, stream=stream)
    assert (refused.status, refused.error["code"]) == (422, "cost_bound_exceeded")
    rig.nothing_held()


@pytest.mark.parametrize(("on_failure", "status"), [("open", 200), ("closed", 422)])
async def test_an_opinion_that_costs_more_than_was_put_aside_is_not_asked(
    rig: Rig, on_failure: str, status: int
) -> None:
    """An answer that counts more tokens at the moderation model than the model itself says: the bound holds all the same."""
    configured(rig, AFTER, on_failure=on_failure)
    rig.upstream.does(answers("word " * 400, usage(ASKED, 20)), judges(tokens=400))
    most = ASKED * IN + 20 * OUT + 20 * JUDGING
    answer = await within(rig, most, max_tokens=20)
    assert answer.status == status
    assert "moderations" not in sent(rig) and spent(rig) <= most
    rig.nothing_held()


async def test_attempts_and_opinions_together_stay_within(rig: Rig) -> None:
    configured(rig, BEFORE, AFTER, routes=[a_route("chat", "small", fallbacks=("other",))])
    rig.upstream.does(judges(tokens=10), cuts, answers("Rain", usage(ASKED, 5)), judges(tokens=5))
    for most in range(2_000_000, 14_000_000, 1_500_000):
        before = spent(rig)
        rig.upstream.does(judges(tokens=10), cuts, answers("Rain", usage(ASKED, 5)), judges(tokens=5))
        await within(rig, most, model="chat")
        assert spent(rig) - before <= most
    rig.nothing_held()


async def test_an_opinion_counts_on_the_budget_of_the_end_user_whom_the_body_names(rig: Rig) -> None:
    configured(
        rig,
        BEFORE,
        budgets=[a_budget("bobs", limit_nano=USD, scope_kind="user", scope_value="bob")],
    )
    rig.upstream.does(judges(), answers("Rain"))
    assert (await rig.chat(text=TEXT, user="bob")).status == 200
    held = {one.origin.endpoint: one for one in rig.held()}
    assert len(held["moderations"].charges) == len(held["chat.completions"].charges) == 1
    assert held["moderations"].origin.user == held["chat.completions"].origin.user != ""
    # A name that no header can say is no reason to refuse.
    rig.upstream.does(judges(), answers("Rain"))
    assert (await rig.chat(text=TEXT, user="bob\u2028\n ")).status == 200


async def test_a_moderation_model_without_a_price_costs_nothing_of_the_bound(rig: Rig) -> None:
    configured(rig, BEFORE, AFTER)
    rig.configure(
        models=[a_model(), a_model("omni", prices=())],
        policies=[policy(*(("moderation", stage, BLOCK, {"model": "omni"}) for stage in (BEFORE, AFTER)))],
    )
    rig.upstream.does(judges(), answers("Rain", usage(ASKED, 5)), judges())
    assert (await within(rig, ASKED * IN + 100 * OUT)).status == 200
    assert sent(rig) == ["moderations", "chat/completions", "moderations"]


@pytest.mark.parametrize("stage", [BEFORE, AFTER])
async def test_a_key_of_one_call_at_once_has_room_for_the_opinion_about_it(rig: Rig, stage: str) -> None:
    configured(rig, stage, keys={KEY: a_key(concurrency=1, rpm=100)})
    rig.upstream.does(*((judges(), answers("Rain")) if stage == BEFORE else (answers("Rain"), judges())))
    answer = await rig.chat(text=TEXT)
    assert answer.status == 200 and len(sent(rig)) == 2
    # The call counts, and not what the console asks about it.
    assert answer.headers["x-ratelimit-remaining-requests"] == "99"


async def test_who_is_over_the_limit_is_told_so_and_makes_nobody_judge(rig: Rig) -> None:
    configured(rig, BEFORE, keys={KEY: a_key(rpm=1)})
    rig.upstream.does(judges(), answers("Rain"))
    assert (await rig.chat(text=TEXT)).status == 200
    refused = await rig.chat(text=TEXT)
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert sent(rig) == ["moderations", "chat/completions"]


async def test_why_there_is_no_opinion_stands_in_the_verdict(rig: Rig) -> None:
    rig.configure(
        models=[a_model()],
        policies=[policy(("moderation", BEFORE, BLOCK, {"model": "nobody"}))],
    )
    assert (await rig.chat(text=TEXT)).status == 400
    told = [one.outcome for one in rig.ended() if one.outcome is not None and one.outcome.verdicts]
    assert told[0].verdicts[0].note == "nobody did not answer (model_not_found)"
