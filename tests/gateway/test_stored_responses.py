"""Responses that a provider keeps: read, told again, cancelled, deleted, by the project whose they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llmops.gateway.kept.owners import RESPONSE
from llmops.serving.snapshot import KeyEntry
from llmops.usage.records import Gone
from tests.gateway.responding import PATH, a_response, a_stream, ask, created, delta, ended, event, used
from tests.gateway.rig import (
    KEY,
    SECRET,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_credential,
    a_key,
    eventually,
    streams,
)

IN, OUT = 1_000, 10_000


@pytest.fixture
async def key(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KeyEntry]:
    monkeypatch.setattr("llmops.gateway.kept.objects.PATIENCE_S", 0.0)
    made = a_key()
    credential = a_credential()
    rig.configure(keys={KEY: made}, credentials={"up": (credential,)}, budgets=[a_budget()])
    rig.plane.objects.made(
        RESPONSE, "resp_1", key=made, provider="up", credential=credential.id, model="chat"
    )
    yield made


def says(content: Any, status: int = 200) -> Any:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(content, status)

    return script


@pytest.mark.parametrize(
    ("method", "path", "query", "name"),
    [
        ("GET", "/resp_1", "?include=a&include=b", "responses.retrieve"),
        ("DELETE", "/resp_1", "", "responses.delete"),
        ("POST", "/resp_1/cancel", "", "responses.cancel"),
        ("GET", "/resp_1/input_items", "?limit=2&order=asc&after=x", "responses.input_items"),
    ],
)
async def test_it_goes_to_whoever_keeps_the_response(
    rig: Rig, key: KeyEntry, method: str, path: str, query: str, name: str
) -> None:
    rig.upstream.does(says({"id": "resp_1", "odd": [1.0, None]}))
    answer = await rig.call(b"", path=PATH + path + query, method=method)
    assert (answer.status, answer.json) == (200, {"id": "resp_1", "odd": [1.0, None]})
    [asked] = rig.upstream.asked
    assert (asked.method, asked.path) == (method, PATH + path + query)
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    [ended_] = rig.ended()
    assert (ended_.origin.endpoint, ended_.cost) == (name, 0)
    # No model worked: what made the response may have been the name of a route.
    assert (ended_.outcome.model, ended_.outcome.provider) == ("", "up")
    gone = [one for one in rig.records() if isinstance(one, Gone)]
    assert len(gone) == (method == "DELETE")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/resp_2"),
        ("GET", "/resp_2?stream=true"),
        ("DELETE", "/resp_2"),
        ("POST", "/resp_2/cancel"),
        ("GET", "/resp_2/input_items"),
        ("GET", "/compact"),
    ],
)
async def test_another_projects_response_is_not_there(
    rig: Rig, key: KeyEntry, method: str, path: str
) -> None:
    rig.plane.objects.made(RESPONSE, "resp_2", key=a_key("stranger"), provider="up")
    answer = await rig.call(b"", path=PATH + path, method=method)
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert rig.upstream.asked == []


async def test_a_response_is_told_again_event_by_event(rig: Rig, key: KeyEntry) -> None:
    rig.upstream.does(streams(*a_stream("a", "b")))
    answer = await rig.call(b"", path=PATH + "/resp_1?stream=true&starting_after=3", method="GET")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.body == b"".join(a_stream("a", "b"))
    assert rig.upstream.asked[0].path == PATH + "/resp_1?stream=true&starting_after=3"
    assert (rig.outcome().status, rig.outcome().bytes_out) == ("ok", len(answer.body))


@pytest.mark.parametrize(
    ("pieces", "cut"),
    [
        ([created(), delta("a", 1)], False),
        ([created(), delta("a", 1)], True),
        ([created(), delta("a", 1), delta("b", 2)[:-9]], False),
        ([created(), delta("a", 1), event("error", 2, message=f"bad {SECRET}")], False),
    ],
)
async def test_a_telling_that_breaks_off_says_so(
    rig: Rig, key: KeyEntry, pieces: list[bytes], cut: bool
) -> None:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(*pieces, end=not cut)
        if cut:
            reply.cut()

    rig.upstream.does(script)
    answer = await rig.call(b"", path=PATH + "/resp_1?stream=true", method="GET")
    assert answer.body.startswith(created() + delta("a", 1) + b"event: error\ndata: ")
    said = json.loads(answer.body.rpartition(b"data: ")[2])
    assert (said["code"], said["sequence_number"]) == ("stream_interrupted", 2)
    assert SECRET.encode() not in answer.body
    outcome = rig.outcome()
    assert (outcome.status, outcome.code) == ("interrupted", "stream_interrupted")


async def test_a_telling_that_fails_at_once_is_tried_again(rig: Rig, key: KeyEntry) -> None:
    rig.upstream.does(says({"error": {"message": "no"}}, 500), streams(), streams(*a_stream("a")))
    answer = await rig.call(b"", path=PATH + "/resp_1?stream=true", method="GET")
    assert answer.body == b"".join(a_stream("a"))
    assert len(rig.upstream.asked) == 3


async def test_whoever_asks_how_a_background_response_is_settles_it(
    rig: Rig, key: KeyEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmops.gateway.kept.background.FIRST_S", 60.0)
    for name, path, method, query in (
        ("resp_a", "", "GET", ""),
        ("resp_b", "/cancel", "POST", ""),
        ("resp_c", "", "GET", "?stream=true"),
    ):
        status = "cancelled" if path else "completed"
        before = len(rig.ended())
        rig.upstream.does(says(a_response(id=name, status="queued", output=[], usage=None)))
        answer = await rig.call(ask(background=True), path=PATH)
        assert (answer.status, len(rig.ended())) == (200, before)
        if query:
            rig.upstream.does(streams(created(id=name), ended(id=name, usage=used(7, 3))))
        else:
            rig.upstream.does(says(a_response(id=name, status=status, usage=used(7, 3))))
        answer = await rig.call(b"", path=f"{PATH}/{name}{path}{query}", method=method)
        assert answer.status == 200
        await eventually(lambda before=before: len(rig.ended()) == before + 2)  # type: ignore[misc]
    costs = [one.cost for one in rig.ended() if one.origin.endpoint == "responses"]
    assert costs == [7 * IN + 3 * OUT] * 3
    assert len(rig.plane.background) == 0


async def test_a_background_response_that_its_client_deletes_costs_its_hold(
    rig: Rig, key: KeyEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmops.gateway.kept.background.FIRST_S", 60.0)
    rig.upstream.does(says(a_response(id="resp_d", status="queued", output=[], usage=None)))
    await rig.call(ask(background=True), path=PATH)
    deleted = {"id": "resp_d", "object": "response", "deleted": True}
    rig.upstream.does(says(deleted), says({"error": {"message": "gone"}}, 404))
    assert (await rig.call(b"", path=PATH + "/resp_d", method="DELETE")).json == deleted
    await eventually(lambda: len(rig.ended()) == 2)
    [outcome] = [one.outcome for one in rig.ended() if one.outcome and one.outcome.code]
    assert outcome.cost == rig.held()[0].worst_cost
    await asyncio.sleep(0)
