"""The response cache: what is the same request, whose answer it is, and one upstream call for many at once."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.gateway.cache import Cache, Kept, cacheable, digest
from llmops.gateway.endpoints.base import read_members
from tests.gateway.rig import (
    DONE,
    KEY,
    USD,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_key,
    a_model,
    a_route,
    answers,
    ask,
    chunk,
    completion,
    eventually,
    fails,
    streams,
    usage_chunk,
)

CACHED = a_route(cache_ttl_s=60)


def a_digest(body: dict[str, Any] | str, **changes: str) -> bytes:
    text = body if isinstance(body, str) else json.dumps(body)
    given = {"project": "p", "name": "chat", "revision": "r", "endpoint": "chat.completions"} | changes
    return digest(members=read_members(text.encode()), **given)


def an_answer(body: bytes = b"{}", at: float = 0.0) -> Kept:
    return Kept(body, False, at, "small", 1, "up", "sim", "stop", 5)


# ---------------------------------------------------------------------- what is the same


bodies = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
requests = st.dictionaries(
    st.sampled_from(["messages", "temperature", "seed", "stop", "x"]), bodies, max_size=5
)


def shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        names = list(value)
        chance.shuffle(names)
        return {name: shuffled(value[name], chance) for name in names}
    return [shuffled(one, chance) for one in value] if isinstance(value, list) else value


@given(requests, st.randoms(use_true_random=False), st.sampled_from([None, 2]))
def test_the_order_of_members_and_white_space_do_not_matter(
    body: dict[str, Any], chance: random.Random, indent: int | None
) -> None:
    assert a_digest(body) == a_digest(json.dumps(shuffled(body, chance), indent=indent))


@given(requests, requests)
def test_other_requests_have_other_digests(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (a_digest(one) == a_digest(other)) == (
        json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    )


@pytest.mark.parametrize("what", ["project", "name", "revision", "endpoint"])
def test_nothing_is_shared_over_projects_names_and_revisions(what: str) -> None:
    assert a_digest(ask()) != a_digest(ask(), **{what: "other"})


def test_who_asks_does_not_matter() -> None:
    plain = a_digest(ask())
    assert plain == a_digest(ask(user="u1", metadata={"a": "b"}, safety_identifier="s", prompt_cache_key="k"))
    assert plain != a_digest(ask(stream=True))
    assert plain != a_digest(ask(temperature=0))


@pytest.mark.parametrize(
    ("endpoint", "members", "route", "expected"),
    [
        ("chat.completions", {}, {}, True),
        ("chat.completions", {"tools": []}, {}, True),
        ("chat.completions", {"tools": [{"type": "function"}]}, {}, False),
        ("chat.completions", {"tools": [{"type": "function"}]}, {"cache_tools": True}, True),
        ("chat.completions", {"functions": [{"name": "f"}]}, {}, False),
        ("chat.completions", {"web_search_options": {"a": 1}}, {}, False),
        ("chat.completions", {"store": True}, {}, False),
        ("chat.completions", {"store": None}, {}, True),
        ("responses", {}, {}, False),
        ("responses", {"store": False}, {}, True),
        ("responses", {"store": False, "previous_response_id": "resp_1"}, {}, False),
        ("responses", {"store": False, "conversation": "conv_1"}, {}, False),
        ("responses", {"store": False, "background": True}, {}, False),
        ("embeddings", {}, {}, True),
        ("images.generations", {}, {}, False),
    ],
)
def test_what_may_be_kept(
    endpoint: str, members: dict[str, Any], route: dict[str, Any], expected: bool
) -> None:
    given = read_members(json.dumps(members).encode())
    assert cacheable(endpoint, given, a_route(cache_ttl_s=1, **route)) is expected


def test_the_least_used_answers_make_room() -> None:
    cache = Cache(1_000, lambda: 0.0)
    for name in (b"a", b"b", b"c"):
        cache.put(name, an_answer(b"x" * 300))
    assert cache.fresh(b"a", 10) is not None
    cache.put(b"d", an_answer(b"x" * 300))
    assert [cache.fresh(name, 10) is not None for name in (b"a", b"b", b"c", b"d")] == [
        True,
        False,
        True,
        True,
    ]
    cache.put(b"a", an_answer(b"y" * 400))
    assert (cache.size, len(cache)) == (1_000, 3)
    cache.put(b"e", an_answer(b"x" * 1_001))
    assert (cache.size, len(cache)) == (0, 0)


def test_answers_grow_old_and_are_forgotten() -> None:
    now = 0.0
    cache = Cache(1_000, lambda: now)
    cache.put(b"a", an_answer())
    now = 59.9
    assert cache.fresh(b"a", 60) is not None
    now = 60.0
    assert cache.fresh(b"a", 60) is None
    assert cache.stale(b"a") is not None
    now = 86_401.0
    assert cache.stale(b"a") is None
    cache.tick()
    assert (cache.size, len(cache)) == (0, 0)


# ---------------------------------------------------------------------- on the way of a call


async def test_the_same_request_is_answered_again_for_nothing(rig: Rig) -> None:
    rig.configure(routes=(CACHED,), budgets=(a_budget(limit_nano=USD),))
    first = await rig.chat(model="chat")
    assert (first.headers["x-llmops-cache"], "age" in first.headers) == ("miss", False)
    again = await rig.chat(model="chat", user="somebody else")
    assert (again.status, again.body) == (200, first.body)
    assert (again.headers["x-llmops-cache"], again.headers["x-llmops-model"]) == ("hit", "small")
    assert again.headers["age"] == "0"
    assert "x-llmops-attempts" not in again.headers
    assert len(rig.upstream.asked) == 1
    made, repeated = [one.outcome for one in rig.ended() if one.outcome]
    assert (made.cache, made.saved, made.cost > 0) == ("miss", 0, True)
    assert (repeated.cache, repeated.saved, repeated.cost) == ("hit", made.cost, 0)
    assert (repeated.status, repeated.http, repeated.model, repeated.finish) == ("ok", 200, "small", "stop")
    assert repeated.bytes_out == len(first.body)
    rig.nothing_held()


async def test_a_route_without_a_cache_keeps_nothing(rig: Rig) -> None:
    rig.configure(routes=(a_route(),))
    for _ in range(2):
        assert (await rig.chat(model="chat")).headers["x-llmops-cache"] == "off"
    assert (len(rig.upstream.asked), len(rig.plane.cache)) == (2, 0)
    assert all(one.outcome.cache == "" for one in rig.ended())


async def test_streams_are_kept_apart_from_whole_answers_and_replayed_byte_for_byte(rig: Rig) -> None:
    rig.configure(routes=(CACHED,))
    rig.upstream.does(answers(), streams(chunk("Hel"), chunk("lo", finish="stop"), usage_chunk(), DONE))
    await rig.chat(model="chat")
    first = await rig.chat(model="chat", stream=True)
    again = await rig.chat(model="chat", stream=True)
    assert first.headers["x-llmops-cache"] == "miss"
    assert (again.headers["x-llmops-cache"], again.body) == ("hit", first.body)
    assert again.headers["content-type"].startswith("text/event-stream")
    assert again.body.endswith(DONE)
    assert len(rig.upstream.asked) == 2


async def test_another_project_and_another_revision_ask_anew(rig: Rig) -> None:
    other = "llmops_othertes_" + "o" * 40
    keys = {KEY: a_key(), other: a_key("other", project="billing")}
    rig.configure(routes=(CACHED,), keys=keys)
    await rig.chat(model="chat")
    theirs = await rig.chat(model="chat", how={"key": other})
    assert theirs.headers["x-llmops-cache"] == "miss"
    snapshot = rig.configure(routes=(CACHED,), keys=keys)
    snapshot.digest = "another"
    assert (await rig.chat(model="chat")).headers["x-llmops-cache"] == "miss"
    assert len(rig.upstream.asked) == 3


async def test_a_caller_can_ask_for_a_fresh_answer_or_for_nothing_to_be_kept(rig: Rig) -> None:
    rig.configure(routes=(CACHED,))
    rig.upstream.does(answers("one"), answers("two"), answers("three"))
    await rig.chat(model="chat")
    fresh = await rig.chat(model="chat", how={"headers": {"cache-control": "no-cache"}})
    assert (fresh.headers["x-llmops-cache"], b"two" in fresh.body) == ("miss", True)
    assert b"two" in (await rig.chat(model="chat")).body
    private = await rig.chat(model="chat", text="other", how={"headers": {"cache-control": "no-store"}})
    assert private.headers["x-llmops-cache"] == "bypass"
    assert (await rig.chat(model="chat", text="other")).headers["x-llmops-cache"] == "miss"


async def test_failures_fallbacks_and_filtered_answers_are_not_kept(rig: Rig) -> None:
    rig.configure(
        models=(a_model(), a_model("large")),
        routes=(a_route("chat", "small", fallbacks=("large",), cache_ttl_s=60, attempts=2),),
    )
    rig.upstream.does(fails(400, "invalid_request"), answers())
    assert (await rig.chat(model="chat")).status == 400
    assert len(rig.plane.cache) == 0
    rig.upstream.does(fails(500), answers())
    assert (await rig.chat(model="chat")).headers["x-llmops-fallback"] == "true"
    assert len(rig.plane.cache) == 0
    filtered = [
        {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "content_filter"}
    ]
    rig.upstream.does(answers(choices=filtered))
    await rig.chat(model="chat")
    assert len(rig.plane.cache) == 0
    rig.upstream.does(streams(chunk("Hel"), end=True))
    assert b"stream_interrupted" in (await rig.chat(model="chat", stream=True)).body
    assert len(rig.plane.cache) == 0


async def test_an_answer_larger_than_any_entry_is_passed_on_and_not_kept(rig: Rig) -> None:
    rig.configure(routes=(CACHED,))
    rig.upstream.does(answers("x" * 1_100_000))
    assert len((await rig.chat(model="chat")).body) > 1_100_000
    assert len(rig.plane.cache) == 0


# ---------------------------------------------------------------------- many at once


@pytest.mark.parametrize("stream", [False, True])
async def test_of_many_at_once_one_goes_upstream(rig: Rig, stream: bool) -> None:
    rig.configure(routes=(CACHED,), budgets=(a_budget(limit_nano=USD),))
    release = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await release.wait()
        if stream:
            await reply.events(chunk("Hello", finish="stop"), usage_chunk(), DONE)
        else:
            await reply.json(completion())

    rig.upstream.does(script)
    calls = [rig.start(ask("chat", stream=stream)) for _ in range(50)]
    await eventually(lambda: len(rig.upstream.asked) == 1)
    release.set()
    found = [await one.done() for one in calls]
    assert {(one.status, one.body) for one in found} == {(200, found[0].body)}
    assert sorted(one.headers["x-llmops-cache"] for one in found) == ["joined"] * 49 + ["miss"]
    assert len(rig.upstream.asked) == 1
    outcomes = [one.outcome for one in rig.ended() if one.outcome]
    assert sum(one.cost for one in outcomes) == max(one.saved for one in outcomes)
    assert rig.plane.cache._flights == {}
    rig.nothing_held()


async def test_when_the_one_that_went_hangs_up_the_next_goes(rig: Rig) -> None:
    rig.configure(routes=(CACHED,))
    release = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await release.wait()
        await reply.json(completion())

    rig.upstream.does(script)
    first = rig.start(ask("chat"))
    await eventually(lambda: len(rig.upstream.asked) == 1)
    others = [rig.start(ask("chat")) for _ in range(5)]
    await asyncio.sleep(0.1)
    first.hang_up()
    await eventually(lambda: len(rig.upstream.asked) == 2)
    release.set()
    words = [(await one.done()).headers["x-llmops-cache"] for one in others]
    assert sorted(words) == ["joined"] * 4 + ["miss"]
    assert len(rig.upstream.asked) == 2


async def test_when_the_one_that_went_fails_the_others_go_by_themselves(rig: Rig) -> None:
    rig.configure(routes=(a_route(cache_ttl_s=60, attempts=1),))
    release = asyncio.Event()

    async def slowly_fails(asked: Asked, reply: Reply) -> None:
        await release.wait()
        await fails(400, "no")(asked, reply)

    rig.upstream.does(slowly_fails, answers())
    calls = [rig.start(ask("chat"))]
    await eventually(lambda: len(rig.upstream.asked) == 1)
    calls += [rig.start(ask("chat")) for _ in range(4)]
    await asyncio.sleep(0.05)
    release.set()
    found = [await one.done() for one in calls]
    assert [one.status for one in found] == [400, 200, 200, 200, 200]
    assert {one.headers["x-llmops-cache"] for one in found} == {"miss"}
    assert rig.plane.cache._flights == {}


async def test_who_waits_for_another_and_hangs_up_is_gone(rig: Rig) -> None:
    rig.configure(routes=(CACHED,))
    release = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await release.wait()
        await reply.json(completion())

    rig.upstream.does(script)
    first = rig.start(ask("chat"))
    await eventually(lambda: len(rig.upstream.asked) == 1)
    second = rig.start(ask("chat"))
    await asyncio.sleep(0.1)
    second.hang_up()
    await eventually(lambda: len(rig.plane.calls) == 1)
    release.set()
    assert (await first.done()).status == 200
    assert [one.outcome.status for one in rig.ended() if one.outcome] == ["client_closed", "ok"]
