"""Policies on the way of a call: what is asked, what is answered, streams, another attempt; what is recorded and charged."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from llmops.core.verdicts import AFTER, ALLOW, BEFORE, BLOCK, REDACT, REQUIRE_APPROVAL, RETRY
from llmops.gateway.plane import LARGE_BYTES
from llmops.serving.snapshot import CheckEntry, PolicyEntry
from tests.gateway.rig import (
    DONE,
    USD,
    Answer,
    Asked,
    Reply,
    Rig,
    Script,
    a_budget,
    a_route,
    answers,
    ask,
    chunk,
    completion,
    streams,
    usage,
    usage_chunk,
)
from tests.gateway.test_stream_relay import data_of

SECRET = "sk-proj-" + "aB3dE5" * 8
EMAIL = "ada@example.com"
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}


def policy(
    *checks: tuple[str, str, str, dict[str, Any]], slug: str = "strict", everywhere: bool = True
) -> PolicyEntry:
    return PolicyEntry(slug, 3, tuple(CheckEntry(*one) for one in checks), everywhere=everywhere)


def under(rig: Rig, *checks: tuple[str, str, str, dict[str, Any]], **what: Any) -> None:
    rig.configure(policies=[policy(*checks)], budgets=[a_budget(limit_nano=USD)], **what)


def said(answer: Answer) -> str:
    """What a stream of chat said in all."""
    return "".join(
        choice["delta"].get("content") or ""
        for event in data_of(answer.body)
        for choice in event.get("choices", ())
    )


def verdicts(rig: Rig) -> list[tuple[str, str, str]]:
    return [(one.stage, one.check, one.action) for one in rig.outcome().verdicts]


def nothing_kept(rig: Rig, *texts: str) -> None:
    written = repr(rig.records())
    for text in texts:
        assert text not in written


# ---------------------------------------------------------------------- before


async def test_without_policies_nothing_is_looked_at(rig: Rig) -> None:
    answer = await rig.chat(text=SECRET)
    assert answer.status == 200
    assert rig.outcome().verdicts == []
    assert rig.upstream.asked[0].json["messages"][0]["content"] == SECRET


async def test_what_is_blocked_goes_nowhere_and_is_recorded_as_refused(rig: Rig) -> None:
    under(rig, ("secrets", BEFORE, BLOCK, {}))
    answer = await rig.chat(text=f"My key is {SECRET}")
    assert answer.status == 400
    assert answer.error["code"] == "policy_blocked"
    assert answer.error["param"] == "messages[0].content"
    assert "'strict'" in answer.error["message"] and "openai key" in answer.error["message"]
    assert SECRET not in answer.body.decode()
    assert rig.upstream.asked == []
    outcome = rig.outcome()
    assert (outcome.status, outcome.http, outcome.code, outcome.cost) == ("refused", 400, "policy_blocked", 0)
    verdict = outcome.verdicts[0]
    assert (verdict.policy, verdict.version, verdict.action) == ("strict", 3, BLOCK)
    assert [(one.name, one.where, one.count) for one in verdict.findings] == [
        ("openai_key", "messages[0].content", 1)
    ]
    nothing_kept(rig, SECRET)
    rig.nothing_held()


async def test_what_needs_approval_is_forbidden_for_now(rig: Rig) -> None:
    rules = {"rules": [{"name": "payments", "words": ["wire transfer"]}]}
    under(rig, ("risk", BEFORE, REQUIRE_APPROVAL, rules))
    answer = await rig.chat(text="Please make a wire  transfer to Bob")
    assert answer.status == 403 and answer.error["code"] == "approval_required"
    assert rig.upstream.asked == []
    assert verdicts(rig) == [("before", "risk", "require_approval")]


async def test_redaction_changes_the_texts_it_must_and_no_other_byte(rig: Rig) -> None:
    under(rig, ("personal_data", BEFORE, REDACT, {}), ("secrets", BEFORE, REDACT, {}))
    body = (
        b'{"model": "small", "seed":  1.50, "messages": [ {"role":"system","content":"Be  kind \\u00e9"},'
        b' {"role": "user", "content": [{"type": "text", "text": "I am ada@example.com, ada@example.com"},'
        b' {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},'
        b' {"role":"tool","tool_call_id":"1","content":"key ' + SECRET.encode() + b' of bob@example.org"}],'
        b' "metadata": {"a":  1e2}}'
    )
    answer = await rig.call(body)
    assert answer.status == 200
    sent = rig.upstream.asked[0].body
    assert b'{"role":"system","content":"Be  kind \\u00e9"}' in sent
    assert b'{"a":  1e2}' in sent and b"1.50" in sent
    messages = rig.upstream.asked[0].json["messages"]
    assert messages[1]["content"][0]["text"] == "I am [EMAIL_1], [EMAIL_1]"
    assert messages[1]["content"][1]["image_url"]["url"] == "data:image/png;base64,AAAA"
    assert messages[2]["content"] == "key [OPENAI_KEY] of [EMAIL_2]"
    assert verdicts(rig) == [("before", "personal_data", "redact"), ("before", "secrets", "redact")]
    nothing_kept(rig, SECRET, EMAIL)
    rig.nothing_held()


async def test_values_come_back_in_the_answer_and_in_no_record(rig: Rig) -> None:
    under(rig, ("personal_data", BEFORE, REDACT, {"reversible": True}))
    rig.upstream.does(answers("Write to [EMAIL_1] or [EMAIL_2], not [EMAIL_9]"))
    answer = await rig.chat(text=f"{EMAIL} and bob@example.org")
    assert rig.upstream.asked[0].json["messages"][0]["content"] == "[EMAIL_1] and [EMAIL_2]"
    assert (
        answer.json["choices"][0]["message"]["content"]
        == f"Write to {EMAIL} or bob@example.org, not [EMAIL_9]"
    )
    nothing_kept(rig, EMAIL)


async def test_values_come_back_in_a_stream_that_cuts_placeholders(rig: Rig) -> None:
    under(rig, ("personal_data", BEFORE, REDACT, {"reversible": True}))
    pieces = ["Write to ", "[", "EM", "AIL", "_1", "]", " now"]
    rig.upstream.does(streams(*map(chunk, pieces), chunk(finish="stop"), usage_chunk(), DONE))
    answer = await rig.chat(text=EMAIL, stream=True)
    assert said(answer) == f"Write to {EMAIL} now"
    assert answer.body.endswith(DONE)


async def test_a_policy_that_cannot_be_used_lets_nothing_pass(rig: Rig) -> None:
    rig.configure(routes=[a_route(policies=("gone",))])
    answer = await rig.chat(model="chat")
    assert answer.status == 503 and answer.error["code"] == "policy_unusable"
    rig.configure(policies=[policy(("no such kind", BEFORE, BLOCK, {}))])
    assert (await rig.chat()).status == 503
    assert rig.upstream.asked == []


async def test_policies_of_a_route_hold_on_that_route_only(rig: Rig) -> None:
    rig.configure(
        routes=[a_route(policies=("strict",)), a_route("free")],
        policies=[policy(("secrets", BEFORE, BLOCK, {}), everywhere=False)],
    )
    assert (await rig.chat(model="chat", text=SECRET)).status == 400
    assert (await rig.chat(model="free", text=SECRET)).status == 200


async def test_other_endpoints_are_looked_at_as_well(rig: Rig) -> None:
    under(rig, ("secrets", BEFORE, BLOCK, {}))
    answer = await rig.call({"model": "small", "input": ["fine", SECRET]}, path="/v1/embeddings")
    assert answer.status == 400 and answer.error["param"] == "input[1]"


async def test_a_prompt_of_a_megabyte_is_checked_beside_the_loop(rig: Rig) -> None:
    under(
        rig,
        ("secrets", BEFORE, REDACT, {}),
        ("personal_data", BEFORE, REDACT, {}),
        ("injection", BEFORE, BLOCK, {}),
    )
    text = "The quick brown fox. " * 40_000 + SECRET
    answer = await rig.chat(text=text)
    assert answer.status == 200
    assert rig.upstream.asked[0].json["messages"][0]["content"].endswith("[OPENAI_KEY]")


# ---------------------------------------------------------------------- after, whole


async def test_an_answer_is_redacted_and_the_rest_of_it_keeps_its_bytes(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, REDACT, {}))
    body = (
        json.dumps(completion(f"Use {SECRET}!", x={"f": 1}), indent=1)
        .encode()
        .replace(b'"f": 1', b'"f":  1.50')
    )

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(body)

    rig.upstream.does(script)
    answer = await rig.chat()
    assert answer.json["choices"][0]["message"]["content"] == "Use [OPENAI_KEY]!"
    assert b'"f":  1.50' in answer.body
    assert answer.headers["content-length"] == str(len(answer.body))
    assert verdicts(rig) == [("after", "secrets", "redact")]
    rig.nothing_held()


async def test_a_blocked_answer_is_charged_and_not_shown(rig: Rig) -> None:
    under(rig, ("deny", AFTER, BLOCK, {"rules": [{"name": "rivals", "words": ["acme corp"]}]}))
    rig.upstream.does(answers("Buy at Acme Corp"))
    answer = await rig.chat()
    assert answer.status == 422 and answer.error["code"] == "policy_blocked"
    assert b"Acme" not in answer.body
    outcome = rig.outcome()
    assert (outcome.status, outcome.http, outcome.code) == ("error", 422, "policy_blocked")
    assert outcome.cost == 10 * 1_000 + 5 * 10_000
    assert verdicts(rig) == [("after", "deny", "block")]
    rig.nothing_held()


async def test_arguments_of_tools_are_texts_too(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, REDACT, {}))
    calls = [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"key": SECRET})}}
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    rig.upstream.does(answers(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}]))
    answer = await rig.chat()
    arguments = answer.json["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(arguments) == {"key": "[OPENAI_KEY]"}


# ---------------------------------------------------------------------- another attempt


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


# ---------------------------------------------------------------------- streams


async def test_a_stream_is_redacted_wherever_it_is_cut(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, REDACT, {}), ("personal_data", AFTER, REDACT, {}))
    text = f"Hello {EMAIL}, your key is {SECRET}."
    rig.upstream.does(streams(*[chunk(one) for one in text], chunk(finish="stop"), usage_chunk(), DONE))
    answer = await rig.chat(stream=True)
    assert said(answer) == "Hello [EMAIL_1], your key is [OPENAI_KEY]."
    assert answer.body.endswith(DONE)
    assert verdicts(rig) == [("after", "secrets", "redact"), ("after", "personal_data", "redact")]
    assert rig.outcome().cost == 60_000
    nothing_kept(rig, SECRET, EMAIL)
    rig.nothing_held()


async def test_events_whose_texts_may_pass_keep_their_bytes(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, REDACT, {}))
    events = [
        chunk("One two. "),
        chunk("Three. "),
        b": ping\n\n",
        chunk("Four. "),
        chunk(finish="stop"),
        usage_chunk(),
        DONE,
    ]
    rig.upstream.does(streams(*events))
    answer = await rig.chat(stream=True, stream_options={"include_usage": True})
    assert answer.body == b"".join(events)


async def test_what_is_left_at_the_end_comes_before_the_finish(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    rig.upstream.does(streams(chunk("call "), chunk("ada"), chunk(finish="stop"), usage_chunk(), DONE))
    answer = await rig.chat(stream=True)
    events = data_of(answer.body)
    assert [one["choices"][0]["delta"].get("content") for one in events] == ["call ", "ada", None]
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_secret_stops_a_stream_and_nothing_of_it_leaves(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, BLOCK, {}))
    begun = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(chunk("Here it is: "), end=False)
        await begun.wait()
        for piece in [*SECRET, " and", " more."]:
            await reply.chunk(chunk(piece))
        await rig.upstream.gone.wait()

    rig.upstream.does(script)
    exchange = rig.start(ask(stream=True))
    await exchange.answer.until(lambda seen: b"Here" in seen.body)
    begun.set()
    answer = await exchange.done()
    await asyncio.wait_for(rig.upstream.gone.wait(), 10)
    assert said(answer) == "Here it is: "
    last = data_of(answer.body)[-1]
    assert last["error"]["code"] == "policy_blocked"
    assert DONE not in answer.body
    assert SECRET[:12] not in answer.body.decode()
    outcome = rig.outcome()
    assert (outcome.status, outcome.code) == ("interrupted", "policy_blocked")
    assert outcome.cost > 0
    assert verdicts(rig) == [("after", "secrets", "block")]
    nothing_kept(rig, SECRET)
    rig.nothing_held()


async def test_a_stream_that_is_judged_at_its_end_has_no_good_end(rig: Rig) -> None:
    under(rig, ("refusal", AFTER, BLOCK, {}))
    begun = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(chunk("I'm sorry, but I "), end=False)
        await begun.wait()
        for event in (chunk("can't."), chunk(finish="stop"), usage_chunk(), DONE):
            await reply.chunk(event)
        await reply.raw(b"0\r\n\r\n")

    rig.upstream.does(script)
    exchange = rig.start(ask(stream=True))
    await exchange.answer.until(lambda seen: b"sorry" in seen.body)
    begun.set()
    answer = await exchange.done()
    assert DONE not in answer.body
    assert data_of(answer.body)[-1]["error"]["code"] == "policy_blocked"
    assert rig.outcome().cost == 60_000
    rig.nothing_held()


async def test_a_stream_that_breaks_keeps_what_was_found(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    rig.upstream.does(streams(chunk(f"Ask {EMAIL} or "), chunk("some"), end=False))

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(chunk(f"Ask {EMAIL} or "), chunk("some"), end=False)
        reply.cut()

    rig.upstream.does(script)
    answer = await rig.chat(stream=True)
    assert said(answer) == "Ask [EMAIL_1] or "
    assert data_of(answer.body)[-1]["error"]["code"] == "stream_interrupted"
    assert verdicts(rig) == [("after", "personal_data", "redact")]
    rig.nothing_held()


async def test_an_answer_from_the_cache_was_checked_when_it_came(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, REDACT, {}), routes=[a_route(cache_ttl_s=60)])
    rig.upstream.does(answers(f"Use {SECRET}"))
    first = await rig.chat(model="chat")
    second = await rig.chat(model="chat")
    assert len(rig.upstream.asked) == 1
    assert first.body == second.body and SECRET not in second.body.decode()


# ---------------------------------------------------------------------- another model's opinion


async def test_without_a_moderation_model_the_setting_decides(rig: Rig) -> None:
    for on_failure, status in (("open", 200), ("closed", 400)):
        given = {"model": "no-such-model", "on_failure": on_failure}
        under(rig, ("moderation", BEFORE, BLOCK, given))
        assert (await rig.chat()).status == status


async def test_billing_is_the_same_with_and_without(rig: Rig) -> None:
    rig.upstream.does(answers("Hello", usage(20, 7)))
    await rig.chat()
    under(rig, ("secrets", AFTER, REDACT, {}), ("personal_data", BEFORE, REDACT, {}))
    await rig.call(ask(text="plain"))
    costs = [one.outcome.cost for one in rig.ended() if one.outcome is not None]
    assert costs[0] == costs[1] == 20 * 1_000 + 7 * 10_000


async def test_long_work_on_large_texts_is_not_in_everybodys_way(rig: Rig) -> None:
    """Two requests of some megabytes once kept every other call waiting for a minute."""
    go_on = threading.Event()
    large = [
        asyncio.create_task(rig.plane.off_loop(lambda: go_on.wait(30), size=LARGE_BYTES + 1))
        for _ in range(3)
    ]
    try:
        await asyncio.sleep(0)
        assert await asyncio.wait_for(rig.plane.off_loop(lambda: "done", size=LARGE_BYTES), 10) == "done"
        # Who hangs up while it waits its turn is not looked at any more.
        large[2].cancel()
    finally:
        go_on.set()
    assert await asyncio.gather(*large[:2]) == [True, True]
    assert large[2].cancelled()
