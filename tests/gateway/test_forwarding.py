"""What a provider keeps, reached through the data plane: only by its owner, as it came, and honest about every failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmops.gateway.forwarding import errands
from llmops.serving.snapshot import ProjectEntry
from llmops.usage.records import Gone, Kept
from tests.gateway.keeping import (
    A_FILE,
    FORM,
    FORM_TYPE,
    MINE,
    OTHER,
    THEIRS,
    bytes_of,
    configure,
    get,
    gives,
)
from tests.gateway.rig import (
    KEY,
    SECRET,
    Asked,
    Reply,
    Rig,
    Script,
    Upstream,
    a_credential,
    a_key,
    a_model,
    a_provider,
    a_route,
    eventually,
    fails,
    hangs,
)
from tests.gateway.test_objects import FakeShelf

pytestmark = pytest.mark.usefixtures("soon")


# ---------------------------------------------------------------------- as it came


async def test_a_file_goes_up_as_it_came_and_is_the_projects_own(rig: Rig, upstream: Upstream) -> None:
    configure(rig)
    upstream.does(gives(A_FILE))
    halves = [FORM[:20], FORM[20:]]
    answer = await rig.call(
        halves,
        path="/v1/files?x=1&y=%20",
        headers=FORM_TYPE
        | {
            "openai-beta": "a=b",
            "cookie": "s=1",
            "x-llmops-feature": "f",
            "openai-organization": "o",
            "te": "x",
        },
    )
    assert (answer.status, answer.json) == (200, A_FILE)
    (asked,) = upstream.asked
    assert asked.path == "/v1/files?x=1&y=%20"
    assert asked.body == FORM
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert asked.headers["openai-beta"] == "a=b"
    assert asked.headers["content-type"] == FORM_TYPE["content-type"]
    assert not {"cookie", "x-llmops-feature", "openai-organization", "te"} & set(asked.headers)
    (made,) = [one for one in rig.records() if isinstance(one, Kept)]
    assert (made.object, made.kind, made.project, made.provider) == ("file-1", "file", MINE.project_id, "up")
    outcome = rig.outcome()
    assert (outcome.status, outcome.http, outcome.cost, outcome.provider) == ("ok", 200, 0, "up")
    (ended,) = rig.ended()
    assert (ended.origin.endpoint, ended.origin.feature, ended.origin.bytes_in) == (
        "files.create",
        "f",
        len(FORM),
    )
    upstream.does(gives(A_FILE))
    assert (await get(rig, "/v1/files/file-1")).json == A_FILE


async def test_the_length_of_an_upload_is_told_when_it_is_known(rig: Rig, upstream: Upstream) -> None:
    configure(rig)
    upstream.does(gives(A_FILE))
    await rig.call(
        [FORM[:9], FORM[9:]], path="/v1/files", headers=FORM_TYPE | {"content-length": str(len(FORM))}
    )
    assert upstream.asked[0].headers["content-length"] == str(len(FORM))
    assert "transfer-encoding" not in upstream.asked[0].headers


async def test_content_comes_down_byte_true_with_its_headers(kept: Rig, upstream: Upstream) -> None:
    pieces = [b"\x00\xff" * 1000, b"<html>", b"end"]
    upstream.does(bytes_of(*pieces, kind="text/html"))
    answer = await get(kept, "/v1/files/file-1/content", headers={"range": "bytes=0-"})
    assert answer.body == b"".join(pieces)
    assert answer.complete
    assert answer.headers["content-type"] == "text/html"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["content-disposition"] == 'attachment; filename="a.jsonl"'
    assert not {"set-cookie", "x-other"} & set(answer.headers)
    assert upstream.asked[0].path == "/v1/files/file-1/content"
    assert upstream.asked[0].headers["range"] == "bytes=0-"
    outcome = kept.outcome()
    assert (outcome.status, outcome.bytes_out) == ("ok", len(answer.body))


async def test_an_empty_file_comes_down_too(kept: Rig, upstream: Upstream) -> None:
    upstream.does(bytes_of(b""))
    answer = await get(kept, "/v1/files/file-1/content")
    assert (answer.status, answer.body, answer.complete) == (200, b"", True)


async def test_a_stored_chat_is_changed_with_the_callers_own_bytes(kept: Rig, upstream: Upstream) -> None:
    upstream.does(gives({"id": "chatcmpl-1"}))
    body = b'{ "metadata" : {"a":"b"} }'
    answer = await kept.call(body, path="/v1/chat/completions/chatcmpl-1")
    assert answer.status == 200
    assert (upstream.asked[0].path, upstream.asked[0].body) == ("/v1/chat/completions/chatcmpl-1", body)
    assert kept.ended()[-1].origin.endpoint == "chat.completions.update"


async def test_uploads_in_parts_become_a_file(kept: Rig, upstream: Upstream) -> None:
    upstream.does(
        gives({"id": "upload_2", "status": "pending"}),
        gives({"id": "part_1"}),
        gives({"id": "upload_2", "status": "completed", "file": {"id": "file-9"}}),
        gives(A_FILE | {"id": "file-9"}),
    )
    assert (await kept.call({"bytes": 3}, path="/v1/uploads")).status == 200
    assert (await kept.call([FORM], path="/v1/uploads/upload_2/parts", headers=FORM_TYPE)).status == 200
    assert (await kept.call({"part_ids": []}, path="/v1/uploads/upload_2/complete")).status == 200
    assert (await get(kept, "/v1/files/file-9")).status == 200
    assert [one.path for one in upstream.asked][1:3] == [
        "/v1/uploads/upload_2/parts",
        "/v1/uploads/upload_2/complete",
    ]


# ---------------------------------------------------------------------- whose it is

PATHS = [
    ("GET", "/v1/files/{}", "file-1"),
    ("DELETE", "/v1/files/{}", "file-1"),
    ("GET", "/v1/files/{}/content", "file-1"),
    ("GET", "/v1/files?after={}", "file-1"),
    ("GET", "/v1/files?before={}", "file-1"),
    ("GET", "/v1/chat/completions/{}", "chatcmpl-1"),
    ("POST", "/v1/chat/completions/{}", "chatcmpl-1"),
    ("DELETE", "/v1/chat/completions/{}", "chatcmpl-1"),
    ("GET", "/v1/chat/completions/{}/messages", "chatcmpl-1"),
    ("GET", "/v1/chat/completions?after={}", "chatcmpl-1"),
    ("POST", "/v1/uploads/{}/parts", "upload_1"),
    ("POST", "/v1/uploads/{}/complete", "upload_1"),
    ("POST", "/v1/uploads/{}/cancel", "upload_1"),
]


@pytest.mark.parametrize(("method", "path", "object_id"), PATHS)
async def test_anothers_object_and_none_at_all_are_one_404(
    kept: Rig, upstream: Upstream, method: str, path: str, object_id: str
) -> None:
    answers = [
        await kept.call(b"{}", method=method, path=path.format(name), key=OTHER)
        for name in (object_id, "nothing")
    ]
    assert [one.status for one in answers] == [404, 404]
    said = [
        one.body.replace(name.encode(), b"ID")
        for one, name in zip(answers, (object_id, "nothing"), strict=True)
    ]
    assert said[0] == said[1]
    assert answers[0].error["code"] == "not_found"
    assert not upstream.asked


@pytest.mark.parametrize("name", ["..", ".", "a b", "a%2Fb", "a;b", "a\\b", "é", "x" * 201])
async def test_an_id_that_is_none_never_reaches_a_provider(kept: Rig, upstream: Upstream, name: str) -> None:
    answer = await get(kept, f"/v1/files/{name}/content")
    assert answer.status == 404
    assert not upstream.asked


async def test_a_deleted_object_is_gone(kept: Rig, upstream: Upstream) -> None:
    upstream.does(gives({"id": "file-1", "object": "file", "deleted": True}))
    assert (await get(kept, "/v1/files/file-1", method="DELETE")).json["deleted"] is True
    assert (await get(kept, "/v1/files/file-1")).status == 404
    assert [one.object for one in kept.records() if isinstance(one, Gone)] == ["file-1"]
    assert len(upstream.asked) == 1


async def test_a_deletion_that_failed_leaves_it_where_it_is(kept: Rig, upstream: Upstream) -> None:
    upstream.does(fails(404, message="No such File object: file-1"))
    refused = await get(kept, "/v1/files/file-1", method="DELETE")
    assert (refused.status, refused.error["message"]) == (404, "No such File object: file-1")
    upstream.does(gives(A_FILE))
    assert (await get(kept, "/v1/files/file-1")).status == 200


async def test_without_the_database_foreign_ids_are_a_503(kept: Rig) -> None:
    shelf = FakeShelf()
    shelf.away = True
    kept.plane.objects.shelf = shelf
    answer = await get(kept, "/v1/files/file-2")
    assert answer.status == 503
    assert "database" in answer.error["message"]
    assert answer.headers["retry-after"]


async def test_it_is_asked_with_the_credential_that_made_it(rig: Rig, upstream: Upstream) -> None:
    first, second = a_credential(secret="s-1", name="a"), a_credential(secret="s-2", name="b")
    configure(rig, credentials={"up": (first, second)})
    rig.plane.objects.made("file", "file-1", key=MINE, provider="up", credential=second.id)
    upstream.does(gives(A_FILE))
    await get(rig, "/v1/files/file-1")
    assert upstream.asked[0].headers["authorization"] == "Bearer s-2"
    # ... and with another one when that one is retired.
    configure(rig, credentials={"up": (first,)})
    await get(rig, "/v1/files/file-1")
    assert upstream.asked[1].headers["authorization"] == "Bearer s-1"


async def test_what_a_provider_keeps_is_out_of_reach_while_it_is_paused_or_removed(kept: Rig) -> None:
    configure(kept, paused_providers={"up": "maintenance"})
    paused = await get(kept, "/v1/files/file-1")
    assert (paused.status, paused.error["code"]) == (503, "provider_paused")
    configure(kept, providers=(a_provider("new"),), models=[a_model("small", "new")])
    missing = await get(kept, "/v1/files/file-1")
    assert (missing.status, missing.error["code"]) == (503, "provider_missing")


# ---------------------------------------------------------------------- who takes what names no model


async def test_a_new_file_goes_where_the_caller_or_the_project_says(
    rig: Rig, upstream: Upstream, tmp_path: Path
) -> None:
    def where(**live: Any) -> None:
        configure(
            rig,
            providers=(a_provider("up", upstream.url), a_provider("second", upstream.url)),
            models=[a_model("small"), a_model("large", "second")],
            routes=[a_route("chat", "large")],
            credentials={"up": (a_credential(),), "second": (a_credential("second", "s-2"),)},
            **live,
        )

    async def goes(**headers: str) -> str:
        answer = await rig.call([FORM], path="/v1/files", headers=FORM_TYPE | headers)
        return (
            answer.error["code"] if answer.status != 200 else upstream.asked[-1].headers["authorization"][7:]
        )

    upstream.does(gives(A_FILE))
    where()
    assert await goes() == "route_required"
    assert await goes(**{"x-llmops-route": "chat"}) == "s-2"
    assert await goes(**{"x-llmops-route": "small"}) == SECRET
    assert await goes(**{"x-llmops-route": "nothing"}) == "model_not_found"
    where(projects={MINE.project_id: ProjectEntry(MINE.project_id, "support", default_route="chat")})
    assert await goes() == "s-2"
    assert await goes(**{"x-llmops-route": "small"}) == SECRET
    only = a_key(allowed_routes=frozenset(), allowed_models=frozenset({"small"}))
    where(keys={KEY: only})
    assert await goes() == SECRET
    assert await goes(**{"x-llmops-route": "chat"}) == "permission_denied"


# ---------------------------------------------------------------------- lists


def pages(ids: list[str], most: int = 3) -> Script:
    """A provider's list, ``most`` at a time whatever is asked."""

    async def script(asked: Asked, reply: Reply) -> None:
        query = dict(part.split("=", 1) for part in asked.path.partition("?")[2].split("&") if part)
        start = ids.index(query["after"]) + 1 if query.get("after") else 0
        data = ids[start : start + most]
        await reply.json(
            {
                "object": "list",
                "data": [{"id": one, "object": "file"} for one in data],
                "first_id": data[0] if data else None,
                "last_id": data[-1] if data else None,
                "has_more": start + most < len(ids),
            }
        )

    return script


