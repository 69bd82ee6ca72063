"""The console calls for a service: with its own key, under what bounds both, on the record of the service."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llmops.core.ids import uuid7
from llmops.gateway import on_behalf
from llmops.serving.snapshot import HashEntry
from tests.gateway.rig import KEY, Answer, Rig, a_budget, a_key, a_model, a_route, ask
from tests.gateway.test_at_the_limit import CENT, DEAR, tight

SERVICE, OTHER = "llmops_service1_" + "s" * 40, "llmops_stranger_" + "o" * 40
PROJECT = str(uuid7())


def keys(
    rig: Rig, *, held: dict[str, Any] | None = None, service: dict[str, Any] | None = None, **what: Any
) -> Any:
    """The console's key, the service's (which has no scope for calls), and one of another project."""
    mine = a_key("runs", held=True, project_id=PROJECT, **(held or {}))
    theirs = a_key("desk", project_id=PROJECT, **{"scopes": frozenset({"runs"}), **(service or {})})
    stranger = a_key("stranger", project="search")
    rig.configure(keys={KEY: mine, SERVICE: theirs, OTHER: stranger}, routes=[a_route()], **what)
    return mine, theirs, stranger


async def asks(rig: Rig, key: Any, model: str = "chat") -> Answer:
    return await rig.call(ask(model), headers={"x-llmops-for-key": key.id})


async def test_it_is_recorded_as_the_services_and_charged_to_the_budgets_of_both(rig: Rig) -> None:
    mine, theirs, _ = keys(rig)
    budgets = [
        a_budget(f"of-{number}", scope_kind="key", scope_value=key_id)
        for number, key_id in enumerate((theirs.id, mine.id, str(uuid7())))
    ]
    rig.configure(keys={KEY: mine, SERVICE: theirs}, routes=[a_route()], budgets=budgets)
    assert (await asks(rig, theirs)).status == 200
    (held,) = rig.held()
    assert held.origin.key == theirs.id and len(held.charges) == 2
    assert (await rig.call(ask("chat"))).status == 200
    assert rig.held()[-1].origin.key == mine.id and len(rig.held()[-1].charges) == 1
    rig.nothing_held()


async def test_a_budget_of_the_service_that_is_used_up_stops_what_is_done_for_it(rig: Rig) -> None:
    _, theirs, _ = keys(rig)
    rig.configure(
        keys={KEY: a_key("runs", held=True, project_id=PROJECT), SERVICE: theirs},
        routes=[a_route()],
        budgets=[a_budget("tiny", limit_nano=1, scope_kind="key", scope_value=theirs.id)],
    )
    refused = await asks(rig, theirs)
    assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
    assert "'tiny'" in refused.error["message"]
    assert (await rig.call(ask("chat"))).status == 200


@pytest.mark.parametrize("whose", ["held", "service"])
async def test_the_limits_of_both_hold(rig: Rig, whose: str) -> None:
    _, theirs, _ = keys(rig, **{whose: {"rpm": 1}})
    assert (await asks(rig, theirs)).status == 200
    refused = await asks(rig, theirs)
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert ("'runs'" if whose == "held" else "'desk'") in refused.error["message"]


@pytest.mark.parametrize("whose", ["held", "service"])
async def test_it_goes_where_both_may(rig: Rig, whose: str) -> None:
    _, theirs, _ = keys(rig, **{whose: {"allowed_routes": frozenset({"other"})}})
    refused = await asks(rig, theirs)
    assert (refused.status, refused.error["param"]) == (403, "model")


async def test_only_the_console_names_another_and_only_one_of_its_project(rig: Rig) -> None:
    mine, theirs, stranger = keys(rig)
    for unknown in (stranger.id, str(uuid7()), "", "x" * 5_000):
        refused = await rig.call(ask("chat"), headers={"x-llmops-for-key": unknown})
        assert (refused.status, refused.error["code"]) == (401, "invalid_api_key"), unknown
    # A key that anybody may hold cannot lend itself the name of another: the header is nothing to it.
    rig.configure(keys={KEY: a_key("plain", project_id=PROJECT), SERVICE: theirs}, routes=[a_route()])
    assert (await asks(rig, theirs)).status == 200
    assert rig.held()[-1].origin.key not in (theirs.id, mine.id)


@pytest.mark.parametrize("how", ["expired", "paused", "gone"])
async def test_what_ends_the_services_key_ends_what_is_done_for_it(rig: Rig, how: str) -> None:
    mine, theirs, _ = keys(rig, service={"expires": 1.0} if how == "expired" else {})
    if how == "gone":
        rig.configure(keys={KEY: mine}, routes=[a_route()])
    if how == "paused":
        paused = HashEntry(msgspec.structs.replace(theirs, paused="it runs wild"))
        rig.configure(keys={KEY: mine}, routes=[a_route()], paused_keys={"h": paused})
    refused = await asks(rig, theirs)
    expected = (403, "key_paused") if how == "paused" else (401, "invalid_api_key")
    assert (refused.status, refused.error["code"]) == expected
    assert how != "paused" or "it runs wild" in refused.error["message"]
    assert rig.held() == []


def both(rig: Rig, **what: Any) -> tuple[Any, Any]:
    """The console's key, and the service's, which calls by itself as well; a budget of each key."""
    mine = a_key("runs", held=True, project_id=PROJECT)
    theirs = a_key("desk", project_id=PROJECT)
    budgets = [
        a_budget(name, scope_kind="key", scope_value=one.id)
        for name, one in (("mine", mine), ("theirs", theirs))
    ]
    what["budgets"] = [*budgets, *what.get("budgets", ())]
    rig.configure(keys={KEY: mine, SERVICE: theirs}, **({"routes": [a_route()]} | what))
    return mine, theirs


@pytest.mark.parametrize("first", ["the service", "the console"])
async def test_the_cheaper_route_is_bounded_by_both_whoever_went_it_first(rig: Rig, first: str) -> None:
    _, theirs = both(
        rig,
        models=(a_model(), DEAR),
        routes=(a_route("chat", "large", clamp_output=False), a_route("cheap", "small")),
        budgets=[tight(limit=5 * CENT)],
    )

    async def by_itself() -> int:
        answer = await rig.call(ask("chat"), key=SERVICE)
        assert answer.headers["x-llmops-budget-route"] == "cheap"
        return len(rig.held()[-1].charges)

    async def on_its_behalf() -> int:
        answer = await asks(rig, theirs)
        assert answer.headers["x-llmops-budget-route"] == "cheap"
        return len(rig.held()[-1].charges)

    # That of the project, and those of the keys.
    if first == "the service":
        assert [await by_itself(), await on_its_behalf()] == [2, 3]
    else:
        assert [await on_its_behalf(), await by_itself()] == [3, 2]


async def test_budgets_of_both_hold_for_what_no_route_leads(rig: Rig) -> None:
    mine, theirs = both(rig)
    view = rig.plane.view
    joined = on_behalf.key_for(view, mine, theirs.id.encode(), 0.0)
    found = view.budgets_of(joined, feature="", user="", tags=())
    assert {one.slug for one in found} == {"mine", "theirs"}
    assert {one.slug for one in view.budgets_of(theirs, feature="", user="", tags=())} == {"theirs"}


async def test_calls_of_a_service_and_for_it_know_their_ways_side_by_side(rig: Rig) -> None:
    mine, theirs = both(rig)
    view = rig.plane.view
    joined = on_behalf.key_for(view, mine, theirs.id.encode(), 0.0)
    found = [view.resolve(one, "chat") for one in (theirs, joined)]
    # What policies ask for is not compiled anew each time that the other one comes by.
    assert [view.resolve(one, "chat") for one in (theirs, joined)] == found and found[0] is not found[1]


async def test_a_key_that_names_itself_counts_once(rig: Rig) -> None:
    mine = a_key("runs", held=True, project_id=PROJECT, rpm=2, concurrency=1)
    rig.configure(keys={KEY: mine}, routes=[a_route()])
    assert [(await asks(rig, mine)).status for _ in range(3)] == [200, 200, 429]


async def test_models_are_listed_for_whom_it_is_asked(rig: Rig) -> None:
    mine, theirs, stranger = keys(
        rig,
        held={"allowed_models": frozenset({"small", "large"})},
        service={"allowed_models": frozenset({"large", "other"}), "allowed_routes": frozenset()},
        models=[a_model(), DEAR, a_model("other")],
    )

    async def listed(**headers: str) -> Answer:
        return await rig.call(b"", method="GET", path="/v1/models", headers=headers)

    def names(answer: Answer) -> list[str]:
        return [one["id"] for one in answer.json["data"]]

    assert names(await listed()) == ["chat", "large", "small"]
    assert names(await listed(**{"x-llmops-for-key": theirs.id})) == ["large"]
    one = {"x-llmops-for-key": theirs.id}
    assert (await rig.call(b"", method="GET", path="/v1/models/large", headers=one)).status == 200
    assert (await rig.call(b"", method="GET", path="/v1/models/small", headers=one)).status == 404
    for unknown in (stranger.id, str(uuid7()), "", "x" * 5_000):
        refused = await listed(**{"x-llmops-for-key": unknown})
        assert (refused.status, refused.error["code"]) == (401, "invalid_api_key"), unknown
    paused = HashEntry(msgspec.structs.replace(theirs, paused="it runs wild"))
    rig.configure(keys={KEY: mine}, paused_keys={"h": paused})
    refused = await listed(**one)
    assert (refused.status, refused.error["code"]) == (403, "key_paused")
    # A key that anybody may hold lists what it may call itself: the header is nothing to it.
    rig.configure(keys={KEY: a_key("plain", project_id=PROJECT), SERVICE: theirs})
    assert names(await listed(**one)) == ["small"]
