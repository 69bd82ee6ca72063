"""Prompts by reference: what goes upstream is what the prompt says, and what is wrong is named."""

from __future__ import annotations

from typing import Any

import pytest

from llmops.policies.examples import EXAMPLES  # noqa: F401  (kinds are registered)
from llmops.prompts import published
from llmops.prompts.content import checked, digest_of
from llmops.prompts.delimiters import GUARD
from llmops.prompts.rendering import LAYERS
from llmops.serving.snapshot import CheckEntry, PolicyEntry, PromptEntry, PromptVersionEntry
from tests.gateway.responding import PATH, responds
from tests.gateway.rig import (
    DONE,
    KEY,
    USD,
    Rig,
    a_budget,
    a_key,
    a_model,
    a_route,
    answers,
    chunk,
    streams,
    usage,
    usage_chunk,
)

CHAT = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
OTHER = "llmops_othertes_" + "o" * 40


def a_version(number: int = 1, **content: Any) -> PromptVersionEntry:
    kept = checked({"system": "You triage.", "task": "Classify.", "user": "{{ ticket }}", **content})
    return PromptVersionEntry(
        number=number,
        digest=digest_of(kept),
        layers={name: kept[name] for name in LAYERS if kept[name]},
        variables=tuple(kept["variables"]),
        output_schema=kept["output_schema"],
        route=kept["route"],
        parameters=kept["parameters"],
    )


def a_prompt(
    *versions: PromptVersionEntry, slug: str = "triage", project: str = "", **labels: int
) -> PromptEntry:
    return PromptEntry(slug, project, versions or (a_version(route="chat"),), labels or {"production": 1})


def naming(version: Any = None, ticket: Any = "It burns", **members: Any) -> dict[str, Any]:
    named: dict[str, Any] = {"id": "triage", "variables": {"ticket": ticket}}
    if version is not None:
        named["version"] = version
    return {"prompt": named, **members}


def configured(rig: Rig, *prompts: PromptEntry, **what: Any) -> None:
    what.setdefault("routes", [a_route("chat")])
    snapshot = rig.configure(prompts=prompts or (a_prompt(),), **what)
    published.prepare(snapshot.document.prompts)


async def test_a_chat_says_what_the_prompt_says_and_is_recorded_as_its_call(rig: Rig) -> None:
    configured(rig)
    rig.upstream.does(answers())
    answer = await rig.call(naming())
    assert answer.status == 200, answer.body
    assert rig.upstream.asked[-1].json["messages"] == [
        {"role": "system", "content": f"You triage.\n\nClassify.\n\n{GUARD}"},
        {"role": "user", "content": "<user_data>\nIt burns\n</user_data>"},
    ]
    assert "prompt" not in rig.upstream.asked[-1].json
    assert answer.headers["x-llmops-prompt"] == "triage@1"
    [ended] = rig.ended()
    assert (ended.origin.prompt_name, ended.origin.prompt_version, ended.origin.route) == (
        "triage",
        1,
        "chat",
    )


async def test_what_the_caller_adds_comes_after_the_prompt(rig: Rig) -> None:
    version = a_version(
        output_schema=SCHEMA,
        parameters={
            "temperature": 0.2,
            "max_output_tokens": 50,
            "seed": 7,
            "reasoning_effort": "low",
            "verbosity": "low",
        },
    )
    configured(rig, a_prompt(version))
    rig.upstream.does(answers())
    more = [{"role": "assistant", "content": "Which?"}, {"role": "user", "content": "The red one"}]
    answer = await rig.call(naming(model="small", messages=more, temperature=1, x=1.0e2, max_tokens=20))
    assert answer.status == 200, answer.body
    sent = rig.upstream.asked[-1].json
    assert sent["messages"][2:] == more
    assert [
        sent[name] for name in ("temperature", "seed", "reasoning_effort", "verbosity", "max_tokens", "x")
    ] == [1, 7, "low", "low", 20, 100.0]
    assert "max_completion_tokens" not in sent
    assert sent["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "triage", "schema": SCHEMA, "strict": False},
    }
    answer = await rig.call(naming(model="small", messages=[]))
    assert rig.upstream.asked[-1].json["max_completion_tokens"] == 50


async def test_an_answer_cut_off_at_the_prompts_cap_is_not_cut_off_at_the_callers(rig: Rig) -> None:
    configured(rig, a_prompt(a_version(parameters={"max_output_tokens": 50})))
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hel"}, "finish_reason": "length"}
    rig.upstream.does(answers(used=usage(10, 50), choices=[choice]))
    for members in ({}, {"max_tokens": 50}):
        answer = await rig.call(naming(model="small", **members))
        assert answer.status == 200, answer.body
    assert [one.outcome.capped for one in rig.ended()] == [False, True]


