"""Carry-over: what a period left over goes on into the next, at most the budget's cap, each nanodollar once.

Money is moved, not copied: what the new window may spend more, the old one can never spend. So it may be moved bit by
bit, as leases of the old window come back, and by anybody, any number of times.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from uuid import UUID

from django.db import transaction

from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.budgets.models import Budget, Window
from llmops.budgets.periods import ONCE, bounds
from llmops.budgets.services.windows import save_amounts, window_at
from llmops.core.actors import job_actor

#: Periods without a window (nobody called, nothing ran) that are made up for.
_FURTHEST_BACK = 62
_INSTANT = timedelta(microseconds=1)


def carry_over(*, budget_id: UUID, now: datetime | None = None) -> int:
    """Move what is free in the period before the present one; how much was moved just now (nanodollars).

    A period in which nobody asked for money left all of it over: its window is made now, if the budget was there then.
    """
    now = now or database_now()
    budget = Budget.objects.filter(pk=budget_id, archived_at=None, hard=True, carry_over_nano__gt=0).first()
    if budget is None or budget.period == ONCE:
        return 0
    moments = _periods(budget, now)
    if len(moments) < 2:
        return 0
    moved = 0
    with transaction.atomic():
        windows = [window_at(budget, moment) for moment in moments]
    for earlier, later in pairwise(windows):
        moved = _move(earlier.pk, later.pk, now)
    return moved


def carry_over_all(now: datetime | None = None) -> int:
    """For every budget that carries over; how much was moved."""
    budgets = Budget.objects.filter(archived_at=None, hard=True, carry_over_nano__gt=0).exclude(period=ONCE)
    return sum(
        carry_over(budget_id=pk, now=now) for pk in budgets.order_by("pk").values_list("pk", flat=True)
    )


def _periods(budget: Budget, now: datetime) -> list[datetime]:
    """The starts of the periods from the last one with a window (or the budget's first) to the present one."""
    starts_at, _ = bounds(budget.period, budget.timezone, now)
    known = set(
        Window.objects.filter(budget=budget)
        .order_by("-starts_at")
        .values_list("starts_at", flat=True)[:_FURTHEST_BACK]
    )
    found = [starts_at]
    while len(found) < _FURTHEST_BACK and found[-1] > budget.created_at:
        found.append(bounds(budget.period, budget.timezone, found[-1] - _INSTANT)[0])
        if found[-1] in known:
            break
    return found[::-1]


def _move(earlier_id: int, later_id: int, now: datetime) -> int:
    with transaction.atomic():
        both = Window.objects.select_for_update(of=("self",)).filter(pk__in=(earlier_id, later_id))
        windows = {window.pk: window for window in both.order_by("pk")}
        earlier, later = windows[earlier_id], windows[later_id]
        budget = Budget.objects.get(pk=earlier.budget_id)
        if earlier.ends_at is None or earlier.ends_at > now or not (earlier.hard and later.hard):
            return 0
        # Without what it was raised by: a raise is for its time, and what is left of it goes.
        own = min(earlier.limit_nano, budget.limit_nano + earlier.carried_nano)
        free = own - earlier.used_nano
        amount = min(budget.carry_over_nano - later.carried_nano, free)
        if amount <= 0:
            return 0
        earlier.passed_on_nano += amount
        later.carried_nano += amount
        save_amounts(earlier, budget)
        save_amounts(later, budget)
        record(
            job_actor("budgets.carry_over"),
            action="budget.carried_over",
            object_type="budgets.budget",
            object_id=budget.pk,
            object_name=budget.slug,
            project_id=budget.project_id,
            after={
                "from_window": earlier.starts_at.isoformat(),
                "to_window": later.starts_at.isoformat(),
                "amount_nano": amount,
                "carried_nano": later.carried_nano,
            },
            reason="The period before left it over.",
        )
        return amount
