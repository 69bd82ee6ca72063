"""What a request names by an id is its project's own, or nobody else's: every member of every body that names something."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llmops.gateway.kept import objects
from llmops.gateway.kept.owners import AUDIO, FILE, ITEM, RESPONSE, Owner, ShelfAway
from llmops.usage.records import Holds, Kept
from tests.gateway.responding import (
    PATH,
    created,
    delta,
    ended,
    event,
    message,
    responds,
)
from tests.gateway.responding import ask as respond
from tests.gateway.rig import (
    DONE,
    KEY,
    Reply,
    Rig,
    a_credential,
    a_key,
    a_model,
    a_provider,
    a_route,
    answers,
    ask,
    chunk,
    completion,
    streams,
    usage_chunk,
)
from tests.gateway.rig import Asked as Request

STRANGER = "llmops_stranger_" + "s" * 40
CHATS, SPEECH = "/v1/chat/completions", "/v1/audio/speech"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PATIENCE_S", 0.0)


@pytest.fixture
def two(rig: Rig) -> Rig:
    """Two projects at one provider."""
    configured(rig)
    return rig


def configured(rig: Rig, *shared: str) -> None:
    rig.configure(
        keys={KEY: a_key(), STRANGER: a_key("stranger", project="sales")},
        providers=[a_provider(base_url=rig.upstream.url, shared_objects=shared)],
    )


def item(**members: Any) -> dict[str, Any]:
    return respond([{"role": "user", "content": "go on"}, members])


#: What another project made, and every way to name it.
MADE = {
    "msg_x": ITEM,
    "rs_x": ITEM,
    "ig_x": ITEM,
    "mcpr_x": ITEM,
    "ws_x": ITEM,
    "cntr_x": ITEM,
    "resp_x": RESPONSE,
    "conv_x": "conversations",
    "file_x": FILE,
    "vs_x": "vector_stores",
    "skill_x": "skills",
    "voice_x": "audio",
    "audio_x": AUDIO,
    "tunnel_x": "tunnels",
    "pmpt_x": "prompts",
}
NAMED: list[tuple[str, dict[str, Any], str]] = [
    (PATH, item(type="item_reference", id="msg_x"), "input[1].id"),
    (PATH, item(id="msg_x"), "input[1].id"),
    (PATH, item(type=None, id="msg_x"), "input[1].id"),
    (PATH, item(type="message", id="msg_x", role="assistant"), "input[1].id"),
    (PATH, item(type="message", id="msg_x", role="assistant", content=[]), "input[1].id"),
    (PATH, item(type="not_invented_yet", id="msg_x", status="completed"), "input[1].id"),
    (PATH, item(type="reasoning", id="rs_x", summary=[]), "input[1].id"),
    (PATH, item(type="reasoning", id="rs_x", summary=[{"type": "summary_text", "text": "s"}]), "input[1].id"),
    (PATH, item(type="reasoning", id="rs_x", summary=[], encrypted_content=""), "input[1].id"),
    (PATH, item(type="image_generation_call", id="ig_x"), "input[1].id"),
    (PATH, item(type="image_generation_call", id="ig_x", result=None, action="edit"), "input[1].id"),
    (PATH, item(type="compaction", id="msg_x"), "input[1].id"),
    (
        PATH,
        item(type="mcp_approval_response", approval_request_id="mcpr_x", approve=True),
        "input[1].approval_request_id",
    ),
    # In full, but a provider may look at its id alone.
    (PATH, item(**(message("mine") | {"id": "msg_x"})), "input"),
    (PATH, item(type="reasoning", id="rs_x", summary=[], encrypted_content="e"), "input"),
    (PATH, item(type="web_search_call", id="ws_x", action={"type": "search", "query": "q"}), "input"),
    (PATH, respond(previous_response_id="resp_x"), "previous_response_id"),
    (PATH, respond(conversation={"id": "conv_x"}), "conversation"),
    (PATH, respond(prompt={"id": "pmpt_x", "version": "1"}), "prompt.id"),
    (
        PATH,
        respond(prompt_cache_options={"mode": "explicit", "comparison_response_id": "resp_x"}),
        "prompt_cache_options.comparison_response_id",
    ),
    (
        PATH,
        respond(tools=[{"type": "file_search", "vector_store_ids": ["vs_x"]}]),
        "tools[0].vector_store_ids",
    ),
    (PATH, respond(tools=[{"type": "code_interpreter", "container": "cntr_x"}]), "tools[0].container"),
    (PATH, respond(tools=[{"type": "mcp", "tunnel_id": "tunnel_x"}]), "tools[0].tunnel_id"),
    (
        PATH,
        respond(
            tools=[
                {
                    "type": "shell",
                    "environment": {
                        "type": "container_auto",
                        "skills": [{"type": "skill_reference", "skill_id": "skill_x"}],
                    },
                }
            ]
        ),
        "tools[0].environment.skills.skill_id",
    ),
    (CHATS, ask(messages=[{"role": "assistant", "audio": {"id": "audio_x"}}]), "messages[0].audio.id"),
    (CHATS, ask(audio={"format": "wav", "voice": {"id": "voice_x"}}), "audio.voice.id"),
    (CHATS, ask(audio={"format": "wav", "voice": {"id": "voice_x"}}, stream_options=None), "audio.voice.id"),
    (SPEECH, {"model": "small", "input": "hear", "voice": {"id": "voice_x"}}, "voice.id"),
]


def strangers(rig: Rig) -> None:
    stranger = a_key("third", project="third")
    made = rig.plane.objects.made
    items = [name for name, kind in MADE.items() if kind == ITEM]
    made(RESPONSE, "resp_of_items", key=stranger, provider="up", items=items)
    for name, kind in MADE.items():
        if kind != ITEM:
            made(kind, name, key=stranger, provider="up")


@pytest.mark.parametrize(("path", "body", "param"), NAMED)
async def test_another_projects_object_cannot_be_named(
    two: Rig, path: str, body: dict[str, Any], param: str
) -> None:
    strangers(two)
    answer = await two.call(body, path=path)
    assert answer.status in (400, 404)
    assert answer.error["param"] == param
    assert "operator" in answer.error["message"]
    assert two.upstream.asked == []
    assert two.outcome().status == "refused"


@pytest.mark.parametrize(("path", "body", "param"), [one for one in NAMED if one[2] != "input"])
async def test_anothers_and_nobodys_are_refused_in_the_same_words(
    two: Rig, path: str, body: dict[str, Any], param: str
) -> None:
    first = await two.call(body, path=path)
    strangers(two)
    second = await two.call(body, path=path)
    assert (first.status, first.error) == (second.status, second.error)
    assert two.upstream.asked == []


async def answered(rig: Rig, output: list[dict[str, Any]], *, key: str = KEY, **members: Any) -> None:
    rig.upstream.does(responds(output=output))
    assert (await rig.call(respond(**members), path=PATH, key=key)).status == 200


OUTPUT = [
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1", "code": "1", "outputs": None},
    message(),
]
USING = [
    item(type="item_reference", id="msg_1"),
    item(id="msg_1"),
    item(type="reasoning", id="rs_1", summary=[]),
    item(type="code_interpreter_call", id="ci_1"),
    respond(tools=[{"type": "code_interpreter", "container": "cntr_1"}]),
]


@pytest.mark.parametrize("body", USING)
async def test_what_a_response_holds_is_its_projects(two: Rig, body: dict[str, Any]) -> None:
    await answered(two, OUTPUT)
    assert (await two.call(body, path=PATH)).status == 200
    assert (await two.call(body, path=PATH, key=STRANGER)).status == 404
    assert len(two.upstream.asked) == 2
    [kept] = [one for one in two.records() if isinstance(one, Kept) and one.object == "resp_1"]
    assert kept.items == ["rs_1", "ci_1", "cntr_1", "msg_1"], "one record for all of them"


@pytest.mark.parametrize("how", ["whole", "breaks off", "hangs up"])
@pytest.mark.parametrize("body", USING)
async def test_so_is_what_a_streamed_response_holds(two: Rig, body: dict[str, Any], how: str) -> None:
    told = [
        event("response.output_item.added", 1, output_index=0, item=OUTPUT[0]),
        event("response.output_item.done", 2, output_index=0, item=OUTPUT[0]),
        event("response.output_item.added", 3, output_index=1, item=OUTPUT[1] | {"container_id": None}),
        event("response.output_item.done", 4, output_index=1, item=OUTPUT[1]),
        event("response.output_item.added", 5, output_index=2, item=message("")),
        delta("Hel", 6),
    ]
    if how == "hangs up":

        async def script(asked: Request, reply: Reply) -> None:
            await reply.events(created(), *told, end=False)
            await asyncio.Event().wait()

        two.upstream.does(script)
        exchange = two.start(respond(stream=True), path=PATH)
        await exchange.answer.until(lambda answer: b"Hel" in answer.body)
        exchange.hang_up()
        await exchange.done()
    else:
        last = [ended(number=7, output=OUTPUT)] if how == "whole" else []
        two.upstream.does(streams(created(), *told, *last))
        answer = await two.call(respond(stream=True), path=PATH)
        assert (b"response.completed" in answer.body) == (how == "whole")
    two.upstream.does(responds())
    assert (await two.call(body, path=PATH)).status == 200
    assert (await two.call(body, path=PATH, key=STRANGER)).status == 404
    [holds] = [one for one in two.records() if isinstance(one, Holds)]
    assert (holds.object, holds.items) == ("resp_1", ["rs_1", "ci_1", "cntr_1", "msg_1"])


async def test_what_was_not_stored_is_kept_by_nobody(two: Rig) -> None:
    await answered(two, OUTPUT, store=False)
    assert not [one for one in two.records() if isinstance(one, (Kept, Holds))]
    assert (await two.call(item(type="item_reference", id="msg_1"), path=PATH)).status == 404
    # It may be told again in full, as clients that store nothing do.
    again = respond([OUTPUT[0] | {"encrypted_content": "e"}, message(), {"role": "user", "content": "go on"}])
    two.upstream.does(responds())
    assert (await two.call(again | {"store": False}, path=PATH)).status == 200
    asked = two.upstream.asked[-1]
    assert json.loads(asked.body)["input"] == again["input"]


async def test_an_approval_of_what_stands_in_the_same_request_needs_nothing_that_is_kept(two: Rig) -> None:
    two.upstream.does(responds())
    request = {
        "type": "mcp_approval_request",
        "id": "mcpr_1",
        "name": "f",
        "arguments": "{}",
        "server_label": "s",
    }
    response = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}
    assert (await two.call(respond([request, response], store=False), path=PATH)).status == 200


async def test_a_response_that_is_read_again_tells_what_it_holds(two: Rig) -> None:
    two.upstream.does(responds(status="queued", output=[]), responds(output=OUTPUT))
    await two.call(respond(background=True), path=PATH)
    read = await two.call(b"", path=PATH + "/resp_1", method="GET")
    assert read.status == 200
    two.upstream.does(responds())
    assert (await two.call(item(type="item_reference", id="msg_1"), path=PATH)).status == 200
    assert (await two.call(item(type="item_reference", id="msg_1"), path=PATH, key=STRANGER)).status == 404


async def test_a_call_goes_where_the_items_are_that_it_names(rig: Rig) -> None:
    key = a_key()
    credentials = {"up": (a_credential(), a_credential(name="second"))}
    rig.configure(
        keys={KEY: key},
        providers=[
            a_provider("other", base_url="http://127.0.0.1:9/v1"),
            a_provider(base_url=rig.upstream.url),
        ],
        models=[a_model("elsewhere", "other"), a_model()],
        routes=[a_route("chat", "elsewhere", "small")],
        credentials=credentials | {"other": (a_credential("other"),)},
    )
    second = credentials["up"][1]
    rig.plane.objects.made(RESPONSE, "resp_0", key=key, provider="up", credential=second.id, items=["msg_0"])
    rig.upstream.does(responds())
    for _ in range(4):
        answer = await rig.call(item(id="msg_0") | {"model": "chat"}, path=PATH)
        assert (answer.status, answer.headers["x-llmops-attempts"]) == (200, "1")
    assert {one.outcome.attempts[0].credential for one in rig.ended() if one.outcome} == {second.id}


@pytest.mark.parametrize("streamed", [True, False])
async def test_what_was_said_aloud_is_its_projects(two: Rig, streamed: bool) -> None:
    sound = {"id": "audio_1", "data": "AAAA", "transcript": "Hello", "expires_at": 1}
    if streamed:
        first = chunk(choices=[{"index": 0, "delta": {"role": "assistant", "audio": {"id": "audio_1"}}}])
        more = chunk(choices=[{"index": 0, "delta": {"audio": {"data": "AAAA"}}}])
        two.upstream.does(streams(first, more, chunk(finish="stop"), usage_chunk(), DONE))
    else:
        spoken = {"role": "assistant", "content": None, "audio": sound}
        choices = [{"index": 0, "message": spoken, "finish_reason": "stop"}]

        async def script(asked: Request, reply: Reply) -> None:
            await reply.json(completion(choices=choices))

        two.upstream.does(script)
    asking = ask(modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"}, stream=streamed)
    assert (await two.call(asking)).status == 200
    [kept] = [one for one in two.records() if isinstance(one, Kept)]
    assert (kept.kind, kept.object) == (AUDIO, "audio_1")
    two.upstream.does(answers())
    again = ask(messages=[{"role": "assistant", "audio": {"id": "audio_1"}}])
    assert (await two.call(again)).status == 200
    assert (await two.call(again, key=STRANGER)).status == 404


NOBODYS = [
    (PATH, respond(prompt={"id": "pmpt_1"}), "pmpt_1", "pmpt_*"),
    (PATH, item(type="item_reference", id="msg_old"), "msg_old", "msg_*"),
    (PATH, respond(tools=[{"type": "file_search", "vector_store_ids": ["vs_1"]}]), "vs_1", "vs_*"),
    (CHATS, ask(audio={"format": "wav", "voice": {"id": "voice_1"}}), "voice_1", "voice_*"),
    (PATH, respond(previous_response_id="resp_old"), "resp_old", "resp_*"),
]


@pytest.mark.parametrize(("path", "body", "name", "beginning"), NOBODYS)
@pytest.mark.parametrize("by", ["name", "beginning", "another"])
async def test_an_operator_lets_every_project_name_what_was_made_elsewhere(
    rig: Rig, path: str, body: dict[str, Any], name: str, beginning: str, by: str
) -> None:
    configured(rig, {"name": name, "beginning": beginning, "another": name + "1"}[by])
    if path == PATH:
        rig.upstream.does(responds())
    for key in (KEY, STRANGER):
        answer = await rig.call(body, path=path, key=key)
        assert (answer.status == 200) == (by != "another")


async def test_a_beginning_does_not_open_what_a_project_made(rig: Rig) -> None:
    configured(rig, "file-*")
    rig.plane.objects.made(FILE, "file-1", key=a_key("third", project="third"), provider="up")
    content = [{"type": "file", "file": {"file_id": "file-1"}}]
    body = ask(messages=[{"role": "user", "content": content}])
    assert (await rig.call(body)).status == 404
    configured(rig, "file-*", "file-1")
    assert (await rig.call(body)).status == 200, "an id that is listed by itself is meant"


async def test_sources_of_an_answer_that_is_told_again_name_nothing(two: Rig) -> None:
    cited = message()
    cited["content"][0]["annotations"] = [{"type": "file_citation", "file_id": "file_of_a_store", "index": 1}]
    found = {
        "type": "file_search_call",
        "id": "fs_1",
        "queries": ["q"],
        "results": [{"file_id": "file_of_a_store"}],
    }
    two.upstream.does(responds())
    assert (await two.call(respond([found, cited], store=False), path=PATH)).status == 200


class Shelf:
    """A database that is away, or holds what another process made."""

    def __init__(self, *rows: Owner, away: bool = False) -> None:
        self.rows, self.away, self.looks = rows, away, 0

    async def find(self, ids: Any) -> list[Owner]:
        self.looks += 1
        if self.away:
            raise ShelfAway
        return [row for row in self.rows if row.id in ids]

    async def close(self) -> None:
        return None


async def test_what_another_process_relayed_is_known_from_the_database(two: Rig) -> None:
    stranger = a_key(project="sales")
    row = Owner(kind=ITEM, id="msg_far", project=stranger.project_id, key=stranger.id, provider="up")
    shelf = two.plane.objects.shelf = Shelf(row)
    two.upstream.does(responds())
    for body in (item(id="msg_far"), item(**(message() | {"id": "msg_far"}))):
        assert (await two.call(body, path=PATH)).status == 404
    many = respond([{"type": "item_reference", "id": f"msg_{number}"} for number in range(300)])
    shelf.looks = 0
    assert (await two.call(many, path=PATH)).status == 404
    assert shelf.looks <= 2, "all are one question"


async def test_without_a_database_what_stands_in_full_goes_on(two: Rig) -> None:
    two.plane.objects.shelf = Shelf(away=True)
    two.upstream.does(responds())
    assert (await two.call(item(**message()), path=PATH)).status == 200
    bare = await two.call(item(id="msg_2"), path=PATH)
    assert (bare.status, bare.error["code"]) == (503, "service_unavailable")


async def test_an_ordinary_conversation_asks_nobody(two: Rig) -> None:
    shelf = two.plane.objects.shelf = Shelf(away=True)
    two.upstream.does(responds())
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert (await two.call(respond(turns), path=PATH)).status == 200
    await answered(two, OUTPUT)
    assert (await two.call(respond([*OUTPUT, turns[0]]), path=PATH)).status == 200, (
        "this process relayed them"
    )
    assert shelf.looks == 0
