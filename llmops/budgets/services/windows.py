"""Finding, opening and locking windows; what may be spent in them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from llmops.base.clock import database_now
from llmops.budgets.models import Budget, Raise, Window
from llmops.budgets.periods import bounds
from llmops.budgets.services.thresholds import note_crossings, note_refusal
from llmops.core.errors import NotFound
from llmops.core.money import MAX_NANO


def locked_window(window_id: int) -> tuple[Window, Budget]:
    """The window's row, locked until the transaction ends, and its budget as it is after the lock was got."""
    window = Window.objects.select_for_update(of=("self",)).filter(pk=window_id).order_by().first()
    if window is None:
        raise NotFound(f"There is no budget window {window_id}.")
    # A second query on purpose: a join would show the budget as it was before the wait for the lock.
    return window, Budget.objects.get(pk=window.budget_id)


def ceiling(window: Window, budget: Budget) -> int:
    """The limit that a window of ``budget`` has as the budget is now: its own, what was carried over, and what it is
    raised by at this moment."""
    return min(MAX_NANO, budget.limit_nano + window.carried_nano + raised_by(budget))


def raised_by(budget: Budget, now: datetime | None = None) -> int:
    """The sum of the raises that are in force; costs a query only while there is one."""
    if budget.raised_until is None:
        return 0
    now = now or database_now()
    if budget.raised_until <= now:
        return 0
    inside = Raise.objects.filter(budget_id=budget.pk, starts_at__lte=now, ends_at__gt=now)
    # Not summed by the database: there are few, and a sum beyond its integers would stop every lease.
    return sum(inside.values_list("amount_nano", flat=True))


def spendable_limit(window: Window, budget: Budget) -> int:
    """What may be settled and leased in all. Of a present window what the budget says now, though its row follows later; a
    past one keeps the limit that it had."""
    limit = ceiling(window, budget)
    if window.limit_nano < limit and not is_current(window):
        limit = window.limit_nano
    return limit - window.passed_on_nano


def follow_limit(window: Window, budget: Budget) -> None:
    """Bring a locked window's limit to where it belongs now, as far as what is used allows. Past windows keep theirs."""
    if not is_current(window):
        return
    limit = ceiling(window, budget)
    window.limit_nano = max(limit, window.used_nano) if window.hard else limit


def save_amounts(window: Window, budget: Budget, *, refused_at: int | None = None) -> None:
    """Write a locked window's amounts; its limit follows the budget's, down as far as they allow. ``refused_at`` is the
    limit under which it had too little for a call."""
    limit = window.limit_nano
    if window.hard and limit != (wanted := ceiling(window, budget)) and is_current(window):
        follow_limit(window, budget)
        limit = wanted
    note_crossings(window, budget, limit)
    if refused_at is not None and window.hard:
        note_refusal(window, budget, refused_at)
    window.save(
        update_fields=[
            "limit_nano",
            "settled_nano",
            "leased_nano",
            "overrun_nano",
            "unattributed_nano",
            "corrected_nano",
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
    present = Budget.objects.select_for_update().get(pk=budget.pk)
    return Window.objects.get_or_create(
        budget=present,
        starts_at=starts_at,
        defaults={"ends_at": ends_at, "hard": present.hard, "limit_nano": present.limit_nano},
    )[0]


def open_window_row(budget_id: UUID, at: datetime) -> tuple[Window, Budget]:
    with transaction.atomic():
        budget = Budget.objects.filter(pk=budget_id).first()
        if budget is None:
            raise NotFound(f"There is no budget {budget_id}.")
        return window_at(budget, at), budget
