"""Finding, opening and locking windows; what may be spent in them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from llmops.base.clock import database_now
from llmops.budgets.models import Budget, Window
from llmops.budgets.periods import bounds
from llmops.budgets.services.thresholds import note_crossings
from llmops.core.errors import NotFound


def locked_window(window_id: int) -> tuple[Window, Budget]:
    """The window's row, locked until the transaction ends, and its budget as it is after the lock was got."""
    window = Window.objects.select_for_update(of=("self",)).filter(pk=window_id).order_by().first()
    if window is None:
        raise NotFound(f"There is no budget window {window_id}.")
    # A second query on purpose: a join would show the budget as it was before the wait for the lock.
    return window, Budget.objects.get(pk=window.budget_id)


def ceiling(window: Window, budget: Budget) -> int:
    """The limit that a window of ``budget`` has as the budget is now: its own, and what was carried over."""
    return budget.limit_nano + window.carried_nano


def spendable_limit(window: Window, budget: Budget) -> int:
    """What may be settled and leased in all: a lowered budget counts at once, though the window's row follows later."""
    return min(window.limit_nano, ceiling(window, budget)) - window.passed_on_nano


def follow_limit(window: Window, budget: Budget) -> None:
    """Bring a locked window's limit to where it belongs now, as far as what is used allows. Past windows keep theirs."""
    if not is_current(window):
        return
    limit = ceiling(window, budget)
    window.limit_nano = max(limit, window.used_nano) if window.hard else limit


def save_amounts(window: Window, budget: Budget) -> None:
    """Write a locked window's amounts; a limit that was lowered comes down as far as they allow."""
    if window.hard and window.limit_nano != ceiling(window, budget):
        follow_limit(window, budget)
    note_crossings(window, budget)
    window.save(
        update_fields=[
            "limit_nano",
            "settled_nano",
            "leased_nano",
            "overrun_nano",
            "unattributed_nano",
            "carried_nano",
            "passed_on_nano",
            "crossed_percent",
        ]
    )


def is_current(window: Window) -> bool:
    return window.ends_at is None or window.ends_at > database_now()


def window_at(budget: Budget, at: datetime) -> Window:
    """The window of ``budget`` that holds ``at``, made when it is not there; needs a transaction."""
    starts_at, ends_at = bounds(budget.period, budget.timezone, at)
    window = Window.objects.filter(budget_id=budget.pk, starts_at=starts_at).first()
    if window is not None:
        return window
    # The lock makes a change of the budget's limit wait, which would otherwise miss the new window.
    now = Budget.objects.select_for_update().get(pk=budget.pk)
    return Window.objects.get_or_create(
        budget=now,
        starts_at=starts_at,
        defaults={"ends_at": ends_at, "hard": now.hard, "limit_nano": now.limit_nano},
    )[0]


def open_window_row(budget_id: UUID, at: datetime) -> tuple[Window, Budget]:
    with transaction.atomic():
        budget = Budget.objects.filter(pk=budget_id).first()
        if budget is None:
            raise NotFound(f"There is no budget {budget_id}.")
        return window_at(budget, at), budget
