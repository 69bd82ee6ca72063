"""More money for a while: only with a second person, exactly for its time, and never beyond what is leased and settled."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import pytest
import time_machine
from django.db import transaction
from django.utils import timezone

from llmops.approvals.models import Request
from llmops.approvals.services import decide
from llmops.base.live import LIVE_STATE, versions
from llmops.base.requests import user_actor
from llmops.budgets import services
from llmops.budgets.models import Budget, Raise, Window
from llmops.budgets.selectors import gauges
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest
from llmops.core.money import MAX_NANO, NANO
from llmops.serving.selectors import load_snapshot
from tests.cast import COMMAND, no_event, one_event, person, signed_in

#: Somebody who is not among those who approve here.
ASKER = Actor("user", "987654", "Olga")


@pytest.fixture(autouse=True)
def olga(db: None) -> None:
    person("olga", ("operator", None), pk=987654)


def budget_of(limit: int = 100, **known: Any) -> Budget:
    values: dict[str, Any] = {"slug": f"r-{uuid4()}", "scope_kind": "organisation", "limit_nano": limit}
    return services.create_budget(COMMAND, **(values | known))


def asked(budget: Budget, amount: int = 50, **known: Any) -> Request:
    values: dict[str, Any] = {"ends_at": timezone.now() + timedelta(hours=2), "reason": "a busy day"}
    return services.ask_raise(ASKER, budget_id=budget.pk, amount_nano=amount, **(values | known))


def approve(cast: SimpleNamespace, row: Request) -> None:
    decide(user_actor(cast.root), request_id=row.pk, approves=True, seen=row.digest)


def lease(budget: Budget, want: int, at: datetime | None = None) -> int:
    state = services.open_window(budget_id=budget.pk, at=at or timezone.now())
    told = services.lease(window_id=state.window_id, journal_id=uuid4(), need=0, want=want, lease_seconds=60)
    return told.granted_nano


def present(budget: Budget) -> Window:
    return Window.objects.filter(budget=budget).latest("starts_at")


def gauge_limit(budget: Budget) -> int:
    return next(one.limit_nano for one in gauges(None, timezone.now()) if one.budget_id == budget.pk)


def test_it_counts_from_the_approval_on(cast: SimpleNamespace) -> None:
    budget = budget_of(100)
    assert lease(budget, 80) == 80
    row = asked(budget, 50)
    assert lease(budget, 500) == 20, "asking changes nothing"
    before = versions()[LIVE_STATE]
    with one_event("budget.raise_approved") as seen:
        approve(cast, row)
    assert versions()[LIVE_STATE] == before + 1
    assert seen.event.object_id == str(budget.pk) and seen.event.after["raised_by_usd"] == "0.00000005"
    assert lease(budget, 500) == 50 and gauge_limit(budget) == 150
    assert present(budget).limit_nano == 150
    made = Raise.objects.get()
    assert (made.asked_by, made.approved_by, made.reason) == ("Olga", "root", "a busy day")


def test_when_it_is_over_the_limit_is_what_it_was(cast: SimpleNamespace) -> None:
    with time_machine.travel(timezone.now(), tick=True) as clock:
        budget = budget_of(100)
        journal, state = uuid4(), services.open_window(budget_id=budget.pk, at=timezone.now())
        approve(cast, asked(budget, 60))
        services.lease(window_id=state.window_id, journal_id=journal, need=0, want=150, lease_seconds=60)
        clock.shift(timedelta(hours=3))
        if Window.objects.count() and present(budget).ends_at and present(budget).ends_at <= timezone.now():
            pytest.fail("the month ended in the middle of the test")
        assert lease(budget, 10) == 0, "over, though no job has run"
        assert (gauge_limit(budget), present(budget).limit_nano) == (100, 150)
        with one_event("budget.raise_ended"):
            assert services.end_raises() == 1
        with no_event():
            assert services.end_raises() == 0
        assert present(budget).limit_nano == 150, "what is leased is respected"
        services.give_back(window_id=state.window_id, journal_id=journal, amount=20)
        assert present(budget).limit_nano == 130
        with transaction.atomic():
            services.book(
                journal_id=journal, charges=[services.WindowCharge(state.window_id, 90)], closing=True
            )
        assert (present(budget).limit_nano, present(budget).settled_nano) == (100, 90)
        assert lease(budget, 500) == 10


@pytest.fixture(autouse=True)
def in_the_middle_of_a_month(request: pytest.FixtureRequest, db: None) -> Any:
    """Clocks of the test's own process; PostgreSQL keeps its own, so there the database's clock is this one, too."""
    import llmops.approvals.services as approvals
    import llmops.budgets.services.raises as raises
    import llmops.budgets.services.windows as windows

    patch = pytest.MonkeyPatch()
    for module in (approvals, raises, windows):
        patch.setattr(module, "database_now", timezone.now)
    with time_machine.travel(datetime(2027, 3, 10, 12, tzinfo=UTC), tick=True):
        yield
    patch.undo()


def test_raises_overlap_and_begin_later(cast: SimpleNamespace) -> None:
    budget, now = budget_of(100), timezone.now()
    approve(cast, asked(budget, 10, ends_at=now + timedelta(hours=4)))
    approve(cast, asked(budget, 25, starts_at=now + timedelta(hours=1), ends_at=now + timedelta(hours=2)))
    found = []
    with time_machine.travel(now, tick=False) as clock:
        for _ in range(6):
            clock.shift(timedelta(minutes=59))
            found.append(gauge_limit(budget))
    assert found == [110, 135, 110, 110, 100, 100]


def test_data_planes_know_when_it_begins_and_ends(cast: SimpleNamespace) -> None:
    budget, now = budget_of(100), timezone.now()
    approve(cast, asked(budget, 10, starts_at=now + timedelta(hours=1), ends_at=now + timedelta(hours=2)))
    entry = next(one for one in load_snapshot().live.budgets if one.id == str(budget.pk))
    at = now.timestamp()
    assert [entry.limit_at(at + hours * 3600) for hours in (0, 1.5, 2.5)] == [100, 110, 100]


def test_what_is_left_of_a_raise_is_not_carried_over(cast: SimpleNamespace) -> None:
    budget = budget_of(100, carry_over_nano=500)
    now = timezone.now()
    approve(cast, asked(budget, 50, ends_at=now + timedelta(days=60)))
    assert lease(budget, 1) == 1
    services.carry_over(budget_id=budget.pk, now=now + timedelta(days=31))
    assert present(budget).carried_nano == 99


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("amount_usd", {"amount": 0}),
        ("amount_usd", {"amount": -5}),
        ("amount_usd", {"amount": 1.5}),
        ("amount_usd", {"amount": MAX_NANO}),
        ("ends_at", {"ends_at": datetime(2027, 3, 10, 11, tzinfo=UTC)}),
        ("ends_at", {"ends_at": datetime(2029, 3, 10, tzinfo=UTC)}),
        (
            "ends_at",
            {"starts_at": datetime(2027, 3, 12, tzinfo=UTC), "ends_at": datetime(2027, 3, 11, tzinfo=UTC)},
        ),
        ("reason", {"reason": " "}),
    ],
)
def test_what_makes_no_sense_is_refused_by_field(db: None, field: str, values: dict[str, Any]) -> None:
    budget = budget_of()
    with no_event(), pytest.raises(InvalidRequest) as refusal:
        asked(budget, **values)
    assert refusal.value.param == field


def test_an_archived_or_soft_budget_is_not_raised(cast: SimpleNamespace) -> None:
    budget, soft = budget_of(), budget_of(hard=False)
    row = asked(budget)
    with no_event(), pytest.raises(Conflict, match="soft"):
        asked(soft)
    services.archive_budget(COMMAND, budget_id=budget.pk)
    with no_event(), pytest.raises(Conflict, match="archived"):
        approve(cast, row)
    assert not Raise.objects.exists()


def test_the_api_and_the_inbox(cast: SimpleNamespace) -> None:
    budget = budget_of(20 * NANO, slug="support-month", scope_kind="project", scope_value="support")
    bob, carla = signed_in(cast.bob), signed_in(cast.carla)
    url = f"/api/v1/budgets/{budget.pk}/raises/"
    until = (timezone.now() + timedelta(hours=5)).isoformat()
    told = bob.post(
        url, {"amount_usd": "5", "ends_at": until, "reason": "launch"}, content_type="application/json"
    )
    assert told.status_code == 202, told.json()
    request_id, seen = told.json()["request_id"], told.json()["digest"]
    page = f"/admin/approvals/request/{request_id}/"
    assert "Approve" not in bob.get(f"{page}change/").content.decode().replace("Approvals", "").replace(
        "approve", ""
    )
    shown = carla.get(f"{page}approve/").content.decode()
    for part in ("support-month", "$20.00 now, $25.00 meanwhile", "launch", "bob", seen):
        assert part in shown
    stale = carla.post(f"{page}approve/", {"seen": "0" * 64, "reason": ""})
    assert stale.status_code == 200 and "not what you were shown" in stale.content.decode()
    assert carla.post(f"{page}approve/", {"seen": seen, "reason": "go"}).status_code == 302
    gauge = carla.get(f"/api/v1/budgets/{budget.pk}/").json()["gauge"]
    assert (gauge["limit_usd"], gauge["raised_usd"]) == ("25.00", "5.00")
    assert [one["approved_by"] for one in bob.get(url).json()] == ["carla"]
    # The request leads to the budget, whose page says both limits and leads to the calls of its periods.
    asked_page = carla.get(f"{page}change/").content.decode()
    assert f'href="/admin/budgets/budget/{budget.pk}/change/">support-month</a>' in asked_page
    services.open_window(budget_id=budget.pk, at=timezone.now())
    shown = carla.get(f"/admin/budgets/budget/{budget.pk}/change/").content.decode()
    ends = f"{datetime.fromisoformat(until):%d %b %Y %H:%M} UTC"
    assert re.search(rf"limit of \$20\.00 is raised to \$25\.00 until <time [^>]*>{ends}</time>", shown)
    found = [unescape(one) for one in re.findall(r'href="(/calls/[^"]*)"', shown) if "from=" in one]
    every, refused = (dict(parse_qsl(urlsplit(one).query)) for one in found)
    assert every["project"] == str(budget.project_id) and every["from"].startswith("2027-03-01T00:00")
    assert refused == every | {"status": "refused", "error": "insufficient_quota"}
    for one in found:
        assert "is not a moment" not in bob.get(one).content.decode()
    history = carla.get(f"/admin/budgets/budget/{budget.pk}/history/").content.decode()
    assert "raise" in history
