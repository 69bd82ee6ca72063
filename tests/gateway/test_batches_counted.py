"""What a batch cost is counted once, when it has ended, whoever is killed meanwhile."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from llmops.budgets.models import Budget, Window
from llmops.gateway.kept import metering, objects
from llmops.gateway.kept.believing import Sums
from llmops.gateway.kept.metering import Metering, target_named
from llmops.gateway.kept.shelf import DatabaseShelf, claim, put_back
from llmops.serving.snapshot import PriceRow
from llmops.usage.ingest.loop import Ingester
from llmops.usage.models import Call, KeptObject
from llmops.usage.records import Metered
from tests.gateway.batching import A_BATCH, DONE, answered, at, create, lines
from tests.gateway.keeping import MINE, bytes_of, configure, get, gives
from tests.gateway.rig import (
    USD,
    Rig,
    Script,
    a_budget,
    a_model,
    a_provider,
    completion,
    fails,
    usage,
)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PATIENCE_S", 0.1)
    monkeypatch.setattr(objects, "_LOOK_EVERY_S", 0.02)


# ---------------------------------------------------------------------- what it cost: pure


def test_usage_is_read_of_every_endpoints_lines() -> None:
    sums = Sums()
    content = answered(
        ("m", usage(10, 5, cached=3, reasoning=2)),
        ("m", {"input_tokens": 20, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 4}}),
        ("e", {"prompt_tokens": 8, "total_tokens": 8}),
        ("m", None),
        ("m", {"prompt_tokens": -1}),
    )
    for line in [*content.splitlines(), b"broken", b"[]", b'{"custom_id": "a", "response": null}']:
        sums.add(line)
    m, e = sums.by_model["m"], sums.by_model["e"]
    assert (m.input, m.cached, m.output, m.reasoning) == (30, 7, 12, 2)
    assert (e.input, e.output) == (8, 0)
    assert (sums.lines, sums.silent, sums.odd) == (8, 3, 2)


async def test_a_model_is_known_by_the_name_it_answers_under(rig: Rig) -> None:
    rig.configure(
        providers=(a_provider("up"), a_provider("b")),
        models=[
            a_model("a", upstream_model="gpt"),
            a_model("b", upstream_model="gpt-mini"),
            a_model("c", "b", upstream_model="gpt-mini-2"),
        ],
    )

    def named(model: str, *asked: str) -> str:
        found = target_named(rig.plane.view, "up", model, asked)
        return found.slug if found is not None else ""

    assert [named(one) for one in ("gpt", "gpt-2024", "gpt-mini", "gpt-mini-2", "gptx", "")] == [
        "a", "a", "b", "b", "", ""
    ]  # fmt: skip
    assert named("other", "gpt") == "a"
    assert named("other", "gpt", "gpt-mini") == ""


# ---------------------------------------------------------------------- what it cost: counted once

COST = 2 * (10 * 500 + 5 * 5_000)


class World:
    """A database with an open batch, and data planes over it."""

    def __init__(self, rig: Rig, tmp_path: Path) -> None:
        self.rig = rig
        self.soft = ""
        self.asked = lines("sim-small", "sim-small")
        self._journals = [tmp_path / "journal"]

    @property
    def metering(self) -> Metering:
        return self.rig.plane.metering

    async def made(self) -> None:
        """A batch under a soft budget, booked and due."""
        budget = await sync_to_async(Budget.objects.create)(
            slug="loose", scope_kind="organisation", limit_nano=USD, hard=False
        )
        prices = [("input", USD), ("output", 10 * USD), ("batch_input", USD // 2), ("batch_output", 5 * USD)]
        configure(
            self.rig,
            models=[a_model("small", prices=tuple(PriceRow(name, 0, price) for name, price in prices))],
            budgets=[
                a_budget(
                    "loose",
                    id=str(budget.pk),
                    hard=False,
                    scope_kind="organisation",
                    scope_value="",
                    project=None,
                )
            ],
        )
        self.rig.plane.objects.made("file", "file-1", key=MINE, provider="up")
        self.upstream(at(content=bytes_of(self.asked), batches=gives(A_BATCH)))
        assert (await create(self.rig, headers={"x-llmops-feature": "f"})).status == 200
        await self.book()
        await sync_to_async(KeptObject.objects.filter(kind="batch").update)(due_at=timezone.now())

    def upstream(self, script: Script) -> None:
        self.rig.upstream.does(script)

    def ended(self) -> None:
        output = answered(("sim-small", usage(10, 5)), ("sim-small-2024", usage(10, 5)))
        self.upstream(
            at(
                batch_1=gives(DONE),
                file_out=bytes_of(output[:50], output[50:]),
                file_1=bytes_of(self.asked[:30], self.asked[30:]),
            )
        )

    async def book(self) -> None:
        await sync_to_async(Ingester(self._journals[0]).run_once)()

    async def row(self) -> KeptObject:
        return await sync_to_async(KeptObject.objects.get)(kind="batch")

    async def again(self) -> None:
        """Time passes: claims run out, the row is due."""
        await sync_to_async(KeptObject.objects.filter(kind="batch", due_at__isnull=False).update)(
            due_at=timezone.now(), claimed_until=None
        )

    async def counted(self, times: int) -> None:
        calls = await sync_to_async(lambda: list(Call.objects.filter(endpoint="batches.usage")))()
        assert len(calls) == times
        settled = await sync_to_async(lambda: sum(Window.objects.values_list("settled_nano", flat=True)))()
        assert settled == COST * times
        for call in calls:
            assert (call.cost_nano, call.input_tokens, call.output_tokens) == (COST, 20, 10)
            assert (str(call.project_id), str(call.key_id), call.feature) == (MINE.project_id, MINE.id, "f")
            assert (call.model, call.status, call.service_tier) == ("small", "ok", "batch")


@pytest.fixture
async def world(transactional_db: None, rig: Rig, tmp_path: Path) -> AsyncIterator[World]:
    shelf = DatabaseShelf()
    rig.plane.objects.shelf = rig.plane.metering.desk = shelf
    made = World(rig, tmp_path)
    await made.made()
    yield made


async def test_a_batch_is_counted_when_it_has_ended(world: World) -> None:
    world.upstream(at(batch_1=gives(A_BATCH)))
    await world.metering._round()
    row = await world.row()
    assert (row.looks, row.claimed_by, row.metered_at) == (1, "", None)
    assert row.due_at is not None
    assert row.due_at > timezone.now()
    await world.counted(0)
    world.ended()
    await world.again()
    await world.metering._round()
    await world.book()
    await world.counted(1)
    row = await world.row()
    assert row.metered_at is not None
    assert row.due_at is None
    spend = world.rig.plane.metrics.spend[MINE.project_id, "small"]
    assert (spend.cost, spend.input, spend.output) == (COST, 20, 10)
    # Nobody looks again.
    asked = len(world.rig.upstream.asked)
    await world.metering._round()
    assert len(world.rig.upstream.asked) == asked


async def test_killed_between_the_claim_and_the_record_another_counts(world: World) -> None:
    world.ended()
    dead = await sync_to_async(claim)("dead", 600)
    assert dead is not None
    assert await sync_to_async(claim)("living", 600) is None, "it is claimed"
    await world.metering._round()
    await world.book()
    await world.counted(0)
    await world.again()
    await world.metering._round()
    await world.book()
    await world.counted(1)


async def test_killed_between_the_record_and_the_release_it_is_counted_once(world: World) -> None:
    world.ended()
    dead = await sync_to_async(claim)("dead", 600)
    assert dead is not None
    await world.metering.look(dead)
    # Its journal is not booked yet when another process takes over.
    await world.again()
    await world.metering._round()
    assert len([one for one in world.rig.records() if isinstance(one, Metered)]) == 2
    await world.book()
    await world.counted(1)


async def test_a_count_whose_journal_is_lost_is_made_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ended()
    with monkeypatch.context() as patch:
        patch.setattr(world.rig.plane, "write", lambda record: None)
        await world.metering._round()
    await world.book()
    row = await world.row()
    assert row.due_at is not None, "it stays due"
    await world.counted(0)
    await world.again()
    await world.metering._round()
    await world.book()
    await world.counted(1)


async def test_a_slow_one_does_not_take_the_row_from_who_claimed_it_since(world: World) -> None:
    slow = await sync_to_async(claim)("slow", 600)
    assert slow is not None
    await world.again()
    fast = await sync_to_async(claim)("fast", 600)
    assert fast is not None
    await sync_to_async(put_back)(slow, 1)
    assert (await world.row()).claimed_by == "fast"
    await sync_to_async(put_back)(fast, 1)
    assert (await world.row()).claimed_by == ""


async def test_many_claim_at_once_and_one_gets_it(world: World) -> None:
    from tests.cast import in_threads

    def work(number: int) -> Callable[[], Any]:
        return lambda: claim(f"p{number}", 600)

    found = await sync_to_async(in_threads)(*(work(number) for number in range(6)))
    assert len([one for one in found if one is not None]) == 1


async def test_output_that_is_not_counted_yet_is_not_deleted(world: World) -> None:
    world.ended()
    await get(world.rig, "/v1/batches/batch_1")
    refused = await get(world.rig, "/v1/files/file-out", method="DELETE")
    assert (refused.status, refused.error["code"]) == (409, "batch_not_counted")
    await world.metering._round()
    await world.book()
    world.upstream(gives({"id": "file-out", "deleted": True}))
    assert (await get(world.rig, "/v1/files/file-out", method="DELETE")).status == 200
    await world.counted(1)


@pytest.mark.parametrize("trouble", [fails(500), fails(401), fails(404), gives([1]), gives({"status": 5})])
async def test_trouble_at_the_provider_only_delays_the_count(world: World, trouble: Script) -> None:
    world.upstream(at(batch_1=trouble))
    await world.metering._round()
    world.upstream(at(batch_1=gives(DONE), file_out=trouble))
    await world.again()
    await world.metering._round()
    world.upstream(at(batch_1=gives(DONE), file_out=bytes_of(answered(("sim-small", usage())), length=9_999)))
    await world.again()
    await world.metering._round()
    await world.book()
    await world.counted(0)
    world.ended()
    await world.again()
    await world.metering._round()
    await world.book()
    await world.counted(1)


async def test_a_batch_that_its_provider_forgot_is_given_up_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering, "GIVE_UP_S", 0.0)
    world.upstream(at(batch_1=fails(404)))
    await world.metering._round()
    await world.book()
    call = await sync_to_async(Call.objects.get)(endpoint="batches.usage")
    assert (call.status, call.error_code, call.cost_nano) == ("error", "batch_lost", 0)
    assert (await world.row()).metered_at is not None


async def test_a_hard_budget_of_later_is_charged_as_far_as_it_has_room(world: World) -> None:
    budget = await sync_to_async(Budget.objects.create)(
        slug="late", scope_kind="project", scope_value="support", limit_nano=COST // 2, hard=True
    )
    configure(
        world.rig,
        models=list(world.rig.plane.snapshot.models.values()),
        budgets=[
            *world.rig.plane.snapshot.live.budgets,
            a_budget("late", COST // 2, id=str(budget.pk), project=None),
        ],
    )
    world.ended()
    await world.metering._round()
    await world.book()
    window = await sync_to_async(Window.objects.get)(budget=budget)
    assert (window.settled_nano, window.overrun_nano) == (COST // 2, COST - COST // 2)


async def test_without_the_database_nothing_is_looked_after(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away:
        async def claim(self, token: str, seconds: float) -> None:
            raise objects.ShelfAway

    rig.plane.metering.desk = Away()  # type: ignore[assignment]
    await rig.plane.metering._round()
    monkeypatch.setattr(metering, "_IDLE_S", 0.0)
    await rig.plane.tick()
    await rig.plane.metering.close()


# ---------------------------------------------------------------------- what is believed

CHATS = "/v1/chat/completions"
ENTRY = a_model("small", max_output_tokens=1_000, context_window=100_000)


def asking(name: str, text: str = "Hi", **body: Any) -> bytes:
    given = {"model": "sim-small", "messages": [{"role": "user", "content": text}]} | body
    return json.dumps({"custom_id": name, "method": "POST", "url": CHATS, "body": given}).encode()


def telling(name: str, stated: Any, text: str = "Hello") -> bytes:
    body = completion(text, stated)
    return json.dumps({"custom_id": name, "response": {"status_code": 200, "body": body}}).encode()


def believed(told: list[bytes], asked: list[bytes] | None = None) -> tuple[Sums, Any]:
    sums = Sums(CHATS)
    sums.add_all(told, lambda model: ENTRY)
    if asked is not None:
        sums.check(asked, lambda model: ENTRY)
    return sums, sums.by_model.get("sim-small-2024")


def test_what_is_stated_as_it_is_nearly_always_is_believed() -> None:
    sums, tokens = believed(
        [telling("a", usage(10, 5)), telling("b", usage(900, 400, cached=800, reasoning=350), "x" * 200)],
        [asking("a"), asking("b", "word " * 1_000, max_completion_tokens=400)],
    )
    assert (tokens.input, tokens.cached, tokens.output, tokens.reasoning) == (910, 800, 405, 350)
    assert (sums.doubted, sums.strange, sums.odd, tokens.estimated) == (0, 0, 0, False)


def test_an_input_that_is_understated_is_what_the_request_plainly_holds() -> None:
    sums, tokens = believed([telling("a", usage(1, 5))], [asking("a", "word " * 5_000)])
    assert 4_900 < tokens.input < 5_200
    assert (sums.doubted, tokens.estimated) == (1, True)


def test_an_output_that_is_understated_is_what_the_answer_plainly_holds() -> None:
    sums, tokens = believed([telling("a", usage(10, 1), "word " * 800)], [asking("a")])
    assert 790 < tokens.output < 850
    assert sums.doubted == 1


@pytest.mark.parametrize(
    ("body", "most"),
    [
        ({}, 1_000),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 7, "n": 3}, 21),
        ({"max_tokens": True}, 1_000),
    ],
)
def test_no_more_output_than_the_request_allowed(body: dict[str, Any], most: int) -> None:
    sums, tokens = believed([telling("a", usage(10, 90_000, reasoning=80_000))], [asking("a", **body)])
    assert (tokens.output, tokens.reasoning) == (most, most)
    assert sums.doubted == 1


def test_a_line_counts_once_and_only_where_it_was_asked_for() -> None:
    sums, tokens = believed(
        [telling("a", usage(10, 5)), telling("a", usage(10, 5)), telling("made up", usage(99, 99))],
        [asking("a"), asking("never answered")],
    )
    assert (tokens.input, tokens.output) == (10, 5)
    assert (sums.odd, sums.strange) == (1, 1)


async def test_a_batch_whose_usage_is_not_true_is_counted(world: World) -> None:
    world.asked = b"".join(asking(name, "word " * 5_000) + b"\n" for name in "01")
    output = b"".join(telling(name, usage(1, 1)) + b"\n" for name in "01")
    world.upstream(
        at(
            batch_1=gives(DONE),
            file_out=bytes_of(output),
            file_1=bytes_of(world.asked[:70], world.asked[70:]),
        )
    )
    await world.metering._round()
    await world.book()
    call = await sync_to_async(Call.objects.get)(endpoint="batches.usage")
    assert call.input_tokens > 9_900
    assert call.usage_estimated
    # The file that is read is the one that the batch was made with, whatever the provider names now.
    assert any(one.path.endswith("/files/file-1/content") for one in world.rig.upstream.asked[-2:])


async def test_a_batch_whose_requests_are_gone_is_believed(world: World) -> None:
    output = answered(("sim-small", usage(10, 5)), ("sim-small-2024", usage(10, 5)))
    world.upstream(at(batch_1=gives(DONE), file_out=bytes_of(output), file_1=fails(404)))
    await world.metering._round()
    await world.book()
    await world.counted(1)
