"""A hard budget that is used up says so, until when, and what one can do."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from django.db import transaction
from django.utils import timezone

from llmops.budgets import services
from llmops.budgets.models import Budget
from llmops.budgets.selectors import Gauge, gauges
from llmops.budgets.wording import used_up_text
from llmops.core.money import NANO
from tests.cast import COMMAND, issue, signed_in
from tests.dashboards import seed

LIMIT = NANO // 100


def budget_in(cast: SimpleNamespace, slug: str = "one-cent", **known: Any) -> Budget:
    values: dict[str, Any] = {
        "scope_kind": "project",
        "scope_value": "support",
        "limit_nano": LIMIT,
        "period": "day",
    }
    return services.create_budget(COMMAND, slug=slug, **(values | known))


def spend(budget: Budget, cost: int, *, refused: bool = False, held: int = 0) -> None:
    window_id = services.open_window(budget_id=budget.pk, at=timezone.now()).window_id
    journal = uuid4()
    if budget.hard:
        services.lease(window_id=window_id, journal_id=journal, need=cost, want=cost, lease_seconds=60)
    with transaction.atomic():
        services.book(
            journal_id=journal,
            charges=[services.WindowCharge(window_id, cost)] if cost else [],
            refusals={window_id: budget.limit_nano} if refused else {},
            closing=True,
        )
    if held:
        services.lease(window_id=window_id, journal_id=uuid4(), need=0, want=held, lease_seconds=60)


def a_call(cast: SimpleNamespace) -> None:
    """Until there was one, Overview shows the first steps."""
    cast.keys = {"support": issue(cast.support).key}
    seed.store([seed.make_call(cast, timezone.now())])


def gauge_of(budget: Budget) -> Gauge:
    return next(one for one in gauges(None, timezone.now()) if one.budget_id == budget.pk)


def words(page: Any) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page.content.decode()).split())


def test_it_is_used_up_once_it_refuses_with_next_to_nothing_left(cast: SimpleNamespace) -> None:
    budget = budget_in(cast)
    spend(budget, LIMIT // 2, refused=True)
    assert not gauge_of(budget).used_up, "a call was too large, and half is left"
    spend(budget, LIMIT // 2 - 500)
    found = gauge_of(budget)
    assert found.used_up and found.refused_at is not None
    assert used_up_text(found) == f"used up: calls are refused until {found.resets_at:%Y-%m-%d} 00:00 UTC"
    services.update_budget(COMMAND, budget_id=budget.pk, limit_nano=2 * LIMIT)
    assert not gauge_of(budget).used_up


def test_what_is_held_may_come_back_and_what_is_spent_does_not(cast: SimpleNamespace) -> None:
    held, spent = budget_in(cast, "held"), budget_in(cast, "spent", period="once", at_limit_route="")
    spend(held, 1, held=LIMIT - 1)
    spend(spent, LIMIT)
    soft = budget_in(cast, "soft", hard=False)
    spend(soft, LIMIT)
    assert [gauge_of(one).used_up for one in (held, spent, soft)] == [False, True, False]
    assert gauge_of(held).left_nano == 0
    assert used_up_text(gauge_of(spent)) == "used up: calls are refused until its limit is raised"
    assert used_up_text(gauge_of(soft)) == ""


def test_the_overview_names_it_first_and_until_when(cast: SimpleNamespace) -> None:
    soft = budget_in(cast, "a-soft-one", hard=False)
    spend(soft, 2 * LIMIT)
    budget = budget_in(cast)
    spend(budget, LIMIT - 500, refused=True)
    a_call(cast)
    page = signed_in(cast.alice).get("/")
    view = page.context["view"]
    assert [(one.name, one.tone) for one in view.gauges] == [("one-cent", "bad"), ("a-soft-one", "warn")]
    assert view.findings[0].text.startswith("Budget one-cent is used up: calls are refused until ")
    text = words(page)
    assert "Used up: calls are refused until" in text and "&gt; 99.9 %" in text.replace("\u2009", " ")


@pytest.mark.parametrize(
    ("name", "second_person", "told"),
    [
        ("alice", False, "Raise the limit below: it works at once"),
        ("alice", True, "A higher limit takes a second person. Ask for a raise"),
        ("bob", False, "Ask for a raise: it holds for a while"),
        ("dan", False, "Ask somebody who manages budgets in the project support"),
    ],
)
def test_its_page_says_what_who_looks_can_do(
    cast: SimpleNamespace, name: str, second_person: bool, told: str
) -> None:
    budget = budget_in(cast, second_person=second_person)
    spend(budget, LIMIT - 500, refused=True)
    text = words(signed_in(getattr(cast, name)).get(f"/admin/budgets/budget/{budget.pk}/change/"))
    assert "Used up: calls are refused" in text and told in text
    assert "The first call was refused" in text and "The next period starts" in text


def test_its_page_and_the_list_round_as_the_overview_does(cast: SimpleNamespace) -> None:
    budget = budget_in(cast)
    spend(budget, LIMIT // 1000 * 99)
    a_call(cast)
    alice = signed_in(cast.alice)
    for address in ("/", "/admin/budgets/budget/", f"/admin/budgets/budget/{budget.pk}/change/"):
        text = words(alice.get(address)).replace("\u2009", " ")
        assert "9.9 %" in text and "used up" not in text.lower(), address
