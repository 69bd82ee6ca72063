"""A call of unknown outcome is corrected by a person: window, call and rollups agree before and after, and history stays."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.db.models import Sum
from django.utils import timezone

from llmops.budgets import services as budgets
from llmops.budgets.models import Overrun, Window
from llmops.core.errors import Conflict, InvalidRequest, NotFound
from llmops.usage import services
from llmops.usage.ingest.follower import Follower
from llmops.usage.journal import JournalWriter
from llmops.usage.models import AttributionRollup, Call, Correction, Rollup
from llmops.usage.records import Held, HeldCharge
from tests.cast import COMMAND, in_threads, no_event, one_event, signed_in
from tests.usage.journals import origin


def unknown_call(
    tmp_path: Path, *, held: int = 60, limit: int = 100, project: Any = None
) -> tuple[Call, int, int]:
    """A call whose process died, under a hard and a soft budget: (call, hard window, soft window)."""
    now = timezone.now()
    hard = budgets.create_budget(COMMAND, slug="hard", scope_kind="organisation", limit_nano=limit)
    soft = budgets.create_budget(
        COMMAND, slug="soft", scope_kind="organisation", limit_nano=limit, hard=False
    )
    window = budgets.open_window(budget_id=hard.pk, at=now).window_id
    writer = JournalWriter(tmp_path)
    budgets.lease(window_id=window, journal_id=writer.journal_id, need=0, want=held, lease_seconds=60)
    known: dict[str, Any] = {"user": "a" * 16, "tags": ["vip", "eu"]}
    known |= {"project": str(project.pk)} if project else {}
    who = origin(started=int(now.timestamp() * 1e9), **known)
    writer.append(
        Held(
            n=0,
            at=int(now.timestamp() * 1e9),
            attempt=1,
            origin=who,
            model="small",
            model_version=1,
            provider="up",
            charges=[HeldCharge(window, held)],
            soft=[str(soft.pk)],
            worst_cost=held,
        )
    )
    writer.close()
    assert Follower(tmp_path, writer.journal_id).finish()
    call = Call.objects.get(pk=who.call)
    assert (call.status, call.cost_nano) == (Call.UNKNOWN, held)
    return call, window, Window.objects.get(budget=soft).pk


def agree(call: Call, *, cost: int, window: tuple[int, int], soft: int, where: tuple[int, int]) -> None:
    """Everything that tells of the call's cost tells the same. ``window``: (settled, overrun)."""
    call.refresh_from_db()
    hard, soft_window = Window.objects.get(pk=where[0]), Window.objects.get(pk=where[1])
    assert call.cost_nano == cost
    assert (hard.settled_nano, hard.overrun_nano, hard.leased_nano) == (*window, 0)
    assert soft_window.settled_nano == soft
    for granularity in (60, 3600, 86400):
        rows = Rollup.objects.filter(granularity=granularity).aggregate(
            calls=Sum("calls"), cost=Sum("cost_nano"), overrun=Sum("overrun_nano")
        )
        assert rows == {"calls": 1, "cost": cost, "overrun": call.overrun_nano}
    for row in AttributionRollup.objects.all():
        assert (row.calls, row.cost_nano) == (1, cost), row
    assert AttributionRollup.objects.count() == 10
    charges = {one.get("window"): one for one in call.charges}
    assert (charges[where[0]]["cost"], charges[where[0]]["overrun"]) == window
    assert charges[None]["cost"] == soft
    assert (Overrun.objects.filter(window=hard).aggregate(sum=Sum("amount_nano"))["sum"] or 0) == window[1]


def correct(call: Call, cost: int, **known: Any) -> Correction:
    return services.correct_call(
        COMMAND, call_id=call.pk, cost_nano=cost, **({"reason": "the invoice"} | known)
    )


def test_everything_follows_and_history_stays(db: None, tmp_path: Path) -> None:
    call, *where = unknown_call(tmp_path)
    at = (where[0], where[1])
    agree(call, cost=60, window=(60, 0), soft=60, where=at)
    with one_event("call.corrected") as seen:
        correct(call, 20, reason="seen in the provider's log")
    assert seen.event.object_id == str(call.pk) and seen.event.reason == "seen in the provider's log"
    agree(call, cost=20, window=(20, 0), soft=20, where=at)
    # Beyond the hold, and back.
    correct(call, 75)
    agree(call, cost=75, window=(60, 15), soft=75, where=at)
    correct(call, 0)
    agree(call, cost=0, window=(0, 0), soft=0, where=at)
    told = [(one.before_nano, one.after_nano) for one in Correction.objects.order_by("at")]
    assert told == [(60, 20), (20, 75), (75, 0)]
    assert Correction.objects.order_by("at")[0].charges_before[0]["cost"] == 60
    with pytest.raises(IntegrityError), transaction.atomic():
        Correction.objects.update(after_nano=1)
    with pytest.raises(IntegrityError), transaction.atomic():
        Correction.objects.all().delete()


