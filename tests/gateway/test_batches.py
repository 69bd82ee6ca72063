"""Batches: only the project's own files and models, never under a hard budget."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llmops.gateway.kept import objects
from llmops.usage.records import Kept
from tests.gateway.batching import A_BATCH, BODY, CHAT, DONE, a_line, at, create, lines
from tests.gateway.keeping import MINE, OTHER, THEIRS, bytes_of, configure, get, gives
from tests.gateway.rig import (
    KEY,
    Asked,
    Reply,
    Rig,
    Upstream,
    a_budget,
    a_key,
    a_model,
    a_route,
    eventually,
    fails,
)
from tests.gateway.test_objects import FakeShelf, a_row


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PATIENCE_S", 0.1)
    monkeypatch.setattr(objects, "_LOOK_EVERY_S", 0.02)


@pytest.fixture
async def kept(rig: Rig) -> AsyncIterator[Rig]:
    configure(rig)
    rig.plane.objects.made("file", "file-1", key=MINE, provider="up")
    yield rig


# ---------------------------------------------------------------------- making one


async def test_a_batch_goes_where_its_file_is_and_is_the_projects_own(kept: Rig, upstream: Upstream) -> None:
    upstream.does(
        at(content=bytes_of(lines("sim-small", "sim-small")), batches=gives(A_BATCH), batch_1=gives(DONE))
    )
    made = await create(kept, headers={"x-llmops-feature": "f", "x-llmops-tags": "a,b"})
    assert (made.status, made.json) == (200, A_BATCH)
    assert upstream.asked[-1].json == BODY
    (record,) = [one for one in kept.records() if isinstance(one, Kept) and one.kind == "batch"]
    assert record.due > record.at
    assert record.details["models"] == ["sim-small"]
    assert (record.details["feature"], record.details["tags"]) == ("f", ["a", "b"])
    assert (await get(kept, "/v1/batches/batch_1")).json["status"] == "completed"
    upstream.does(bytes_of(b"out"))
    for name in ("file-out", "file-err"):
        assert (await get(kept, f"/v1/files/{name}/content")).body == b"out"
        assert (await get(kept, f"/v1/files/{name}/content", key=OTHER)).status == 404


async def test_a_list_of_batches_makes_their_files_known(kept: Rig, upstream: Upstream) -> None:
    kept.plane.objects.made("batch", "batch_1", key=MINE, provider="up")
    upstream.does(gives({"object": "list", "data": [DONE], "has_more": False}))
    assert (await get(kept, "/v1/batches?limit=5")).json["data"] == [DONE]
    upstream.does(bytes_of(b"out"))
    assert (await get(kept, "/v1/files/file-out/content")).status == 200


@pytest.mark.parametrize(
    "path", ["/v1/batches/batch_1", "/v1/batches/batch_1/cancel", "/v1/batches?after=batch_1"]
)
async def test_anothers_batch_and_file_are_not_there(kept: Rig, upstream: Upstream, path: str) -> None:
    kept.plane.objects.made("batch", "batch_1", key=MINE, provider="up")
    method = "POST" if path.endswith("cancel") else "GET"
    answers = [
        await kept.call(b"{}", method=method, path=path.replace("batch_1", name), key=OTHER)
        for name in ("batch_1", "batch_9")
    ]
    assert [one.status for one in answers] == [404, 404]
    assert answers[0].body == answers[1].body.replace(b"batch_9", b"batch_1")
    stolen = [await create(kept, body={"input_file_id": name}, key=OTHER) for name in ("file-1", "file-9")]
    assert [one.status for one in stolen] == [404, 404]
    assert stolen[0].body == stolen[1].body.replace(b"file-9", b"file-1")
    assert stolen[0].error["param"] == "input_file_id"
    assert not upstream.asked


@pytest.mark.parametrize("scope", ["organisation", "project", "key", "feature", "user", "tag"])
async def test_no_batch_runs_under_a_hard_budget(kept: Rig, upstream: Upstream, scope: str) -> None:
    value = {"organisation": "", "project": "support", "key": MINE.id}.get(scope, "it")
    configure(kept, budgets=[a_budget("strict", scope_kind=scope, scope_value=value, project=None)])
    headers = {"x-llmops-feature": "it", "x-llmops-user": "it", "x-llmops-tags": "it"}
    refused = await create(kept, headers=headers)
    assert (refused.status, refused.error["code"]) == (422, "batch_under_hard_budget")
    assert "strict" in refused.error["message"]
    assert not upstream.asked
    upstream.does(at(content=bytes_of(lines("sim-small")), batches=gives(A_BATCH)))
    configure(
        kept, budgets=[a_budget("loose", scope_kind=scope, scope_value=value, project=None, hard=False)]
    )
    assert (await create(kept, headers=headers)).status == 200


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lines("sim-small", "sim-large"), "line 2"),
        (lines("small"), "line 1"),
        (b'{"body": {"model": 1}}\n', "line 1"),
        (lines("sim-small") + b"not json\n", "line 2"),
        (lines("sim-small") + b'{"body": {"model": "sim-large"}}', "line 2"),
    ],
)
async def test_a_batch_names_only_models_that_its_key_may_call(
    kept: Rig, upstream: Upstream, content: bytes, says: str
) -> None:
    configure(
        kept,
        models=[a_model("small"), a_model("large")],
        routes=[a_route("chat", "small")],
        keys={KEY: a_key(project_id=MINE.project_id, allowed_models=frozenset())},
    )
    pieces = [content[start : start + 7] for start in range(0, len(content), 7)]
    upstream.does(at(content=bytes_of(*pieces), batches=gives(A_BATCH)))
    refused = await create(kept)
    assert (refused.status, refused.error["param"]) == (400, "input_file_id")
    assert says in refused.error["message"]
    assert not [one for one in upstream.asked if one.path.endswith("/batches")]


@pytest.mark.parametrize("escaped", [False, True])
async def test_a_line_must_not_refer_to_anothers_object(kept: Rig, upstream: Upstream, escaped: bool) -> None:
    shelf = FakeShelf()
    shelf.rows = [
        a_row("file-theirs1", project=THEIRS.project_id),
        a_row("resp_theirs2", kind="response", project=THEIRS.project_id),
        a_row("file-mine1", project=MINE.project_id),
    ]
    kept.plane.objects.shelf = shelf
    for name, status in (
        ("file-theirs1", 404),
        ("resp_theirs2", 404),
        ("file-mine1", 200),
        ("file-none1", 200),
    ):
        part = {"type": "input_file", "file_id": name, "previous_response_id": name}
        line = a_line(custom_id="other", body={"model": "sim-small", "input": [part]})
        if escaped:
            line = line.replace(b"_id", b"\\u005fid")
        upstream.does(at(content=bytes_of(lines("sim-small") + line), batches=gives(A_BATCH)))
        answer = await create(kept)
        assert answer.status == status, answer.body
    assert len([one for one in upstream.asked if one.path.endswith("/batches")]) == 2


GOOD = a_line()
TWICE = GOOD.replace(b'"model"', b'"model": "sim-dear", "model"')


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (a_line(url="/v1/files"), "its url must be"),
        (a_line(url="/v1/files/file-theirs1/content", method="GET"), "its method must be"),
        (a_line(method="DELETE"), "its method must be"),
        (a_line(method="post"), "its method must be"),
        (a_line(method=...), "its method must be"),
        (a_line(url=...), "its url must be"),
        (a_line(url="/v1/responses"), "its url must be"),
        (a_line(url=CHAT + "?x=1"), "its url must be"),
        (a_line(url="http://elsewhere" + CHAT), "its url must be"),
        (a_line(custom_id=...), "its custom_id must be text"),
        (a_line(custom_id=7), "its custom_id must be text"),
        (a_line(custom_id=""), "its custom_id must be text"),
        (GOOD + a_line(), "line 2: its custom_id 'a' is that of another line"),
        (a_line(body={"model": "sim-small", "stream": True}), "leave 'stream' out"),
        (a_line(body={"model": "sim-small", "background": True}), "leave 'background' out"),
        (a_line(body=[]), "not a request in JSON with a model in its body"),
        (b'["a"]\n', "not a request in JSON with a model in its body"),
        (TWICE, "the member 'model' is given twice"),
        (GOOD.replace(b'"url"', b'"url": "/v1/files", "url"'), "the member 'url' is given twice"),
        (GOOD.replace(b'"sim-small"', b'"sim-small", "x": NaN'), "not a request in JSON"),
        (b"[" * 50_000, "not a request in JSON"),
        (b"\xff\xfe{\x00", "not a request in JSON"),
    ],
)
async def test_a_line_is_a_call_to_the_batchs_own_address_and_nothing_else(
    kept: Rig, upstream: Upstream, content: bytes, says: str
) -> None:
    upstream.does(at(content=bytes_of(content), batches=gives(A_BATCH)))
    refused = await create(kept)
    assert (refused.status, refused.error["param"]) == (400, "input_file_id")
    assert says in refused.error["message"]
    assert not [one for one in upstream.asked if one.path.endswith("/batches")]


async def test_what_a_line_says_beyond_that_is_its_own(kept: Rig, upstream: Upstream) -> None:
    body = {"model": "sim-small", "stream": False, "odd": [1.50, None]}
    content = a_line(body=body, note="x") + b"\n" + a_line(custom_id="b", url="/chat/completions")
    upstream.does(at(content=bytes_of(content), batches=gives(A_BATCH)))
    assert (await create(kept)).status == 200
    assert (await create(kept, body={"endpoint": "/chat/completions"})).status == 200


@pytest.mark.parametrize("endpoint", ["/v1/files", "/v1/audio/speech", "", None, 3, "/v1/chat/completions/x"])
async def test_a_batch_is_for_an_address_whose_answers_tell_what_they_cost(
    kept: Rig, upstream: Upstream, endpoint: Any
) -> None:
    upstream.does(at(content=bytes_of(lines("sim-small")), batches=gives(A_BATCH)))
    refused = await create(kept, body={"endpoint": endpoint})
    assert (refused.status, refused.error["param"]) == (400, "endpoint")
    assert not upstream.asked


async def test_a_model_without_a_price_is_refused_under_any_budget(kept: Rig, upstream: Upstream) -> None:
    models = [a_model(), a_model("free", prices=())]
    upstream.does(at(content=bytes_of(lines("sim-small", "sim-free")), batches=gives(A_BATCH)))
    configure(kept, models=models, budgets=[a_budget("loose", hard=False)])
    refused = await create(kept)
    assert (refused.status, refused.error["code"]) == (422, "model_not_priced")
    assert "line 2" in refused.error["message"]
    configure(kept, models=models)
    assert (await create(kept)).status == 200


@pytest.mark.parametrize("body", [{"input_file_id": None}, {"input_file_id": 3}, {"input_file_id": "../x"}])
async def test_a_batch_without_a_file_is_refused(kept: Rig, body: dict[str, Any]) -> None:
    assert (await create(kept, body=body)).status in (400, 404)
    assert (await kept.call(b"[]", path="/v1/batches")).status == 400


async def test_a_file_that_cannot_be_read_stops_the_batch(kept: Rig, upstream: Upstream) -> None:
    upstream.does(at(content=fails(500), batches=gives(A_BATCH)))
    assert (await create(kept)).status == 502
    upstream.does(at(content=bytes_of(lines("sim-small"), length=10_000), batches=gives(A_BATCH)))
    assert (await create(kept)).status == 502
    assert not [one for one in upstream.asked if one.path.endswith("/batches")]


async def test_a_batch_whose_client_left_while_it_was_made_is_known_and_counted(
    kept: Rig, upstream: Upstream
) -> None:
    let_go = asyncio.Event()

    async def slowly(asked: Asked, reply: Reply) -> None:
        await let_go.wait()
        await gives(A_BATCH)(asked, reply)

    upstream.does(at(content=bytes_of(lines("sim-small")), batches=slowly))
    exchange = kept.start(BODY, path="/v1/batches")
    await eventually(lambda: any(one.path.endswith("/batches") for one in upstream.asked))
    exchange.hang_up()
    await eventually(lambda: exchange.left() == 0)
    let_go.set()
    await exchange.done()
    (record,) = [one for one in kept.records() if isinstance(one, Kept) and one.kind == "batch"]
    assert record.object == "batch_1" and record.due > record.at
    (ended,) = kept.ended()
    assert ended.outcome is not None and ended.origin.endpoint == "batches.create"
