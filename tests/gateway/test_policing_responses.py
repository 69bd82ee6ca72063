"""Policies on responses, and the opinion of moderation models."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmops.core.verdicts import AFTER, ALLOW, BEFORE, BLOCK, REDACT, RETRY
from tests.gateway.responding import PATH, a_stream, ask, created, delta, ended, event, message, responds
from tests.gateway.rig import USD, Answer, Asked, Reply, Rig, a_budget, a_model, answers, streams
from tests.gateway.test_policing import EMAIL, SCHEMA, SECRET, nothing_kept, policy, under, verdicts
from tests.gateway.test_stream_relay import data_of


def said(answer: Answer) -> str:
    return "".join(
        one["delta"] for one in data_of(answer.body) if one["type"] == "response.output_text.delta"
    )


async def test_what_is_asked_is_redacted_wherever_it_stands(rig: Rig) -> None:
    under(rig, ("personal_data", BEFORE, REDACT, {"reversible": True}))
    rig.upstream.does(responds("Told [EMAIL_1]"))
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": f"Write to {EMAIL}"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": json.dumps({"to": EMAIL})},
        {"type": "function_call_output", "call_id": "c", "output": "sent to bob@example.org"},
    ]
    answer = await rig.call(ask(items, instructions=f"Serve {EMAIL}"), path=PATH)
    sent = rig.upstream.asked[0].json
    assert sent["instructions"] == "Serve [EMAIL_1]"
    assert sent["input"][0]["content"][0]["text"] == "Write to [EMAIL_1]"
    assert json.loads(sent["input"][1]["arguments"]) == {"to": "[EMAIL_1]"}
    assert sent["input"][2]["output"] == "sent to [EMAIL_2]"
    assert answer.json["output"][0]["content"][0]["text"] == f"Told {EMAIL}"
    nothing_kept(rig, EMAIL)


async def test_a_stream_says_the_same_in_its_deltas_and_in_its_end(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, REDACT, {}), ("personal_data", AFTER, REDACT, {}))
    text = f"Hello {EMAIL}, your key is {SECRET}"
    done = event(
        "response.output_text.done", 900, item_id="msg_1", output_index=0, content_index=0, text=text
    )
    item = event("response.output_item.done", 901, output_index=0, item=message(text))
    deltas = [delta(one, number) for number, one in enumerate(text, 1)]
    rig.upstream.does(streams(*deltas, done, item, ended(number=902, output=[message(text)])))
    answer = await rig.call(ask(stream=True), path=PATH)
    expected = "Hello [EMAIL_1], your key is [OPENAI_KEY]"
    assert said(answer) == expected
    events = data_of(answer.body)
    assert events[-3]["text"] == expected
    assert events[-2]["item"]["content"][0]["text"] == expected
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == expected
    assert EMAIL not in answer.body.decode() and SECRET[:14] not in answer.body.decode()
    numbers = [one["sequence_number"] for one in events]
    assert numbers == sorted(numbers)
    assert verdicts(rig) == [("after", "secrets", "redact"), ("after", "personal_data", "redact")]


async def test_a_stream_with_nothing_to_change_keeps_its_bytes(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, REDACT, {}))
    pieces = a_stream("One. ", "Two. ")
    rig.upstream.does(streams(*pieces))
    answer = await rig.call(ask(stream=True), path=PATH)
    assert answer.body == b"".join(pieces)


async def test_what_comes_without_deltas_is_looked_at_too(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, BLOCK, {}))
    rig.upstream.does(streams(ended(output=[message(f"Use {SECRET}")])))
    answer = await rig.call(ask(stream=True), path=PATH)
    assert b"policy_blocked" in answer.body and SECRET[:14] not in answer.body.decode()
    assert rig.outcome().code == "policy_blocked"
    assert verdicts(rig) == [("after", "secrets", "block")]


async def test_a_text_beside_a_delta_or_in_place_of_one_is_looked_at(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    told = {"type": "output_text", "text": f"I am {EMAIL}"}
    pieces = [
        created(output=[message(f"Already: {EMAIL}")]),
        delta("Hi ", 1, part=told),
        delta("ada@", 2, part=told),
        delta("example.com ", 3, part=told),
        event("response.other.delta", 4, output_index=1, delta=told),
        event("response.content_part.done", 5, output_index=0, content_index=0, part=told),
        event(
            "response.output_text.annotation.added", 6, output_index=0, annotation={"quote": {"text": EMAIL}}
        ),
        ended(number=7, output=[message("Hi [EMAIL_1] ")]),
    ]
    rig.upstream.does(streams(*pieces))
    answer = await rig.call(ask(stream=True), path=PATH)
    assert EMAIL not in answer.body.decode()
    assert said(answer) == "Hi [EMAIL_1] "
    # What was held of the text at its end comes in an event of its own.
    assert len(data_of(answer.body)) == len(pieces) + 1


@pytest.mark.parametrize(
    "item",
    [
        {"type": "web_search_call", "action": {"type": "search", "query": EMAIL}},
        {"type": "web_search_call", "action": {"type": "search", "queries": [EMAIL, "x"]}},
        {"type": "file_search_call", "queries": [EMAIL], "results": [{"text": EMAIL}]},
        {"type": "local_shell_call", "action": {"type": "exec", "command": ["mail", EMAIL]}},
        {"type": "shell_call", "action": {"commands": [f"mail {EMAIL}"]}},
        {"type": "apply_patch_call", "operation": {"type": "update_file", "diff": f"+{EMAIL}"}},
    ],
)
async def test_what_a_model_has_the_providers_tools_do_is_looked_at(rig: Rig, item: dict[str, Any]) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    rig.upstream.does(responds(output=[item, message("Done.")]))
    answer = await rig.call(ask(), path=PATH)
    assert answer.json["output"] == [
        json.loads(json.dumps(item).replace(EMAIL, "[EMAIL_1]")),
        message("Done."),
    ]
    done = event("response.output_item.done", 1, output_index=0, item=item)
    rig.upstream.does(streams(created(), done, ended(number=2, output=[item])))
    answer = await rig.call(ask(stream=True), path=PATH)
    assert EMAIL not in answer.body.decode() and b"[EMAIL_1]" in answer.body


async def test_a_delta_that_is_given_twice_is_not_relayed(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    twice = delta("fine. ", 2).replace(b'"delta":', b'"delta":"ada@example.com ","delta":')
    rig.upstream.does(streams(created(), delta("Hello. ", 1), twice, ended(number=3)))
    answer = await rig.call(ask(stream=True), path=PATH)
    assert b"ada@" not in answer.body and b'"code":"stream_interrupted"' in answer.body
    rig.nothing_held()


async def test_log_probabilities_that_nobody_asked_for_tell_nothing(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))

    def likely(text: str) -> list[dict[str, Any]]:
        return [{"token": text, "logprob": -0.1, "bytes": [*text.encode()], "top_logprobs": []}]

    def whole(text: str) -> dict[str, Any]:
        shown = message(text)
        shown["content"][0]["logprobs"] = likely(text)
        return shown

    text = f"I am {EMAIL}"
    deltas = [
        delta(one, number, logprobs=likely(one))
        for number, one in enumerate(("I am ", "ada@", "example.com"))
    ]
    done = event(
        "response.output_text.done", 4, output_index=0, content_index=0, text=text, logprobs=likely(text)
    )
    item = event("response.output_item.done", 5, output_index=0, item=whole(text))
    rig.upstream.does(streams(created(), *deltas, done, item, ended(number=6, output=[whole(text)])))
    answer = await rig.call(ask(stream=True), path=PATH)
    assert b"example" not in answer.body and b'"token"' not in answer.body
    assert said(answer) == "I am [EMAIL_1]"
    rig.upstream.does(responds(output=[whole(text)]))
    answer = await rig.call(ask(), path=PATH)
    assert answer.json["output"][0]["content"] == [
        {"type": "output_text", "text": "I am [EMAIL_1]", "annotations": [], "logprobs": []}
    ]


async def test_a_response_is_repaired(rig: Rig) -> None:
    under(rig, ("schema", AFTER, RETRY, {"schema": SCHEMA}))
    rig.upstream.does(responds("no json"), responds('{"label": "x"}'))
    answer = await rig.call(ask(), path=PATH)
    assert answer.status == 200
    assert answer.json["output"][0]["content"][0]["text"] == '{"label": "x"}'
    again = rig.upstream.asked[1].json["input"]
    assert [one["role"] for one in again] == ["user", "assistant", "user"]
    assert rig.outcome().retries == 1


async def test_no_answer_goes_past_policies_in_the_background(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, REDACT, {}))
    answer = await rig.call(ask(background=True), path=PATH)
    assert answer.status == 400 and answer.error["param"] == "background"


# ---------------------------------------------------------------------- another model's opinion


def judged(flagged: bool) -> Any:
    result = {
        "flagged": flagged,
        "categories": {"violence": flagged},
        "category_scores": {"violence": 0.9 if flagged else 0.0},
    }

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json({"id": "m", "model": "omni", "results": [result]})

    return script


def moderating(rig: Rig, stage: str, **given: Any) -> None:
    rig.configure(
        models=[a_model(), a_model("omni")],
        policies=[policy(("moderation", stage, BLOCK, {"model": "omni", **given}))],
        budgets=[a_budget(limit_nano=USD)],
    )


@pytest.mark.parametrize("flagged", [False, True])
async def test_a_moderation_model_is_asked_before(rig: Rig, flagged: bool) -> None:
    moderating(rig, BEFORE)
    rig.upstream.does(judged(flagged), answers("Hello"))
    answer = await rig.chat(text="Say something")
    assert rig.upstream.asked[0].path == "/v1/moderations"
    assert rig.upstream.asked[0].json["input"] == ["Say something"]
    assert answer.status == (400 if flagged else 200)
    outcomes = {one.origin.endpoint: one.outcome for one in rig.ended() if one.outcome is not None}
    # Both calls are recorded; the one that the policy made has no verdicts of its own.
    assert set(outcomes) == {"moderations", "chat.completions"}
    assert outcomes["moderations"].verdicts == []
    assert len(outcomes["chat.completions"].verdicts) == flagged
    assert len(rig.upstream.asked) == 1 + (not flagged)


async def test_a_moderation_model_is_asked_after(rig: Rig) -> None:
    moderating(rig, AFTER)
    rig.upstream.does(answers("A threat"), judged(True))
    answer = await rig.chat()
    assert rig.upstream.asked[1].json["input"] == ["A threat"]
    assert answer.status == 422 and b"threat" not in answer.body


@pytest.mark.parametrize(("on_failure", "status"), [("open", 200), ("closed", 400)])
async def test_a_moderation_model_that_is_late_is_not_waited_for(
    rig: Rig, on_failure: str, status: int
) -> None:
    moderating(rig, BEFORE, timeout_s=0.1, on_failure=on_failure)

    async def late(asked: Asked, reply: Reply) -> None:
        await rig.upstream.gone.wait()

    rig.upstream.does(late, answers("Hello"))
    answer = await rig.chat()
    assert answer.status == status
    told = [one.outcome for one in rig.ended() if one.outcome is not None and one.outcome.verdicts]
    assert told[0].verdicts[0].action == (ALLOW if status == 200 else BLOCK)
    assert "did not answer" in told[0].verdicts[0].note
