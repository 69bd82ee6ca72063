"""Policies on the way of a call: what is asked, what is answered, streams, another attempt; what is recorded and charged."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

from llmops.core.verdicts import AFTER, BEFORE, BLOCK, REDACT, REQUIRE_APPROVAL
from llmops.gateway.plane import LARGE_BYTES
from llmops.serving.snapshot import CheckEntry, PolicyEntry
from tests.gateway.rig import (
    DONE,
    USD,
    Answer,
    Asked,
    Reply,
    Rig,
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