async def test_a_response_says_what_the_prompt_says(rig: Rig) -> None:
    version = a_version(
        output_schema={**SCHEMA, "additionalProperties": False},
        route="chat",
        parameters={"reasoning_effort": "low", "verbosity": "low", "max_output_tokens": 50, "seed": 7},
    )
    configured(rig, a_prompt(version))
    rig.upstream.does(responds())
    answer = await rig.call(naming(), path=PATH)
    assert answer.status == 200, answer.body
    sent = rig.upstream.asked[-1].json
    assert sent["instructions"] == f"You triage.\n\nClassify.\n\n{GUARD}"
    first = {"type": "message", "role": "user", "content": "<user_data>\nIt burns\n</user_data>"}
    assert sent["input"] == [first]
    assert sent["reasoning"] == {"effort": "low"}
    assert sent["text"] == {
        "verbosity": "low",
        "format": {
            "type": "json_schema",
            "name": "triage",
            "schema": {**SCHEMA, "additionalProperties": False},
            "strict": True,
        },
    }
    assert (sent["max_output_tokens"], "seed" in sent, "prompt" in sent) == (50, False, False)
    body = naming(
        input="And mine",
        instructions="Be brief.",
        reasoning={"effort": "high", "summary": "auto"},
        text={"verbosity": "high"},
    )
    await rig.call(body, path=PATH)
    sent = rig.upstream.asked[-1].json
    assert sent["input"] == [first, {"type": "message", "role": "user", "content": "And mine"}]
    assert sent["instructions"].endswith(f"{GUARD}\n\nBe brief.")
    assert sent["reasoning"] == {"effort": "high", "summary": "auto"}
    assert (sent["text"]["verbosity"], sent["text"]["format"]["name"]) == ("high", "triage")
    await rig.call(naming(input=[{"role": "user", "content": "An item"}]), path=PATH)
    assert rig.upstream.asked[-1].json["input"] == [first, {"role": "user", "content": "An item"}]


async def test_a_stream_and_a_hard_budget_go_by_what_the_prompt_became(rig: Rig) -> None:
    configured(rig, budgets=[a_budget(limit_nano=USD)])
    rig.upstream.does(streams(chunk("Hi"), usage_chunk(), DONE))
    answer = await rig.call(naming(stream=True, max_tokens=10))
    assert answer.status == 200
    assert answer.body.endswith(DONE)
    [held] = rig.held()
    assert held.worst_cost >= len(GUARD) // 8 * 1_000
    assert held.origin.prompt_name == "triage"


async def test_versions_by_label_by_number_and_by_default(rig: Rig) -> None:
    versions = tuple(a_version(number, task=f"Task {number}.") for number in (1, 2, 3))
    configured(rig, a_prompt(*versions, production=1, staging=3))
    rig.upstream.does(answers())
    for asked, meant in ((None, 1), ("production", 1), ("staging", 3), ("2", 2), (2, 2), ("", 1), ("3", 3)):
        answer = await rig.call(naming(asked, model="small"))
        assert answer.headers["x-llmops-prompt"] == f"triage@{meant}"
        assert f"Task {meant}." in rig.upstream.asked[-1].json["messages"][0]["content"]


async def test_prompts_of_a_project_and_shared_ones(rig: Rig) -> None:
    own = a_prompt(a_version(task="Own."), project="support")
    shared = a_prompt(a_version(task="Shared."), slug="greet")
    foreign = a_prompt(a_version(task="Foreign."), slug="secret", project="search")
    configured(rig, own, shared, foreign, keys={KEY: a_key(), OTHER: a_key("other", project="search")})
    rig.upstream.does(answers())

    async def ask(name: str, key: str) -> int:
        body = {"model": "small", "prompt": {"id": name, "variables": {"ticket": "x"}}}
        return (await rig.call(body, key=key)).status

    assert [await ask(name, KEY) for name in ("triage", "greet", "secret")] == [200, 200, 404]
    assert [await ask(name, OTHER) for name in ("triage", "greet", "secret")] == [404, 200, 200]
    refusals = []
    for name in ("secret", "nothing"):
        answer = await rig.call({"prompt": {"id": name}}, key=KEY)
        refusals.append(answer.error["message"].replace(name, "NAME"))
    assert refusals[0] == refusals[1]


WRONG = [
    ({"prompt": "triage"}, 400, "prompt"),
    ({"prompt": []}, 400, "prompt"),
    ({"prompt": {}}, 400, "prompt.id"),
    ({"prompt": {"id": 5}}, 400, "prompt.id"),
    ({"prompt": {"id": "nothing"}}, 404, "prompt.id"),
    ({"prompt": {"id": "triage", "varables": {}}}, 400, "prompt.varables"),
    (naming(True), 400, "prompt.version"),
    (naming({"a": 1}), 400, "prompt.version"),
    (naming("beta"), 404, "prompt.version"),
    (naming("9"), 404, "prompt.version"),
    (naming(0), 404, "prompt.version"),
    (naming(-1), 404, "prompt.version"),
    (naming("٣"), 404, "prompt.version"),
    (naming(10**30), 404, "prompt.version"),
    ({"prompt": {"id": "triage", "variables": []}}, 400, "prompt.variables"),
    ({"prompt": {"id": "triage"}}, 400, "prompt.variables.ticket"),
    ({"prompt": {"id": "triage", "variables": {"ticket": "a", "z": 1}}}, 400, "prompt.variables.z"),
    (naming(ticket=5), 400, "prompt.variables.ticket"),
    (naming(ticket="a" * 20_001), 400, "prompt.variables.ticket"),
    (naming(ticket={"type": "input_file", "file_id": "file_x"}), 400, "prompt.variables.ticket"),
]


