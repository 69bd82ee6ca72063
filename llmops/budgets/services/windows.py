"""Finding, opening and locking windows."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from llmops.base.clock import database_now
from llmops.budgets.models import Budget, Window
from llmops.budgets.periods import bounds
from llmops.core.errors import NotFound


def locked_window(window_id: int) -> tuple[Window, Budget]:
    """The window's row, locked until the transaction ends, and its budget as it is after the lock was got."""
    window = Window.objects.select_for_update(of=("self",)).filter(pk=window_id).order_by().first()
    if window is None:
        raise NotFound(f"There is no budget window {window_id}.")
    # A second query on purpose: a join would show the budget as it was before the wait for the lock.
    return window, Budget.objects.get(pk=window.budget_id)


def spendable_limit(window: Window, budget: Budget) -> int:
    """What may be settled and leased in all: a lowered budget counts at once, though the window's row follows later."""
    return min(window.limit_nano, budget.limit_nano)


def save_amounts(window: Window, budget: Budget) -> None:
    """Write a locked window's amounts; a limit that was lowered comes down as far as they allow."""
    if window.limit_nano > budget.limit_nano and window.hard and is_current(window):
        window.limit_nano = max(budget.limit_nano, window.settled_nano + window.leased_nano)
    window.save(
        update_fields=["limit_nano", "settled_nano", "leased_nano", "overrun_nano", "unattributed_nano"]
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
