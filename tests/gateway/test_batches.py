"""Batches: only the project's own files and models, never under a hard budget, and what they cost is counted once."""

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
from llmops.gateway.kept.metering import Metering, Sums, target_named
from llmops.gateway.kept.shelf import DatabaseShelf, claim, put_back
from llmops.serving.snapshot import PriceRow
from llmops.usage.ingest.loop import Ingester
from llmops.usage.models import Call, KeptObject
from llmops.usage.records import Kept, Metered
from tests.gateway.keeping import MINE, OTHER, THEIRS, bytes_of, configure, get, gives
from tests.gateway.rig import (
    KEY,
    USD,
    Answer,
    Asked,
    Reply,
    Rig,
    Script,
    Upstream,
    a_budget,
    a_key,
    a_model,
    a_provider,
    a_route,
    fails,
    usage,
)
from tests.gateway.test_objects import FakeShelf, a_row

A_BATCH = {
    "id": "batch_1",
    "object": "batch",
    "status": "in_progress",
    "output_file_id": None,
    "error_file_id": None,
}
DONE = A_BATCH | {"status": "completed", "output_file_id": "file-out", "error_file_id": "file-err"}
CHAT = "/v1/chat/completions"
BODY = {"input_file_id": "file-1", "endpoint": CHAT, "completion_window": "24h"}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PATIENCE_S", 0.1)
    monkeypatch.setattr(objects, "_LOOK_EVERY_S", 0.02)


@pytest.fixture
async def kept(rig: Rig) -> AsyncIterator[Rig]:
    configure(rig)
    rig.plane.objects.made("file", "file-1", key=MINE, provider="up")
    yield rig


def lines(*models: str) -> bytes:
    return b"".join(
        json.dumps({"custom_id": str(n), "method": "POST", "url": CHAT, "body": {"model": model}}).encode()
        + b"\n"
        for n, model in enumerate(models)
    )


def a_line(**changes: Any) -> bytes:
    line = {"custom_id": "a", "method": "POST", "url": CHAT, "body": {"model": "sim-small"}} | changes
    return json.dumps({name: value for name, value in line.items() if value is not ...}).encode() + b"\n"


def answered(*used: tuple[str, Any]) -> bytes:
    """An output file: for each line the model and its usage."""
    return b"".join(
        json.dumps(
            {"custom_id": str(n), "response": {"status_code": 200, "body": {"model": model, "usage": said}}}
        ).encode()
        + b"\n"
        for n, (model, said) in enumerate(used)
    )


def at(**scripts: Script) -> Script:
    """By the end of the path: ``content``, ``batches``, ``batch_1``."""

    async def script(asked: Asked, reply: Reply) -> None:
        name = asked.path.rsplit("/", 1)[1].partition("?")[0]
        if name == "content" and f"{asked.path.split('/')[-2]}".replace("-", "_") in scripts:
            name = asked.path.split("/")[-2].replace("-", "_")
        await scripts[name](asked, reply)

    return script


async def create(rig: Rig, **how: Any) -> Answer:
    return await rig.call(BODY | how.pop("body", {}), path="/v1/batches", **how)


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
        self.upstream(at(content=bytes_of(lines("sim-small")), batches=gives(A_BATCH)))
        assert (await create(self.rig, headers={"x-llmops-feature": "f"})).status == 200
        await self.book()
        await sync_to_async(KeptObject.objects.filter(kind="batch").update)(due_at=timezone.now())

    def upstream(self, script: Script) -> None:
        self.rig.upstream.does(script)

    def ended(self) -> None:
        output = answered(("sim-small", usage(10, 5)), ("sim-small-2024", usage(10, 5)))
        self.upstream(at(batch_1=gives(DONE), file_out=bytes_of(output[:50], output[50:])))

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
