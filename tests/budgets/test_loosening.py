"""A budget that only two may loosen: tightened by one, loosened by nobody alone, through whatever door."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from console.declarative import apply_text
from llmops.approvals.services import decide
from llmops.base.live import LIVE_STATE, versions
from llmops.base.requests import user_actor
from llmops.budgets import services
from llmops.budgets.models import Budget
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, ConsoleError, InvalidRequest, PermissionDenied
from llmops.core.money import NANO
from tests.budgets.test_raises import lease, present
from tests.cast import COMMAND, bearer, issue, no_event, one_event, person, signed_in

ASKER = Actor("user", "987654", "Olga")


@pytest.fixture(autouse=True)
def olga(db: None) -> None:
    person("olga", ("operator", None), pk=987654)


@pytest.fixture
def strict(cast: SimpleNamespace) -> Budget:
    return services.create_budget(
        COMMAND,
        slug="strict",
        scope_kind="project",
        scope_value="support",
        limit_nano=5 * NANO,
        second_person=True,
    )


def ask(budget: Budget, what: str = "limit", **known: Any) -> Any:
    return services.ask_loosening(ASKER, budget_id=budget.pk, what=what, reason="it is needed", **known)


@pytest.mark.parametrize("change", [{"limit_nano": 6 * NANO}, {"hard": False}, {"second_person": False}])
def test_nobody_loosens_it_alone(strict: Budget, change: dict[str, Any]) -> None:
    with no_event(), pytest.raises(Conflict, match="takes a second person"):
        services.update_budget(COMMAND, budget_id=strict.pk, **change)
    # Not along with something that is allowed, either.
    with no_event(), pytest.raises(Conflict):
        services.update_budget(COMMAND, budget_id=strict.pk, thresholds=[1], **change)
    with no_event(), pytest.raises(Conflict, match="takes a second person"):
        services.archive_budget(COMMAND, budget_id=strict.pk)


def test_one_person_makes_it_tighter(strict: Budget) -> None:
    with one_event("budget.changed"):
        services.update_budget(COMMAND, budget_id=strict.pk, limit_nano=4 * NANO, thresholds=[50])
    plain = services.create_budget(COMMAND, slug="plain", scope_kind="organisation", limit_nano=1)
    with one_event("budget.changed"):
        services.update_budget(COMMAND, budget_id=plain.pk, second_person=True, limit_nano=9)


def test_two_raise_the_limit_for_good(cast: SimpleNamespace, strict: Budget) -> None:
    assert lease(strict, 9 * NANO) == 5 * NANO
    with one_event("budget.loosen_requested"):
        row = ask(strict, limit_nano=8 * NANO)
    strict.refresh_from_db()
    assert strict.limit_nano == 5 * NANO
    with no_event(), pytest.raises(PermissionDenied):
        decide(ASKER, request_id=row.pk, approves=True, seen=row.digest)
    before = versions()[LIVE_STATE]
    with one_event("budget.loosen_approved") as seen:
        decide(user_actor(cast.root), request_id=row.pk, approves=True, seen=row.digest)
    assert seen.event.after["limit_usd"] == "8.00"
    assert versions()[LIVE_STATE] > before
    strict.refresh_from_db()
    assert strict.limit_nano == present(strict).limit_nano == 8 * NANO
    assert lease(strict, 9 * NANO) == 3 * NANO


def test_what_was_approved_is_done_or_nothing(cast: SimpleNamespace, strict: Budget) -> None:
    row = ask(strict, limit_nano=8 * NANO)
    services.update_budget(COMMAND, budget_id=strict.pk, limit_nano=2 * NANO)
    with no_event(), pytest.raises(Conflict, match="another one by now"):
        decide(user_actor(cast.root), request_id=row.pk, approves=True, seen=row.digest)
    for what, field, value in (("soft", "hard", False), ("rule", "second_person", False)):
        row = ask(strict, what)
        decide(user_actor(cast.root), request_id=row.pk, approves=True, seen=row.digest)
        strict.refresh_from_db()
        assert getattr(strict, field) is value
    with no_event(), pytest.raises(Conflict, match="takes no second person"):
        ask(strict, "archive")


def test_two_archive_it(cast: SimpleNamespace, strict: Budget) -> None:
    row = ask(strict, "archive")
    decide(user_actor(cast.root), request_id=row.pk, approves=True, seen=row.digest)
    strict.refresh_from_db()
    assert strict.archived_at is not None


@pytest.mark.parametrize(
    ("what", "known", "field"),
    [("limit", {}, "limit_usd"), ("limit", {"limit_nano": 5 * NANO}, "limit_usd"), ("all", {}, "what")],
)
def test_what_cannot_be_asked_for(strict: Budget, what: str, known: dict[str, Any], field: str) -> None:
    with no_event(), pytest.raises(InvalidRequest) as refused:
        ask(strict, what, **known)
    assert refused.value.param == field


def test_every_door_says_so(cast: SimpleNamespace, strict: Budget) -> None:
    key = bearer(issue(cast.support, "budgets", "read").secret)
    address = f"/api/v1/budgets/{strict.pk}/"
    assert key.get(address).json()["second_person"] is True
    with no_event():
        refused = key.patch(address, {"limit_usd": "6"}, content_type="application/json")
        assert refused.status_code == 409 and "second person" in refused.content.decode()
        assert key.delete(address).status_code == 409
    text = """
version: 1
budgets:
  - {name: strict, scope: "project:support", limit_usd: "%s", hard: true}
"""
    with no_event(), pytest.raises(ConsoleError, match="second person"):
        apply_text(COMMAND, text=text % "6.00", reason="more")
    # A file that does not speak of the rule leaves it.
    apply_text(COMMAND, text=text % "4.00", reason="less")
    strict.refresh_from_db()
    assert (strict.limit_nano, strict.second_person) == (4 * NANO, True)
    page = signed_in(cast.root).get(f"/admin/budgets/budget/{strict.pk}/change/").content.decode()
    assert "Ask to loosen" in page and "/archive/" not in page
