"""Paths that an operator lets through: forwarded, and yet a project meets nothing but its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llmops.gateway.kept import objects
from llmops.serving.snapshot import PriceRow
from tests.gateway.keeping import MINE, OTHER, THEIRS, bytes_of, configure, get, gives
from tests.gateway.rig import (
    KEY,
    USD,
    Asked,
    Reply,
    Rig,
    Upstream,
    a_budget,
    a_key,
    a_model,
    a_provider,
    eventually,
    usage,
)

STORE = {"id": "vs_Ab1", "object": "vector_store"}
PATTERNS = ("/vector_stores/*", "/vector_stores", "/rerank")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PATIENCE_S", 0.1)
    monkeypatch.setattr(objects, "_LOOK_EVERY_S", 0.02)


@pytest.fixture
async def open_to(rig: Rig, upstream: Upstream) -> AsyncIterator[Rig]:
    allow(rig)
    rig.plane.objects.made("vector_stores", "vs_Ab1", key=MINE, provider="up")
    yield rig


def allow(rig: Rig, **what: Any) -> None:
    configure(rig, providers=(a_provider(base_url=rig.upstream.url, passthrough=PATTERNS),), **what)


async def test_what_is_made_is_the_projects_own(rig: Rig, upstream: Upstream) -> None:
    allow(rig)
    upstream.does(gives(STORE))
    body = b'{ "name": "a" }'
    made = await rig.call(body, path="/v1/vector_stores?x=1", headers={"openai-beta": "assistants=v2"})
    assert (made.status, made.json) == (200, STORE)
    assert (upstream.asked[0].path, upstream.asked[0].body) == ("/v1/vector_stores?x=1", body)
    assert upstream.asked[0].headers["openai-beta"] == "assistants=v2"
    upstream.does(bytes_of(b"anything"))
    assert (await get(rig, "/v1/vector_stores/vs_Ab1/files")).body == b"anything"
    assert rig.ended()[0].origin.endpoint == "passthrough"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "PATCH"])
@pytest.mark.parametrize("path", ["{}", "{}/files", "{}/search", "mine/{}"])
async def test_anothers_id_and_none_are_one_404(
    open_to: Rig, upstream: Upstream, method: str, path: str
) -> None:
    answers = [
        await open_to.call(b"{}", method=method, path=f"/v1/vector_stores/{path.format(name)}", key=OTHER)
        for name in ("vs_Ab1", "vs_Xy9")
    ]
    assert [one.status for one in answers] == [404, 404]
    assert answers[0].body == answers[1].body.replace(b"vs_Xy9", b"vs_Ab1")
    assert not upstream.asked


async def test_an_id_that_looks_like_a_word_is_protected_where_it_is_known(
    open_to: Rig, upstream: Upstream
) -> None:
    from tests.gateway.test_objects import FakeShelf, a_row

    shelf = FakeShelf()
    shelf.rows = [a_row("vs_word", project=MINE.project_id)]
    open_to.plane.objects.shelf = shelf
    assert (await get(open_to, "/v1/vector_stores/vs_word", key=OTHER)).status == 404
    assert not upstream.asked


async def test_a_body_must_not_name_anothers_object(open_to: Rig, upstream: Upstream) -> None:
    from tests.gateway.test_objects import FakeShelf, a_row

    shelf = FakeShelf()
    shelf.rows = [
        a_row("file-theirs1", project=THEIRS.project_id),
        a_row("file-mine1", project=MINE.project_id),
    ]
    open_to.plane.objects.shelf = shelf
    upstream.does(gives({"id": "x"}))
    for name, status in (("file-theirs1", 404), ("file-mine1", 200), ("file-unknown1", 200)):
        answer = await open_to.call({"a": [{"b": name}]}, path="/v1/vector_stores/vs_Ab1/files")
        assert answer.status == status
    assert len(upstream.asked) == 2


async def test_anothers_object_is_protected_before_the_database_knows_it(
    open_to: Rig, upstream: Upstream
) -> None:
    open_to.plane.objects.made("file", "file-new1", key=THEIRS, provider="up")
    answer = await open_to.call({"file_id": "file-new1"}, path="/v1/vector_stores/vs_Ab1/files")
    assert answer.status == 404
    assert not upstream.asked


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "x"])
async def test_a_body_that_calls_itself_something_else_is_looked_at_all_the_same(
    open_to: Rig, upstream: Upstream, kind: str
) -> None:
    open_to.plane.objects.made("file", "file-new1", key=THEIRS, provider="up")
    path, headers = "/v1/vector_stores/vs_Ab1/files", {"content-type": kind}
    assert (await open_to.call({"file_id": "file-new1"}, path=path, headers=headers)).status == 404
    assert (await open_to.call({"model": "another"}, path=path, headers=headers)).status == 400
    assert (await open_to.call(b"a=b", path=path, headers=headers)).status == 400
    assert not upstream.asked


async def test_a_list_shows_what_is_the_projects_own(open_to: Rig, upstream: Upstream) -> None:
    open_to.plane.objects.made("vector_stores", "vs_Cd2", key=THEIRS, provider="up")
    page = {
        "object": "list", "data": [{"id": "vs_Cd2"}, STORE, {"id": "vs_Ef3"}], "first_id": "vs_Cd2", "last_id": "vs_Ef3",
        "has_more": False,
    }  # fmt: skip
    upstream.does(gives(page))
    answer = await get(open_to, "/v1/vector_stores")
    assert answer.json == page | {"data": [STORE], "first_id": "vs_Ab1", "last_id": "vs_Ab1"}


async def test_a_deleted_object_is_gone_and_a_part_of_it_is_not(open_to: Rig, upstream: Upstream) -> None:
    open_to.plane.objects.made("file", "file-1", key=MINE, provider="up")
    upstream.does(gives({"deleted": True}))
    assert (await get(open_to, "/v1/vector_stores/vs_Ab1/files/file-1", method="DELETE")).status == 200
    assert (await get(open_to, "/v1/files/file-1")).status == 200
    assert (await get(open_to, "/v1/vector_stores/vs_Ab1", method="DELETE")).status == 200
    assert (await get(open_to, "/v1/vector_stores/vs_Ab1")).status == 404


async def test_only_allowed_paths_go_through(open_to: Rig, upstream: Upstream) -> None:
    for path in (
        "/v1/assistants",
        "/v1/vector_stores//x",
        "/v1/vector_stores/..",
        "/v1/rerank/x",
        "/v1/vector_stores/a b",
    ):
        assert (await get(open_to, path)).status == 404
    configure(open_to)
    assert (await get(open_to, "/v1/vector_stores")).status == 404
    allow(open_to, keys={KEY: a_key(allowed_routes=frozenset(), allowed_models=frozenset())})
    assert (await get(open_to, "/v1/vector_stores")).status == 404
    assert not upstream.asked


async def test_nothing_of_it_runs_under_a_hard_budget(open_to: Rig, upstream: Upstream) -> None:
    allow(open_to, budgets=[a_budget("strict")])
    for method in ("GET", "POST"):
        refused = await open_to.call(b"{}", method=method, path="/v1/vector_stores")
        assert (refused.status, refused.error["code"]) == (422, "passthrough_under_hard_budget")
    assert not upstream.asked


async def test_usage_of_a_known_model_is_priced(open_to: Rig, upstream: Upstream) -> None:
    budget = a_budget("loose", hard=False)
    prices = (PriceRow("input", 0, USD), PriceRow("output", 0, 10 * USD))
    allow(open_to, budgets=[budget], models=[a_model("small", prices=prices)])
    upstream.does(gives({"model": "sim-small", "usage": usage(10, 5)}))
    answer = await open_to.call({"model": "sim-small"}, path="/v1/rerank")
    assert answer.status == 200
    (ended,) = open_to.ended()
    assert (ended.cost, ended.soft) == (10 * 1_000 + 5 * 10_000, [budget.id])
    assert ended.outcome is not None
    assert (ended.outcome.model, ended.outcome.tokens.input) == ("small", 10)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "small"}, 400),
        ({"model": "sim-other"}, 400),
        ({"model": 3}, 400),
        ({"model": "sim-small", "stream": True}, 422),
    ],
)
async def test_a_model_is_one_that_the_key_may_call(
    open_to: Rig, upstream: Upstream, body: dict[str, Any], status: int
) -> None:
    assert (await open_to.call(body, path="/v1/rerank")).status == status
    assert not upstream.asked


async def test_what_a_client_left_while_it_was_made_is_its_own_and_on_the_bill(
    rig: Rig, upstream: Upstream
) -> None:
    allow(rig)
    let_go = asyncio.Event()

    async def slowly(asked: Asked, reply: Reply) -> None:
        await let_go.wait()
        await gives(STORE | {"model": "sim-small", "usage": usage(100, 5)})(asked, reply)

    upstream.does(slowly)
    exchange = rig.start({"model": "sim-small"}, path="/v1/vector_stores")
    await eventually(lambda: bool(upstream.asked))
    exchange.hang_up()
    await eventually(lambda: exchange.left() == 0)
    let_go.set()
    await exchange.done()
    outcome = rig.outcome()
    assert outcome.cost == 100 * 1_000 + 5 * 10_000
    upstream.does(bytes_of(b"anything"))
    assert (await get(rig, "/v1/vector_stores/vs_Ab1/files")).body == b"anything"