def test_a_window_that_filled_up_meanwhile_is_not_exceeded(db: None, tmp_path: Path) -> None:
    call, *where = unknown_call(tmp_path)
    correct(call, 10)
    state = budgets.lease(window_id=where[0], journal_id=call.pk, need=0, want=500, lease_seconds=60)
    assert state.granted_nano == 90
    correct(call, 50)
    window = Window.objects.get(pk=where[0])
    assert (window.settled_nano, window.leased_nano, window.overrun_nano) == (10, 90, 40)
    call.refresh_from_db()
    assert (call.cost_nano, call.overrun_nano) == (50, 40)


def test_rebuilding_the_day_agrees(db: None, tmp_path: Path) -> None:
    from llmops.usage.rebuild import STEPS, step

    call, *_ = unknown_call(tmp_path)
    correct(call, 20)
    result: dict[str, Any] = {}
    with transaction.atomic():
        for number in range(STEPS):
            result = step(call.started_at.date(), number, result)
    assert result["differences"] == [] and result["cost_nano"] == 20


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("cost_usd", {"cost": -1}),
        ("cost_usd", {"cost": 1.5}),
        ("cost_usd", {"cost": 2**63}),
        ("cost_usd", {"cost": 60}),
        ("reason", {"cost": 1, "reason": " "}),
        ("reason", {"cost": 1, "reason": "x" * 501}),
    ],
)
def test_what_can_not_be_is_refused(db: None, tmp_path: Path, field: str, values: dict[str, Any]) -> None:
    call, *_ = unknown_call(tmp_path)
    with no_event(), pytest.raises(InvalidRequest) as refusal:
        correct(call, **values)
    assert refusal.value.param == field and not Correction.objects.exists()


def test_what_is_known_is_not_corrected(db: None, tmp_path: Path) -> None:
    call, *_ = unknown_call(tmp_path)
    Call.objects.filter(pk=call.pk).update(status=Call.OK, attempts=[])
    with no_event(), pytest.raises(Conflict, match="provider's own figures"):
        correct(call, 1)
    with pytest.raises(NotFound):
        services.correct_call(COMMAND, call_id=call.journal_id, cost_nano=1, reason="x")


def test_of_many_at_once_those_who_saw_something_else_are_told(
    transactional_db: None, tmp_path: Path
) -> None:
    call, *where = unknown_call(tmp_path)
    results = in_threads(
        *[lambda cost=cost: correct(call, cost, expected_nano=60) for cost in (5, 15, 25, 35, 45)]
    )
    won = [one for one in results if isinstance(one, Correction)]
    assert len(won) == 1 and all(isinstance(one, Correction | Conflict) for one in results)
    cost = won[0].after_nano
    agree(call, cost=cost, window=(cost, 0), soft=cost, where=(where[0], where[1]))


def test_corrections_beside_an_ingester_wait_for_nobody_for_ever(
    transactional_db: None, tmp_path: Path
) -> None:
    """Both touch rollups and windows, some of them in another order than they were made."""
    call, window, soft_window = unknown_call(tmp_path, limit=100_000)
    budget = Window.objects.get(pk=soft_window).budget_id

    def ingest() -> None:
        for _ in range(25):
            with transaction.atomic():
                budgets.book(
                    journal_id=call.pk,
                    charges=[budgets.WindowCharge(window, 1)],
                    soft=[budgets.SoftCharge(budget, call.started_at, 1)],
                )

    def correct_often() -> None:
        for number in range(25):
            correct(call, number + 1)

    assert in_threads(ingest, correct_often, ingest) == [None] * 3
    assert Window.objects.get(pk=window).settled_nano == 25 + 50
    assert Window.objects.get(pk=soft_window).settled_nano == 25 + 50


def test_the_pages_and_the_api(cast: SimpleNamespace, tmp_path: Path) -> None:
    call, *_ = unknown_call(tmp_path, project=cast.support)
    carla, bob = signed_in(cast.carla), signed_in(cast.bob)
    story = carla.get(f"/calls/{call.pk}/").content.decode()
    assert f"/admin/usage/call/{call.pk}/correct/" in story
    assert "Correct the cost" not in bob.get(f"/calls/{call.pk}/").content.decode()
    page = f"/admin/usage/call/{call.pk}/correct/"
    assert 'name="shown" value="60"' in carla.get(page).content.decode()
    stale = carla.post(page, {"cost_usd": "0.00000002", "reason": "log", "shown": "59"})
    assert stale.status_code == 200 and "meanwhile" in stale.content.decode()
    assert (
        carla.post(page, {"cost_usd": "0.00000002", "reason": "their log", "shown": "60"}).status_code == 302
    )
    assert "their log" in carla.get(f"/calls/{call.pk}/").content.decode()
    url = f"/api/v1/calls/{call.pk}/"
    answer = carla.post(
        f"{url}correct/", {"cost_usd": "0.00000003", "reason": "the invoice"}, content_type="application/json"
    )
    assert answer.status_code == 201, answer.json()
    body = carla.get(url).json()
    assert body["cost_usd"] == "0.00000003" and [one["reason"] for one in body["corrections"]] == [
        "the invoice",
        "their log",
    ]


