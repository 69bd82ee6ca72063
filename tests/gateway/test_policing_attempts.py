"""Policies that ask again: an answer is repaired, each attempt is charged, and it ends."""

from __future__ import annotations

from typing import Any

import pytest

from llmops.core.verdicts import AFTER, ALLOW, BLOCK, RETRY
from tests.gateway.rig import (
    DONE,
    Rig,
    Script,
    a_route,
    answers,
    chunk,
    streams,
    usage_chunk,
)
from tests.gateway.test_policing import SCHEMA, said, under, verdicts


def repairing(attempts: int = 2, otherwise: str = "block") -> tuple[str, str, str, dict[str, Any]]:
    return "schema", AFTER, RETRY, {"schema": SCHEMA, "attempts": attempts, "otherwise": otherwise}


async def test_an_answer_that_breaks_its_schema_is_repaired_and_each_attempt_is_charged(rig: Rig) -> None:
    under(rig, repairing())
    rig.upstream.does(answers("no json"), answers('{"lable": "x"}'), answers('{"label": "x"}'))
    answer = await rig.chat()
    assert answer.status == 200
    assert answer.json["choices"][0]["message"]["content"] == '{"label": "x"}'
    outcome = rig.outcome()
    assert [one.cost for one in outcome.attempts] == [60_000] * 3
    assert outcome.cost == 180_000 and outcome.retries == 2
    assert [one.code for one in outcome.attempts] == ["upstream_policy", "upstream_policy", ""]
    assert verdicts(rig) == [("after", "schema", "retry")] * 2
    second, third = rig.upstream.asked[1].json["messages"], rig.upstream.asked[2].json["messages"]
    assert [one["role"] for one in second] == ["user", "assistant", "user"]
    assert second[1]["content"] == "no json" and "not JSON" in second[2]["content"]
    assert len(third) == 5 and "label" in third[4]["content"]
    rig.nothing_held()


async def test_repair_ends(rig: Rig) -> None:
    under(rig, repairing(attempts=1))
    rig.upstream.does(answers("never json"))
    answer = await rig.chat()
    assert answer.status == 422 and answer.error["code"] == "policy_blocked"
    assert len(rig.upstream.asked) == 2
    assert rig.outcome().cost == 120_000
    assert verdicts(rig) == [("after", "schema", "retry"), ("after", "schema", "block")]
    rig.nothing_held()


async def test_an_answer_may_pass_with_a_mark_in_the_end(rig: Rig) -> None:
    under(rig, repairing(attempts=1, otherwise="allow"))
    rig.upstream.does(answers("never json"))
    answer = await rig.chat()
    assert answer.status == 200 and len(rig.upstream.asked) == 2
    assert verdicts(rig) == [("after", "schema", "retry"), ("after", "schema", "allow")]


async def test_a_route_without_an_attempt_left_decides_at_once(rig: Rig) -> None:
    under(rig, repairing(), routes=[a_route(attempts=1)])
    rig.upstream.does(answers("never json"))
    assert (await rig.chat(model="chat")).status == 422
    assert len(rig.upstream.asked) == 1


async def test_the_schema_may_be_the_requests_own(rig: Rig) -> None:
    under(rig, ("schema", AFTER, RETRY, {}))
    rig.upstream.does(answers("no"), answers('{"label": "x"}'))
    form = {"type": "json_schema", "json_schema": {"name": "l", "schema": SCHEMA}}
    assert (await rig.chat(response_format=form)).status == 200
    assert len(rig.upstream.asked) == 2
    # Without one nothing is asked for.
    rig.upstream.does(answers("plain words"))
    assert (await rig.chat()).status == 200


@pytest.mark.parametrize(
    ("kind", "given", "script"),
    [
        ("refusal", {}, answers("I'm sorry, but I can't help with that.")),
        ("lazy", {"min_characters": 500}, answers("Short.")),
        (
            "truncation",
            {},
            answers(choices=[{"index": 0, "message": {"content": "An"}, "finish_reason": "length"}]),
        ),
        (
            "content_filter",
            {},
            answers(choices=[{"index": 0, "message": {"content": ""}, "finish_reason": "content_filter"}]),
        ),
    ],
)
@pytest.mark.parametrize(("action", "status"), [(ALLOW, 200), (BLOCK, 422)])
async def test_answers_are_judged(
    rig: Rig, kind: str, given: dict[str, Any], script: Script, action: str, status: int
) -> None:
    under(rig, (kind, AFTER, action, given))
    rig.upstream.does(script)
    assert (await rig.chat()).status == status
    assert verdicts(rig) == [("after", kind, action)]
    rig.nothing_held()


async def test_a_stream_that_may_be_tried_again_is_kept_back_whole(rig: Rig) -> None:
    under(rig, repairing(attempts=1))
    rig.upstream.does(
        streams(chunk("no "), chunk("json"), chunk(finish="stop"), usage_chunk(), DONE),
        streams(chunk('{"label":'), chunk(' "x"}'), chunk(finish="stop"), usage_chunk(), DONE),
    )
    answer = await rig.chat(stream=True)
    assert said(answer) == '{"label": "x"}'
    assert answer.body.endswith(DONE)
    assert rig.outcome().cost == 120_000
    rig.nothing_held()


async def test_a_stream_that_was_kept_back_and_is_blocked_is_a_plain_error(rig: Rig) -> None:
    under(rig, repairing(attempts=1))
    rig.upstream.does(streams(chunk("no json"), chunk(finish="stop"), usage_chunk(), DONE))
    answer = await rig.chat(stream=True)
    assert answer.status == 422 and answer.error["code"] == "policy_blocked"
    rig.nothing_held()
