"""Whose objects a response may name, and which it registers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmops.gateway.kept.owners import FILE, RESPONSE
from llmops.usage.records import Kept
from tests.gateway.responding import (
    IN,
    OUT,
    PATH,
    ask,
    created,
    ended,
    respond,
    responds,
)
from tests.gateway.rig import (
    KEY,
    Asked,
    Reply,
    Rig,
    a_credential,
    a_key,
    a_model,
    a_provider,
    a_route,
)


async def test_a_response_is_registered_before_its_client_knows_it(rig: Rig) -> None:
    key = a_key()
    credential = a_credential()
    rig.configure(keys={KEY: key}, credentials={"up": (credential,)})
    go_on = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(created(id="resp_s"), end=False)
        await go_on.wait()
        await reply.chunk(ended(id="resp_s"))
        await reply.raw(b"0\r\n\r\n")

    rig.upstream.does(responds(id="resp_w"), script, responds(id="resp_n"))
    await respond(rig)
    exchange = rig.start(ask(stream=True), path=PATH)
    await exchange.answer.until(lambda answer: b"response.created" in answer.body)
    kept = [one for one in rig.records() if isinstance(one, Kept)]
    assert [(one.kind, one.object, one.project, one.provider, one.credential, one.model) for one in kept] == [
        (RESPONSE, name, key.project_id, "up", credential.id, "small") for name in ("resp_w", "resp_s")
    ]
    go_on.set()
    await exchange.done()
    await respond(rig, store=False)
    assert len([one for one in rig.records() if isinstance(one, Kept)]) == 2
    owner = await rig.plane.objects.owner(RESPONSE, "resp_s", key.project_id)
    assert owner.provider == "up"


async def test_a_response_that_goes_on_from_another_stays_where_that_is(rig: Rig) -> None:
    first, second = a_credential(name="first"), a_credential(name="second", secret="another-secret")
    rig.configure(
        keys={KEY: a_key()},
        providers=[a_provider("up", rig.upstream.url), a_provider("other", rig.upstream.url)],
        models=[a_model("small"), a_model("away", "other")],
        routes=[a_route("chat", "away", fallbacks=("small",)), a_route("far", "away")],
        credentials={"up": (first, second), "other": (a_credential("other", "third-secret"),)},
    )
    key = next(iter(rig.plane.snapshot.live.keys.values())).key
    rig.plane.objects.made(RESPONSE, "resp_1", key=key, provider="up", credential=second.id, model="chat")
    rig.upstream.does(responds(id="resp_2"))
    answer = await respond(rig, model="chat", previous_response_id="resp_1")
    assert answer.status == 200
    [asked] = rig.upstream.asked
    assert asked.json["previous_response_id"] == "resp_1"
    assert asked.headers["authorization"] == "Bearer another-secret"
    assert rig.held()[0].model == "small"
    # The provider adds what is not seen here: nothing but the window bounds it.
    assert rig.held()[0].worst_cost == 100_000 * IN + 100 * OUT
    refused = await respond(rig, model="far", previous_response_id="resp_1")
    assert (refused.status, refused.error["param"]) == (400, "previous_response_id")
    assert "'up'" in refused.error["message"]
    assert len(rig.upstream.asked) == 1


@pytest.mark.parametrize(
    ("members", "status", "code", "param"),
    [
        ({"previous_response_id": "resp_x"}, 400, "previous_response_not_found", "previous_response_id"),
        ({"conversation": "conv_x"}, 400, "conversation_not_found", "conversation"),
        ({"conversation": {"id": "conv_x"}}, 400, "conversation_not_found", "conversation"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file_x"}]}]},
            404,
            "not_found",
            "input",
        ),
        (
            {"tools": [{"type": "file_search", "vector_store_ids": ["vs_x"]}]},
            404,
            "not_found",
            "tools[0].vector_store_ids",
        ),
        (
            {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file_x"]}}]},
            404,
            "not_found",
            "tools[0].container.file_ids",
        ),
        (
            {
                "tools": [
                    {"type": "shell", "environment": {"type": "container_reference", "container_id": "vs_x"}}
                ]
            },
            404,
            "not_found",
            "tools[0].environment.container_id",
        ),
        (
            {"tools": [{"type": "shell", "environment": {"type": "container_auto", "file_ids": ["file_x"]}}]},
            404,
            "not_found",
            "tools[0].environment.file_ids",
        ),
        (
            {"tools": [{"type": "image_generation", "input_image_mask": {"file_id": "file_x"}}]},
            404,
            "not_found",
            "tools[0].input_image_mask.file_id",
        ),
        (
            {
                "tools": [
                    {"type": "namespace", "tools": [{"type": "file_search", "vector_store_ids": ["vs_x"]}]},
                ]
            },
            404,
            "not_found",
            "tools[0].tools.vector_store_ids",
        ),
        (
            {
                "input": [
                    {
                        "type": "tool_search_output",
                        "tools": [{"type": "file_search", "vector_store_ids": ["vs_x"]}],
                    }
                ]
            },
            404,
            "not_found",
            "input",
        ),
        (
            {"prompt": {"id": "pmpt_1", "variables": {"x": {"type": "input_file", "file_id": "file_x"}}}},
            404,
            "not_found",
            "prompt.id",
        ),
    ],
)
async def test_objects_of_other_projects_are_not_there(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, members: dict[str, Any], status: int, code: str, param: str
) -> None:
    monkeypatch.setattr("llmops.gateway.kept.objects.PATIENCE_S", 0.0)
    stranger = a_key("stranger")
    for name in ("resp_x", "conv_x", "vs_x"):
        rig.plane.objects.made(RESPONSE, name, key=stranger, provider="up")
    rig.plane.objects.made(FILE, "file_x", key=stranger, provider="up")
    answer = await rig.call(ask() | members, path=PATH)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, param)
    assert rig.upstream.asked == []
    assert rig.outcome().status == "refused"


async def test_files_in_a_chat_must_be_the_callers_own_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmops.gateway.kept.objects.PATIENCE_S", 0.0)
    key = a_key()
    rig.configure(keys={KEY: key})
    content = [{"type": "text", "text": "read"}, {"type": "file", "file": {"file_id": "file_1"}}]
    answer = await rig.call({"model": "small", "messages": [{"role": "user", "content": content}]})
    assert (answer.status, answer.error["param"]) == (404, "messages[0].content")
    rig.plane.objects.made(FILE, "file_1", key=key, provider="up")
    answer = await rig.call({"model": "small", "messages": [{"role": "user", "content": content}]})
    assert answer.status == 200


@pytest.mark.parametrize("escaped", [rb"file\u005fid", rb"fil\u0065_\u0069d"])
async def test_a_name_written_with_escapes_is_the_same_name(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, escaped: bytes
) -> None:
    monkeypatch.setattr("llmops.gateway.kept.objects.PATIENCE_S", 0.0)
    part = b'{"type":"file","file":{"' + escaped + b'":"file_1"}}'
    chat = b'{"model":"small","messages":[{"role":"user","content":[' + part + b"]}]}"
    assert (await rig.call(chat)).error["param"] == "messages[0].content"
    part = rb'{"type":"input\u005ffile","' + escaped + b'":"file_1"}'
    response = b'{"model":"small","input":[{"role":"user","content":[' + part + b"]}]}"
    answer = await rig.call(response, path=PATH)
    assert (answer.status, answer.error["param"]) == (404, "input")
    assert rig.upstream.asked == []


async def test_what_is_written_with_escapes_is_bounded_as_what_it_is(rig: Rig) -> None:
    body = rb'{"model":"small","input":[{"type":"item\u005freference","id":"msg_1"}]}'
    key = a_key()
    rig.configure(keys={KEY: key})
    rig.plane.objects.made(RESPONSE, "resp_0", key=key, provider="up", items=["msg_1"])
    rig.upstream.does(responds())
    await rig.call(body, path=PATH)
    assert rig.held()[0].worst_cost == 100_000 * IN + 100 * OUT


@pytest.mark.parametrize("stores", [5, "vs_x", {"a": 1}, [[1]], [None]])
async def test_stores_of_another_shape_are_the_providers_to_judge(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, stores: Any
) -> None:
    monkeypatch.setattr("llmops.gateway.kept.objects.PATIENCE_S", 0.0)
    rig.configure(budgets=())
    rig.upstream.does(responds())
    answer = await rig.call(
        ask() | {"tools": [{"type": "file_search", "vector_store_ids": stores}]}, path=PATH
    )
    assert answer.status == (404 if stores == "vs_x" else 200)


async def test_what_a_function_calls_its_own_parameters_names_nothing(rig: Rig) -> None:
    tool = {"type": "function", "name": "f", "parameters": {"properties": {"a": {"file_id": "file_x"}}}}
    rig.upstream.does(responds())
    assert (await rig.call(ask() | {"tools": [tool]}, path=PATH)).status == 200