@pytest.mark.parametrize(
    ("limit", "after", "expected", "more"),
    [
        (2, "", ["f-02", "f-05"], True),
        (2, "f-05", ["f-06", "f-10"], False),
        (4, "", ["f-02", "f-05", "f-06", "f-10"], False),
        (3, "", ["f-02", "f-05", "f-06"], True),
        (1, "f-10", [], False),
        (100, "", ["f-02", "f-05", "f-06", "f-10"], False),
    ],
)
async def test_a_list_shows_the_projects_own_and_says_truly_whether_more_follows(
    kept: Rig, upstream: Upstream, limit: int, after: str, expected: list[str], more: bool
) -> None:
    ids = [f"f-{number:02}" for number in range(12)]
    for name in ("f-02", "f-05", "f-06", "f-10"):
        kept.plane.objects.made("file", name, key=MINE, provider="up")
    kept.plane.objects.made("file", "f-03", key=THEIRS, provider="up")
    upstream.does(pages(ids))
    answer = await get(kept, f"/v1/files?purpose=batch&limit={limit}" + (f"&after={after}" if after else ""))
    assert answer.status == 200, answer.body
    assert [one["id"] for one in answer.json["data"]] == expected
    assert answer.json["has_more"] is more
    assert answer.json["first_id"] == (expected[0] if expected else None)
    assert answer.json["last_id"] == (expected[-1] if expected else None)
    assert answer.json["object"] == "list"
    assert all("purpose=batch" in one.path for one in upstream.asked)