@pytest.mark.parametrize(("body", "status", "param"), WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize("path", [CHAT, PATH])
async def test_what_is_wrong_is_named_and_nothing_goes_out(
    rig: Rig, body: Any, status: int, param: str, path: str
) -> None:
    configured(rig)
    answer = await rig.call(body, path=path)
    assert (answer.status, answer.error["param"]) == (status, param), answer.body
    assert rig.upstream.asked == []
    assert rig.outcome().http == status


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, naming(messages="x"), "messages"),
        (CHAT, naming(messages=[5]), "messages[0]"),
        (PATH, naming(input=[{}, 5]), "input[1]"),
        (CHAT, naming(response_format={"type": "text"}), "response_format"),
        (CHAT, naming(stream="yes"), "stream"),
        (PATH, naming(instructions=["x"]), "instructions"),
        (PATH, naming(text={"format": {"type": "text"}}), "text.format"),
        (PATH, naming(text="x"), "text"),
        (PATH, naming(input=5), "input"),
    ],
)
async def test_what_does_not_go_together_is_named(rig: Rig, path: str, body: Any, param: str) -> None:
    configured(rig, a_prompt(a_version(output_schema=SCHEMA, route="chat")))
    answer = await rig.call(body, path=path)
    assert (answer.status, answer.error["param"]) == (400, param), answer.body


async def test_where_no_model_is_named_the_version_decides_and_the_key_must_be_allowed(rig: Rig) -> None:
    nowhere = a_prompt(a_version(), slug="nowhere")
    configured(rig, a_prompt(), nowhere, models=[a_model(), a_model("large")])
    rig.upstream.does(answers())
    assert (await rig.call(naming())).headers["x-llmops-model"] == "small"
    assert (await rig.call(naming(model="large"))).headers["x-llmops-model"] == "large"
    answer = await rig.call({"prompt": {"id": "nowhere", "variables": {"ticket": "x"}}})
    assert (answer.status, answer.error["param"]) == (400, "model")
    configured(rig, keys={KEY: a_key(allowed_routes=frozenset({"other"}))})
    assert (await rig.call(naming())).status == 403


async def test_policies_look_at_what_the_prompt_became(rig: Rig) -> None:
    block = PolicyEntry("mail", 1, (CheckEntry("personal_data", "before", "block", {"kinds": ["email"]}),))
    configured(rig, policies=[block], routes=[a_route("chat", policies=("mail",))])
    rig.upstream.does(answers())
    assert (await rig.call(naming(ticket="nothing"))).status == 200
    answer = await rig.call(naming(ticket="ada@example.com"))
    assert (answer.status, answer.error["code"]) == (400, "policy_blocked")


async def test_equal_requests_are_answered_from_the_cache_until_the_label_moves(rig: Rig) -> None:
    versions = (a_version(1, route="chat"), a_version(2, task="Other.", route="chat"))
    configured(rig, a_prompt(*versions, production=1), routes=[a_route("chat", cache_ttl_s=60)])
    rig.upstream.does(answers())
    assert [(await rig.call(naming())).headers["x-llmops-cache"] for _ in range(2)] == ["miss", "hit"]
    configured(rig, a_prompt(*versions, production=2), routes=[a_route("chat", cache_ttl_s=60)])
    answer = await rig.call(naming())
    assert (answer.headers["x-llmops-cache"], answer.headers["x-llmops-prompt"]) == ("miss", "triage@2")


async def test_a_version_that_cannot_be_used_is_said_and_the_others_serve(rig: Rig) -> None:
    broken = PromptVersionEntry(2, "d", {"task": "{{ now() }}"})
    configured(rig, a_prompt(a_version(1, route="chat"), broken, production=1, staging=2))
    rig.upstream.does(answers())
    assert (await rig.call(naming())).status == 200
    answer = await rig.call(naming("staging"))
    assert (answer.status, answer.error["code"]) == (503, "prompt_unusable")


async def test_null_is_no_prompt(rig: Rig) -> None:
    configured(rig)
    rig.upstream.does(answers())
    answer = await rig.chat(prompt=None)
    assert (answer.status, "x-llmops-prompt" in answer.headers) == (200, False)
