"""Responses in the background: settled once, whoever sees their end, and at their hold when nobody does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.gateway.responding import (
    IN,
    OUT,
    PATH,
    a_response,
    a_stream,
    ask,
    created,
    delta,
    last_event,
    respond,
    used,
)
from tests.gateway.rig import (
    SECRET,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_provider,
    eventually,
    streams,
)


class Provider:
    """Runs one response in the background, as long as a test wants."""

    def __init__(self) -> None:
        self.now = a_response(status="queued", output=[], usage=None)
        self.status = 200
        self.looks = 0

    async def __call__(self, asked: Asked, reply: Reply) -> None:
        if asked.method == "GET":
            assert asked.path == PATH + "/resp_1"
            assert asked.headers["authorization"] == f"Bearer {SECRET}"
            self.looks += 1
            await reply.json(self.now, self.status)
        elif asked.json.get("stream"):
            await reply.events(created(), delta("one", 1), end=False)
            await asyncio.Event().wait()
        else:
            await reply.json(self.now)

    def ends(self, status: str = "completed", usage: Any = "stated", **changes: Any) -> None:
        self.now = a_response("Hello", used(7, 3) if usage == "stated" else usage, status=status, **changes)


@pytest.fixture
def provider(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Provider:
    monkeypatch.setattr("llmops.gateway.kept.background.FIRST_S", 0.01)
    monkeypatch.setattr("llmops.gateway.kept.background.SLOWEST_S", 0.02)
    made = Provider()
    rig.configure(budgets=[a_budget()])
    rig.upstream.does(made)
    return made


def held_now(rig: Rig) -> int:
    return sum(pot.held for pot in rig.purse._every_pot())


async def test_a_background_response_is_settled_when_it_ends(rig: Rig, provider: Provider) -> None:
    answer = await respond(rig, background=True)
    assert (answer.status, answer.json["status"]) == (200, "queued")
    [held] = rig.held()
    await eventually(lambda: provider.looks >= 3)
    assert rig.ended() == []
    assert held_now(rig) == held.worst_cost
    assert len(rig.plane.background) == 1
    provider.ends()
    await eventually(lambda: bool(rig.ended()))
    outcome = rig.outcome()
    assert (outcome.status, outcome.http, outcome.cost) == ("ok", 200, 7 * IN + 3 * OUT)
    assert outcome.attempts[0].total_us > 0
    assert len(rig.plane.background) == 0
    looks = provider.looks
    await asyncio.sleep(0.05)
    assert provider.looks == looks
    assert len(rig.upstream.asked) == looks + 1


@pytest.mark.parametrize(
    ("status", "usage", "recorded", "estimated"),
    [
        ("incomplete", "stated", "ok", False),
        ("failed", "stated", "error", False),
        ("failed", None, "error", True),
        ("cancelled", "stated", "client_closed", False),
        ("cancelled", None, "client_closed", True),
    ],
)
async def test_a_background_response_may_end_otherwise(
    rig: Rig, provider: Provider, status: str, usage: Any, recorded: str, estimated: bool
) -> None:
    await respond(rig, background=True)
    provider.ends(status, usage)
    await eventually(lambda: bool(rig.ended()))
    outcome = rig.outcome()
    assert (outcome.status, outcome.tokens.estimated) == (recorded, estimated)
    assert outcome.cost <= rig.held()[0].worst_cost


async def test_whoever_sees_the_end_first_settles_it_and_only_once(
    rig: Rig, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmops.gateway.kept.background.FIRST_S", 60.0)
    await respond(rig, background=True)
    background = rig.plane.background
    background.saw("up", "resp_1", json.dumps(provider.now).encode())
    background.saw("up", "resp_other", b"{}")
    await asyncio.sleep(0.02)
    assert rig.ended() == []
    provider.ends()
    told = json.dumps(provider.now).encode()
    for _ in range(3):
        background.saw("up", "resp_1", told)
    background.gone("up", "resp_1")
    await eventually(lambda: bool(rig.ended()))
    assert rig.outcome().cost == 7 * IN + 3 * OUT
    assert provider.looks == 0


async def test_a_provider_that_cannot_be_asked_is_asked_again(rig: Rig, provider: Provider) -> None:
    await respond(rig, background=True)
    provider.status = 500
    await eventually(lambda: provider.looks >= 3)
    assert rig.ended() == []
    provider.status = 200
    provider.ends()
    await eventually(lambda: bool(rig.ended()))
    assert rig.outcome().status == "ok"


async def test_a_response_that_was_deleted_before_its_end_costs_its_hold(
    rig: Rig, provider: Provider
) -> None:
    await respond(rig, background=True)
    provider.status = 404
    await eventually(lambda: bool(rig.ended()))
    outcome = rig.outcome()
    assert (outcome.status, outcome.code, outcome.cost) == (
        "error",
        "background_unknown",
        rig.held()[0].worst_cost,
    )
    assert "deleted" in outcome.message


async def test_a_response_that_takes_too_long_costs_its_hold(
    rig: Rig, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmops.gateway.kept.background.LONGEST_S", 0.05)
    await respond(rig, background=True)
    await eventually(lambda: bool(rig.ended()))
    assert rig.outcome().cost == rig.held()[0].worst_cost


async def test_a_process_that_stops_looks_once_more_and_says_so(rig: Rig, provider: Provider) -> None:
    await respond(rig, background=True)
    provider.ends()
    await rig.plane.background.close()
    assert rig.outcome().cost == 7 * IN + 3 * OUT


async def test_a_response_that_outlives_the_process_costs_its_hold(rig: Rig, provider: Provider) -> None:
    await respond(rig, background=True)
    await rig.plane.background.close()
    outcome = rig.outcome()
    assert (outcome.status, outcome.cost) == ("error", rig.held()[0].worst_cost)
    assert "stopped" in outcome.message


async def test_a_client_that_leaves_a_background_stream_does_not_end_it(rig: Rig, provider: Provider) -> None:
    exchange = rig.start(ask(background=True, stream=True), path=PATH)
    await exchange.answer.until(lambda answer: b"one" in answer.body)
    exchange.hang_up()
    await exchange.done()
    await eventually(lambda: provider.looks >= 2)
    assert rig.ended() == []
    assert len(rig.plane.background) == 1
    provider.ends()
    await eventually(lambda: bool(rig.ended()))
    outcome = rig.outcome()
    assert (outcome.status, outcome.cost) == ("ok", 7 * IN + 3 * OUT)


async def test_a_client_that_leaves_before_a_background_stream_says_its_name_costs_its_hold(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])
    asked = asyncio.Event()

    async def silent(_: Asked, reply: Reply) -> None:
        await reply.events(b": soon\n\n", end=False)
        asked.set()
        await asyncio.Event().wait()

    rig.upstream.does(silent)
    exchange = rig.start(ask(background=True, stream=True), path=PATH)
    await asked.wait()
    exchange.hang_up()
    await exchange.done()
    # The provider works on, and nobody here can ask how far it came.
    assert rig.outcome().cost == rig.held()[0].worst_cost


async def test_a_background_stream_that_breaks_off_without_a_name_costs_its_hold(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])

    async def nameless(_: Asked, reply: Reply) -> None:
        await reply.events(delta("one", 1), end=False)

    rig.upstream.does(nameless)
    answer = await respond(rig, background=True, stream=True)
    assert last_event(answer)["code"] == "stream_interrupted"
    assert rig.outcome().cost == rig.held()[0].worst_cost


async def test_a_background_stream_that_breaks_off_is_followed_to_its_end(
    rig: Rig, provider: Provider
) -> None:
    rig.configure(
        budgets=[a_budget()], providers=[a_provider(base_url=rig.upstream.url, read_timeout_ms=100)]
    )
    answer = await respond(rig, background=True, stream=True)
    assert last_event(answer)["code"] == "stream_interrupted"
    provider.ends()
    await eventually(lambda: bool(rig.ended()))
    assert rig.outcome().cost == 7 * IN + 3 * OUT


async def test_a_background_stream_that_is_read_to_its_end_is_settled_by_it(rig: Rig) -> None:
    rig.configure(budgets=[a_budget()])
    rig.upstream.does(streams(*a_stream("a")))
    answer = await respond(rig, background=True, stream=True)
    assert answer.body == b"".join(a_stream("a"))
    assert rig.outcome().cost == 10 * IN + 5 * OUT
    assert len(rig.plane.background) == 0


async def test_more_responses_than_can_be_followed_are_refused(
    rig: Rig, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmops.gateway.kept.background.MAX_FOLLOWED", 1)
    await respond(rig, background=True)
    refused = await respond(rig, background=True)
    assert (refused.status, refused.error["code"]) == (429, "queue_full")
    provider.ends()
    await eventually(lambda: len(rig.ended()) == 2)