async def test_a_list_reads_so_many_pages_and_no_more(
    kept: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmops.gateway.kept.listing.MAX_PAGES", 3)
    upstream.does(pages([f"f-{number:02}" for number in range(30)]))
    answer = await get(kept, "/v1/files?limit=2")
    assert (answer.json["data"], answer.json["has_more"]) == ([], True)
    assert len(upstream.asked) == 3


async def test_a_provider_that_pages_in_circles_is_left(kept: Rig, upstream: Upstream) -> None:
    upstream.does(gives({"object": "list", "data": [{"id": "f-1"}], "has_more": True}))
    answer = await get(kept, "/v1/files?limit=2")
    assert (answer.status, answer.json["data"]) == (200, [])
    assert len(upstream.asked) == 2


@pytest.mark.parametrize("limit", ["0", "-1", "x", "100000000", "1.5", ""])
async def test_a_limit_that_is_none_is_the_providers_to_refuse(
    kept: Rig, upstream: Upstream, limit: str
) -> None:
    upstream.does(fails(400, message="limit is wrong"))
    answer = await get(kept, f"/v1/files?limit={limit}")
    assert (answer.status, answer.error["message"]) == (400, "limit is wrong")


# ---------------------------------------------------------------------- keys and their limits


async def test_a_key_is_asked_for_and_its_limits_hold(kept: Rig, upstream: Upstream) -> None:
    assert (await get(kept, "/v1/files/file-1", key=None)).status == 401
    assert (await get(kept, "/v1/files", key="nobody")).status == 401
    upstream.does(gives(A_FILE))
    configure(kept, keys={KEY: a_key(project_id=MINE.project_id, rpm=1)})
    assert (await get(kept, "/v1/files/file-1")).status == 200
    refused = await get(kept, "/v1/files/file-1")
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert [one.outcome.status for one in kept.ended() if one.outcome] == ["ok", "refused"]


async def test_a_server_that_stops_says_so(kept: Rig, upstream: Upstream) -> None:
    upstream.does(hangs)
    exchange = kept.start(b"", method="GET", path="/v1/files/file-1")
    await eventually(lambda: bool(upstream.asked))
    for call in list(kept.plane.calls):
        call.watch.fire("shutdown")
    answer = await exchange.done()
    assert answer.status == 503


async def test_an_answer_never_comes_late(
    kept: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "PATIENCE_S", 0.2)
    upstream.does(hangs)
    answer = await get(kept, "/v1/files/file-1")
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")


async def test_a_call_without_a_model_goes_the_projects_default_route(rig: Rig, upstream: Upstream) -> None:
    project = ProjectEntry(MINE.project_id, "support", default_route="chat")
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    for sent in (body, body | {"model": None}):
        configure(rig, routes=[a_route("chat")])
        refused = await rig.call(sent)
        assert (refused.status, refused.error["param"]) == (400, "model")
        assert "default route" in refused.error["message"]
        configure(rig, routes=[a_route("chat")], projects={MINE.project_id: project})
        answer = await rig.call(sent)
        assert answer.status == 200, answer.body
        assert upstream.asked[-1].json["model"] == "sim-small"
        assert rig.ended()[-1].origin.route == "chat"
    assert (await rig.call(body | {"model": ""})).status == 400
    configure(
        rig,
        keys={KEY: a_key(project_id=MINE.project_id, allowed_routes=frozenset())},
        routes=[a_route("chat")],
        projects={MINE.project_id: project},
    )
    assert (await rig.call(body)).status == 403
