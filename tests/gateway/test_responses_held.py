"""What is held for a response, and which are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmops.gateway.kept.owners import RESPONSE
from llmops.usage.records import Kept
from tests.gateway.responding import (
    IN,
    OUT,
    PATH,
    ask,
    respond,
    responds,
)
from tests.gateway.rig import (
    KEY,
    USD,
    Rig,
    a_budget,
    a_key,
    a_provider,
)


@pytest.mark.parametrize(
    ("given", "bound"),
    [
        ("x" * 50, None),
        ([{"role": "user", "content": "x" * 50}], None),
        ([{"role": "user", "content": [{"type": "input_text", "text": "input_image"}]}], None),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "https://example.com/a"}]}],
            1_445,
        ),
        (
            [
                {
                    "role": "user",
                    "content": [{"type": "input_image", "image_url": "data:image/png;base64," + "A" * 9_000}],
                }
            ],
            1_445 - 9_022,
        ),
        (
            [
                {
                    "type": "function_call_output",
                    "call_id": "c",
                    "output": [{"type": "input_image", "image_url": "h"}],
                }
            ],
            1_445,
        ),
        (
            [
                {
                    "role": "user",
                    "content": [{"type": "input_file", "file_data": "data:application/pdf;base64,AA"}],
                }
            ],
            "window",
        ),
        ([{"type": "item_reference", "id": "msg_1"}], "window"),
        ([{"type": "compaction", "encrypted_content": "x"}], "window"),
    ],
)
async def test_the_hold_bounds_what_the_input_can_cost(rig: Rig, given: Any, bound: int | str | None) -> None:
    key = a_key()
    rig.configure(keys={KEY: key}, budgets=[a_budget(limit_nano=10 * USD)])
    rig.plane.objects.made(RESPONSE, "resp_0", key=key, provider="up", items=["msg_1"])
    rig.upstream.does(responds())
    assert (await respond(rig, given)).status == 200
    size = len(json.dumps(ask(given)))
    expected = 100_000 if bound == "window" else size + (bound or 0)  # type: ignore[operator]
    assert rig.held()[0].worst_cost == expected * IN + 100 * OUT


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"tools": [{"type": "web_search"}]}, "the tool 'web_search'"),
        (
            {"tools": [{"type": "function", "name": "f"}, {"type": "mcp", "server_url": "x"}]},
            "the tool 'mcp'",
        ),
        ({"tools": [{"type": "image_generation"}]}, "the tool 'image_generation'"),
        ({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, "'code_interpreter'"),
        ({"tools": [{"type": "not_invented_yet"}]}, "the tool 'not_invented_yet'"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]}]}, "'web_search'"),
        ({"tools": [{"type": "shell"}]}, "the tool 'shell'"),
        ({"prompt": {"id": "pmpt_1"}}, "a prompt kept at the provider"),
        ({"context_management": [{"type": "compaction"}]}, "context management"),
    ],
)
async def test_what_cannot_be_metered_is_refused_under_a_hard_budget_only(
    rig: Rig, members: dict[str, Any], said: str
) -> None:
    sharing = a_provider(base_url=rig.upstream.url, shared_objects=("pmpt_1",))
    rig.configure(providers=[sharing], budgets=[a_budget("team")])
    rig.upstream.does(responds())
    answer = await respond(rig, **members)
    assert (answer.status, answer.error["code"]) == (422, "not_metered")
    assert said in answer.error["message"] and "'team'" in answer.error["message"]
    assert rig.upstream.asked == []
    rig.configure(providers=[sharing], budgets=[a_budget(hard=False)])
    assert (await respond(rig, **members)).status == 200


@pytest.mark.parametrize(
    "tools",
    [
        None,
        [],
        [{"type": "function", "name": "f", "parameters": {}}],
        [{"type": "custom", "name": "c"}, {"type": "local_shell"}, {"type": "apply_patch"}],
        [{"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]}],
        [{"type": "shell", "environment": {"type": "local"}}],
    ],
)
async def test_tools_of_the_callers_own_are_nothing_but_tokens(rig: Rig, tools: Any) -> None:
    rig.configure(budgets=[a_budget()])
    rig.upstream.does(responds())
    assert (await respond(rig, tools=tools)).status == 200


async def test_web_search_in_a_chat_is_refused_under_a_hard_budget(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])
    answer = await rig.chat(web_search_options={})
    assert (answer.status, answer.error["code"]) == (422, "not_metered")
    assert (await rig.chat(web_search_options=None)).status == 200


async def test_a_stored_chat_is_registered(rig: Rig) -> None:
    await rig.chat(store=True)
    await rig.chat(store=False)
    await rig.chat()
    [kept] = [one for one in rig.records() if isinstance(one, Kept)]
    assert (kept.kind, kept.object) == ("chat.completion", "chatcmpl-1")


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": 5}, "input"),
        ({"input": {}}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["text"]}, "input[0]"),
        ({"input": [{"role": 5}]}, "input[0].role"),
        ({"input": None}, "input"),
        ({"model": None}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": "7"}, "max_output_tokens"),
        ({"previous_response_id": 5}, "previous_response_id"),
        ({"previous_response_id": "r" * 201}, "previous_response_id"),
        ({"conversation": 5}, "conversation"),
        ({"conversation": {"id": 5}}, "conversation"),
        ({"tools": "all"}, "tools"),
        ({"store": 1}, "store"),
        ({"background": "no"}, "background"),
        ({"background": True, "store": False}, "background"),
    ],
)
async def test_bad_input_is_a_400_that_names_the_member(
    rig: Rig, members: dict[str, Any], param: str
) -> None:
    answer = await rig.call(ask() | members, path=PATH)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert rig.upstream.asked == []
