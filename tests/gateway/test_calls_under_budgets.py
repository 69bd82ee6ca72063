"""Calls under hard budgets: what is refused, what the cap is lowered to, what bounds a request that is not text."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from llmops.core.tokens import count_chat
from llmops.gateway.kept.owners import AUDIO, FILE
from llmops.gateway.money.bank import Short
from llmops.serving.snapshot import PriceRow
from tests.gateway.rig import (
    KEY,
    USD,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_key,
    a_model,
    a_route,
    answers,
    ask,
    completion,
    eventually,
    hangs,
    usage,
)

IN, OUT = 1_000, 10_000  # nanodollars a token, as a_model has it


# ---------------------------------------------------------------------- budgets


async def test_a_refusal_names_the_budget_what_is_left_and_when_it_resets(rig: Rig) -> None:
    rig.configure(budgets=[a_budget("team-month", limit_nano=10 * OUT)])
    answer = await rig.chat()
    assert (answer.status, answer.error["code"], answer.error["type"]) == (
        429,
        "insufficient_quota",
        "insufficient_quota",
    )
    message = answer.error["message"]
    assert "'team-month'" in message
    assert "$0.0001 " in message or "$0.000100 " in message
    assert "resets at 20" in message
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["x-should-retry"] == "false"
    assert rig.upstream.asked == []
    [ended] = rig.ended()
    assert (ended.attempt, ended.outcome.status, ended.outcome.code) == (0, "refused", "insufficient_quota")
    assert (ended.short.window > 0, ended.short.limit) == (True, 10 * OUT)


async def test_the_output_cap_is_lowered_to_what_is_left(rig: Rig) -> None:
    counted = count_chat(ask()["messages"], "sim-small")
    rig.configure(budgets=[a_budget(limit_nano=counted * IN + 40 * OUT + 999)])
    answer = await rig.chat()
    assert answer.status == 200
    assert answer.headers["x-llmops-output-cap"] == "40"
    assert rig.upstream.asked[0].json["max_tokens"] == 40
    assert (rig.outcome().clamped, rig.outcome().cap) == (True, 40)
    [held] = rig.held()
    assert held.worst_cost == counted * IN + 40 * OUT


async def test_it_is_lowered_whatever_else_the_purse_does_meanwhile(rig: Rig) -> None:
    """A budget at rest keeps nothing here, so that what a call asked for would go back at once."""
    counted = count_chat(ask()["messages"], "sim-small")
    budget = a_budget(limit_nano=counted * IN + 40 * OUT)
    rig.configure(budgets=[budget])
    purse = rig.plane.purse

    async def tick_on() -> None:
        while True:
            purse.tick({budget.id: budget})
            await asyncio.sleep(0)

    ticking = asyncio.ensure_future(tick_on())
    answer = await rig.chat()
    ticking.cancel()
    assert (answer.status, answer.headers["x-llmops-output-cap"]) == (200, "40")


async def test_a_model_that_is_for_something_else_is_not_said_to_have_no_price(rig: Rig) -> None:
    vectors = a_model("vectors", capabilities=("embeddings",), prices=(PriceRow("input", 0, USD),))
    rig.configure(models=[a_model(), vectors], budgets=[a_budget(hard=False)])
    answer = await rig.chat(model="vectors")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (
        400,
        "model_not_supported",
        "model",
    )
    assert answer.error["message"] == "The model 'vectors' is not for chat: it is for embeddings."
    assert rig.upstream.asked == []


async def test_a_route_may_refuse_rather_than_lower_the_cap(rig: Rig) -> None:
    counted = count_chat(ask()["messages"], "sim-small")
    rig.configure(
        budgets=[a_budget(limit_nano=counted * IN + 40 * OUT)], routes=[a_route(clamp_output=False)]
    )
    assert (await rig.chat(model="chat")).status == 429
    assert (await rig.chat(model="chat", max_tokens=40)).status == 200


async def test_a_cap_of_no_use_is_a_refusal(rig: Rig) -> None:
    counted = count_chat(ask()["messages"], "sim-small")
    rig.configure(budgets=[a_budget(limit_nano=counted * IN + 15 * OUT)])
    assert (await rig.chat()).status == 429
    assert (await rig.chat(max_tokens=15)).status == 200


async def test_choices_share_the_cap(rig: Rig) -> None:
    counted = count_chat(ask()["messages"], "sim-small")
    rig.configure(budgets=[a_budget(limit_nano=counted * IN + 100 * OUT)])
    answer = await rig.chat(n=4)
    assert answer.headers["x-llmops-output-cap"] == "25"
    assert rig.held()[0].worst_cost == counted * IN + 100 * OUT


async def test_the_tightest_of_several_budgets_decides_and_all_are_charged(rig: Rig) -> None:
    key = a_key()
    rig.configure(
        keys={KEY: key},
        routes=[a_route()],
        budgets=[
            a_budget("org", scope_kind="organisation", scope_value="", project=None),
            a_budget("project"),
            a_budget("key", scope_kind="key", scope_value=key.id),
            a_budget("route", scope_kind="route", scope_value="chat", project=None),
            a_budget("feature", scope_kind="feature", scope_value="triage"),
            a_budget("user", scope_kind="user", scope_value="ada"),
            a_budget("tag", scope_kind="tag", scope_value="beta"),
            a_budget("soft", hard=False),
            a_budget("other-route", scope_kind="route", scope_value="other", limit_nano=0),
            a_budget("other-project", scope_value="search", project="search", limit_nano=0),
            a_budget("other-key", scope_kind="key", scope_value="someone", limit_nano=0),
            a_budget(
                "others-feature", scope_kind="feature", scope_value="triage", project="search", limit_nano=0
            ),
            a_budget("other-user", scope_kind="user", scope_value="bob", limit_nano=0),
        ],
    )
    headers = {"x-llmops-feature": "triage", "x-llmops-user": "ada", "x-llmops-tags": "alpha,beta"}
    answer = await rig.chat(model="chat", how={"headers": headers})
    assert answer.status == 200, answer.body
    [ended] = rig.ended()
    assert len(ended.charges) == 7
    assert {(one.cost, one.held) for one in ended.charges} == {(10 * IN + 5 * OUT, rig.held()[0].worst_cost)}
    assert len(ended.soft) == 1
    refused = await rig.chat(model="chat", how={"headers": {"x-llmops-user": "bob"}})
    assert "'other-user'" in refused.error["message"]


async def test_concurrent_calls_never_hold_more_than_there_is(rig: Rig) -> None:
    counted = count_chat(ask()["messages"], "sim-small")
    limit = 20 * (counted * IN + 5 * OUT)
    rig.configure(budgets=[a_budget(limit_nano=limit)])
    most = 0

    async def script(asked: Asked, reply: Reply) -> None:
        nonlocal most
        [pot] = rig.purse.pots.values()
        most = max(most, pot.spent + pot.held)
        await asyncio.sleep(0.01)
        await reply.json(completion(used=usage(counted, 5)))

    rig.upstream.does(script)
    found = await asyncio.gather(*(rig.chat(max_tokens=5) for _ in range(60)))
    statuses = [answer.status for answer in found]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) == 20
    assert most <= limit
    assert sum(one.cost for one in rig.ended()) == limit
    assert isinstance(await rig.purse.hold(list(rig.plane.snapshot.live.budgets), 1, wait=False), Short)


async def test_a_refusal_for_money_that_others_hold_says_so(rig: Rig) -> None:
    rig.configure(budgets=[a_budget(limit_nano=200 * OUT)])
    rig.upstream.does(hangs)
    first = rig.start(ask(max_tokens=190))
    await eventually(lambda: len(rig.upstream.asked) == 1)
    answer = await rig.chat(max_tokens=100)
    assert (answer.status, answer.headers["retry-after"]) == (429, "2")
    assert "held by calls under way" in answer.error["message"]
    assert "x-should-retry" not in answer.headers
    first.hang_up()
    await first.done()


async def test_a_budget_store_that_is_away_is_a_503_not_a_refusal(rig: Rig) -> None:
    rig.configure(budgets=[a_budget("team")])
    rig.vault.away = True
    answer = await rig.chat()
    assert (answer.status, answer.error["code"]) == (503, "budget_unavailable")
    assert "'team'" in answer.error["message"]
    assert rig.upstream.asked == []


# ---------------------------------------------------------------------- bounds of what is not text


def picture(bytes_: int) -> dict[str, Any]:
    data = base64.b64encode(b"\x89PNG" + b"x" * bytes_).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


async def test_a_picture_is_bounded_by_its_tokens_not_its_bytes(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()], models=[a_model(upstream_model="gpt-4o-2024-08-06")])
    body = ask()
    body["messages"][0]["content"] = [{"type": "text", "text": "What is this?"}, picture(300_000)]
    assert (await rig.call(body)).status == 200
    worst = rig.held()[0].worst_cost
    assert 1_400 * IN < worst - 100 * OUT < 2_500 * IN


@pytest.mark.parametrize(
    "part",
    [
        b'{"type":"\\u0069mage_url","image_url":{"url":"https://example.com/large.png"}}',
        b'{"\\u0074ype":"image_url","image_url":{"url":"https://example.com/large.png"}}',
    ],
)
async def test_a_picture_can_not_hide_behind_escapes(rig: Rig, part: bytes) -> None:
    rig.configure(budgets=[a_budget()], models=[a_model(upstream_model="gpt-4o-2024-08-06")])
    body = b'{"model":"small","messages":[{"role":"user","content":[' + part + b"]}]}"
    assert (await rig.call(body)).status == 200
    assert rig.held()[0].worst_cost - 100 * OUT > 1_400 * IN


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]},
        {"role": "assistant", "audio": {"id": "audio-1"}, "content": None},
    ],
)
async def test_what_is_not_in_the_request_is_bounded_by_the_context_window(
    rig: Rig, message: dict[str, Any]
) -> None:
    key = a_key()
    rig.configure(keys={KEY: key}, budgets=[a_budget()])
    rig.plane.objects.made(FILE, "file-1", key=key, provider="up")
    rig.plane.objects.made(AUDIO, "audio-1", key=key, provider="up")
    assert (await rig.call(ask(messages=[message]))).status == 200
    assert rig.held()[0].worst_cost == 100_000 * IN + 100 * OUT


async def test_text_in_parts_costs_no_more_than_its_bytes(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])
    body = ask(messages=[{"role": "user", "content": [{"type": "text", "text": "one"}]}])
    assert (await rig.call(body)).status == 200
    assert rig.held()[0].worst_cost == len(json.dumps(body)) * IN + 100 * OUT


async def test_a_large_body_is_relayed_whole(rig: Rig) -> None:
    text = "word " * 150_000
    assert (await rig.chat(text=text)).status == 200
    assert rig.upstream.asked[0].json["messages"][0]["content"] == text


# ------------------------------------------------------------------- whose cap


@pytest.mark.parametrize(
    ("members", "model", "tokens", "theirs"),
    [
        ({"max_tokens": 20}, {}, 20, True),
        ({"max_completion_tokens": 20}, {}, 20, True),
        # The model's default, the model's largest output, and a window that ended the answer before its cap.
        ({}, {}, 100, False),
        ({}, {"default_max_output_tokens": 0, "max_output_tokens": 0}, 900, False),
        ({"max_tokens": 4_000}, {}, 700, False),
    ],
)
async def test_an_answer_cut_off_at_the_callers_own_cap_is_told_apart(
    rig: Rig, members: dict[str, Any], model: dict[str, Any], tokens: int, theirs: bool
) -> None:
    rig.configure(models=[a_model(**model)])
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hel"}, "finish_reason": "length"}
    rig.upstream.does(answers(used=usage(10, tokens), choices=[choice]))
    assert (await rig.call(ask(**members))).status == 200
    assert (rig.outcome().finish, rig.outcome().capped) == ("length", theirs)


async def test_a_cap_that_a_budget_lowered_is_not_the_callers(rig: Rig) -> None:
    counted = count_chat(ask()["messages"], "sim-small")
    rig.configure(budgets=[a_budget(limit_nano=counted * IN + 40 * OUT + 999)])
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hel"}, "finish_reason": "length"}
    rig.upstream.does(answers(used=usage(10, 40), choices=[choice]))
    assert (await rig.call(ask(max_tokens=200))).status == 200
    assert (rig.outcome().clamped, rig.outcome().capped) == (True, False)