def test_what_found_no_room_is_not_taken_from_what_others_spent(db: None, tmp_path: Path) -> None:
    """A soft budget was made hard; a correction far up and back must leave it as it was."""
    call, _, soft = unknown_call(tmp_path)
    window = Window.objects.get(pk=soft)
    budgets.update_budget(COMMAND, budget_id=window.budget_id, hard=True)
    with transaction.atomic():
        budgets.book(journal_id=call.pk, charges=[budgets.WindowCharge(soft, 30)])
    correct(call, 500)
    window.refresh_from_db()
    assert (window.settled_nano, window.overrun_nano) == (100, 430)
    correct(call, 90)
    window.refresh_from_db()
    assert (window.settled_nano, window.overrun_nano) == (100, 20)
    correct(call, 60)
    window.refresh_from_db()
    assert (window.settled_nano, window.overrun_nano) == (90, 0)
    assert sum(Overrun.objects.filter(window=window).values_list("amount_nano", flat=True)) == 0


def test_everything_adds_up_after_corrections_rebuilds_and_journals_at_once(
    transactional_db: None, tmp_path: Path
) -> None:
    """Calls corrected up and down by many, while their day is rebuilt and their journal is read again."""
    from llmops.base.locks import lock
    from llmops.usage.rebuild import STEPS, step
    from llmops.usage.services.journals import ROLLUPS_LOCK

    now, count, held = timezone.now(), 6, 60
    hard = budgets.create_budget(COMMAND, slug="hard", scope_kind="organisation", limit_nano=count * held)
    window = budgets.open_window(budget_id=hard.pk, at=now).window_id
    writer = JournalWriter(tmp_path)
    journal = writer.journal_id
    budgets.lease(window_id=window, journal_id=journal, need=0, want=count * held, lease_seconds=60)
    ids = []
    for number in range(count):
        who = origin(started=int(now.timestamp() * 1e9), tags=["eu"])
        ids.append(who.call)
        at = int(now.timestamp() * 1e9)
        writer.append(
            Held(
                n=number, at=at, attempt=1, origin=who, model="small", model_version=1, provider="up",
                charges=[HeldCharge(window, held)], worst_cost=held,
            )
        )  # fmt: skip
    writer.close()
    assert Follower(tmp_path, journal).finish()

    def correct_all(costs: list[int]) -> None:
        for cost in costs:
            for call_id in ids:
                with suppress(InvalidRequest):
                    services.correct_call(COMMAND, call_id=call_id, cost_nano=cost, reason="the invoice")

    def rebuild() -> None:
        for number in range(STEPS):
            if number // 5 == now.hour or number >= STEPS - 2:
                # As the job does it.
                with transaction.atomic():
                    lock(ROLLUPS_LOCK)
                    step(now.date(), number, {})

    def read_again() -> None:
        for _ in range(3):
            Follower(tmp_path, journal).finish()

    results = in_threads(
        partial(correct_all, [10, 90, 0]), partial(correct_all, [200, 5]), rebuild, read_again, rebuild
    )
    assert results == [None] * 5
    calls = list(Call.objects.filter(pk__in=ids))
    cost, overrun = (sum(getattr(call, name) for call in calls) for name in ("cost_nano", "overrun_nano"))
    stands = Window.objects.get(pk=window)
    assert stands.settled_nano + stands.overrun_nano == cost and stands.overrun_nano == overrun
    assert stands.settled_nano <= stands.limit_nano and stands.leased_nano == 0
    for granularity in (60, 3600, 86400):
        rows = Rollup.objects.filter(granularity=granularity).aggregate(
            calls=Sum("calls"), cost=Sum("cost_nano"), overrun=Sum("overrun_nano")
        )
        assert rows == {"calls": count, "cost": cost, "overrun": overrun}, granularity
    last = {one.call_id: one.after_nano for one in Correction.objects.order_by("at")}
    assert {call.pk: call.cost_nano for call in calls} == last
    tagged = AttributionRollup.objects.filter(kind="tag", value="eu")
    for granularity in set(tagged.values_list("granularity", flat=True)):
        rows = tagged.filter(granularity=granularity).aggregate(calls=Sum("calls"), cost=Sum("cost_nano"))
        assert rows == {"calls": count, "cost": cost}
