"""A response in the background outlives the process that followed it: another one asks how it ended, and the charge follows,
once."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from llmops.audit.models import Event
from llmops.budgets.models import Budget, Window
from llmops.core.actors import SYSTEM
from llmops.gateway.kept import background
from llmops.gateway.kept.shelf import DatabaseShelf, claim
from llmops.usage.ingest.loop import Ingester
from llmops.usage.models import Call, Correction, KeptObject, Rollup
from llmops.usage.selectors import kept_answer
from llmops.usage.services import correct_call
from tests.gateway.responding import ID, PATH, a_response, ask, created, used
from tests.gateway.rig import KEY, USD, Asked, Reply, Rig, a_budget, a_key, a_model, eventually, streams

IN, OUT = 1_000, 10_000
COST = 10 * IN + 5 * OUT
MINE = a_key()


class World:
    """A response that is under way at the provider, and the database."""

    def __init__(self, rig: Rig, tmp_path: Path) -> None:
        self.rig = rig
        self.journal = tmp_path / "journal"
        self.state: dict[str, Any] = {"status": "in_progress", "output": [], "usage": None}
        self.http = 200
        self.hold = 0

    async def made(self, *, stream: bool = False) -> None:
        budget = await sync_to_async(Budget.objects.create)(
            slug="loose", scope_kind="organisation", limit_nano=USD, hard=False
        )
        loose = a_budget(
            "loose", id=str(budget.pk), hard=False, scope_kind="organisation", scope_value="", project=None
        )
        self.rig.configure(keys={KEY: MINE}, models=[a_model()], budgets=[loose])

        async def script(asked: Asked, reply: Reply) -> None:
            if asked.method == "POST" and stream:
                await streams(created(background=True), end=False)(asked, reply)
                return
            body = a_response(**self.state) if self.http == 200 else {"error": {"message": "gone"}}
            await reply.json(body, 200 if asked.method == "POST" else self.http)

        self.rig.upstream.does(script)
        body = ask(background=True, max_output_tokens=100, **({"stream": True} if stream else {}))
        answer = await self.rig.call(body, path=PATH)
        assert answer.status == 200
        await eventually(lambda: len(self.rig.plane.background) == 1)
        self.hold = self.rig.held()[0].worst_cost

    async def book(self) -> None:
        await sync_to_async(Ingester(self.journal).run_once)()

    async def dies(self) -> None:
        """The process is gone, and whoever finishes its journal books what it left."""
        for one in list(self.rig.plane.background._followed.values()):
            assert one.task is not None
            one.task.cancel()
            one.ending = True
        self.rig.plane.background._followed.clear()
        # What it left, with nobody's lock on it.
        left = self.journal.with_name("left")
        shutil.copytree(self.journal, left)
        await sync_to_async(Ingester(left).run_once)()

    async def round(self) -> None:
        """Another process looks after what is due."""
        await sync_to_async(KeptObject.objects.filter(due_at__isnull=False).update)(
            due_at=timezone.now(), claimed_until=None
        )
        await self.rig.plane.metering._round()

    async def call(self) -> Call:
        return await sync_to_async(Call.objects.get)()

    async def row(self) -> KeptObject:
        return await sync_to_async(KeptObject.objects.get)(object_id=ID)

    async def charged(self, cost: int) -> None:
        call = await self.call()
        assert call.cost_nano == cost
        settled = await sync_to_async(lambda: sum(Window.objects.values_list("settled_nano", flat=True)))()
        assert settled == cost
        rolled = await sync_to_async(lambda: list(Rollup.objects.values_list("cost_nano", "granularity")))()
        for granularity in (60, 3600, 86400):
            assert sum(amount for amount, length in rolled if length == granularity) == cost

    def asked(self) -> int:
        return sum(one.method == "GET" for one in self.rig.upstream.asked)


@pytest.fixture
async def world(
    transactional_db: None, rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    monkeypatch.setattr(background, "FIRST_S", 3600.0)
    rig.plane.objects.shelf = rig.plane.metering.desk = DatabaseShelf()
    yield World(rig, tmp_path)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_outcome_takes_the_place_of_the_hold(world: World, stream: bool) -> None:
    await world.made(stream=stream)
    await world.dies()
    call = await world.call()
    assert call.status == "unknown"
    await world.charged(world.hold)
    assert await sync_to_async(kept_answer)(call) == ID, "and a person can look there"
    await world.round()
    assert world.asked() == 1
    assert (await world.row()).due_at is not None, "it still runs"
    await world.charged(world.hold)
    world.state = {"status": "completed"}
    for _ in range(3):
        await world.round()
    assert world.asked() == 2, "nobody looks again"
    await world.charged(COST)
    row = await world.row()
    assert (row.due_at, row.claimed_by) == (None, "") and row.metered_at is not None
    [correction] = await sync_to_async(lambda: list(Correction.objects.all()))()
    assert (correction.before_nano, correction.after_nano) == (world.hold, COST)
    assert "10 tokens in, 5 out" in correction.reason and ID in correction.reason
    [event] = await sync_to_async(lambda: list(Event.objects.filter(action="call.corrected")))()
    assert event.actor_name == "data plane"


async def test_while_somebody_follows_it_nobody_else_asks(world: World) -> None:
    await world.made()
    await world.book()
    await world.round()
    assert world.asked() == 0
    assert (await world.row()).due_at is not None
    # Its own follower sees the end; the row learns of it and is done.
    world.state = {"status": "completed"}
    for one in world.rig.plane.background._followed.values():
        one.look.set()
    await eventually(lambda: len(world.rig.plane.background) == 0)
    await world.book()
    await world.charged(COST)
    await world.round()
    assert world.asked() == 1
    assert (await world.row()).due_at is None
    assert not await sync_to_async(Correction.objects.exists)()


async def test_two_who_look_at_once_correct_once(world: World) -> None:
    await world.made()
    await world.dies()
    world.state = {"status": "completed"}
    await sync_to_async(KeptObject.objects.update)(due_at=timezone.now())
    first = await sync_to_async(claim)("first", 600)
    assert first is not None
    metering = world.rig.plane.metering
    desk = metering.desk
    assert desk is not None
    await sync_to_async(KeptObject.objects.update)(claimed_until=None)
    second = await sync_to_async(claim)("second", 600)
    assert second is not None
    # The slow one comes back after its claim ran out and another has corrected.
    await metering._take_over.look(desk, second)
    await metering._take_over.look(desk, first)
    await world.charged(COST)
    assert await sync_to_async(Correction.objects.count)() == 1


async def test_what_a_person_corrected_stays(world: World) -> None:
    await world.made()
    await world.dies()
    call = await world.call()
    await sync_to_async(correct_call)(SYSTEM, call_id=call.pk, cost_nano=7, reason="the invoice says so")
    world.state = {"status": "completed"}
    await world.round()
    await world.charged(7)
    assert world.asked() == 0
    assert (await world.row()).due_at is None


@pytest.mark.parametrize(
    ("state", "http", "done"),
    [
        ({"status": "completed", "usage": None}, 200, True),
        ({"status": "failed", "usage": None, "output": []}, 200, True),
        ({}, 404, True),
        ({}, 500, False),
        ({}, 401, False),
        ({"status": "queued"}, 200, False),
    ],
)
async def test_what_nobody_can_tell_stays_at_the_hold(
    world: World, state: dict[str, Any], http: int, done: bool
) -> None:
    await world.made()
    await world.dies()
    world.state, world.http = state, http
    await world.round()
    await world.charged(world.hold)
    row = await world.row()
    assert (row.due_at is None) == done
    assert row.claimed_by == ""


async def test_a_provider_that_is_paused_is_asked_later(world: World) -> None:
    await world.made()
    await world.dies()
    world.state = {"status": "completed"}
    budget = world.rig.plane.snapshot.live.budgets
    world.rig.configure(keys={KEY: MINE}, budgets=budget, paused_providers={"up": ""})
    await world.round()
    assert world.asked() == 0
    world.rig.configure(keys={KEY: MINE}, budgets=budget)
    await world.round()
    await world.charged(COST)


async def test_what_costs_more_than_its_hold_is_charged_all_the_same(world: World) -> None:
    await world.made()
    await world.dies()
    world.state = {"status": "completed", "usage": used(50_000, 5)}
    await world.round()
    await world.charged(50_000 * IN + 5 * OUT)
