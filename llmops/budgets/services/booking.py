"""Moving what calls cost from leased to settled, in the ingester's transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction

from llmops.base.clock import database_now
from llmops.budgets.models import Budget, Lease, Overrun, Window
from llmops.budgets.periods import bounds
from llmops.budgets.services.leases import release
from llmops.budgets.services.thresholds import still_to_tell
from llmops.budgets.services.windows import locked_window, save_amounts, spendable_limit, window_at
from llmops.core.errors import NotFound

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WindowCharge:
    """What was spent of holds on one window, and what it cost beyond them (nanodollars)."""

    window_id: int
    cost: int
    overrun: int = 0


@dataclass(frozen=True, slots=True)
class SoftCharge:
    """What a call that began ``at`` cost a soft budget, which nothing was held on."""

    budget_id: UUID
    at: datetime
    cost: int


@dataclass(frozen=True, slots=True)
class OverrunOfCall:
    """What a call cost beyond its hold on a window (nanodollars), and why."""

    window_id: int
    call_id: UUID
    amount: int
    cause: str
    at: datetime


@dataclass(slots=True)
class _Sum:
    leased: int = 0
    free: int = 0
    overrun: int = 0
    #: the limit under which it had too little for a call
    refused_at: int | None = None


def book(
    *,
    journal_id: UUID,
    charges: Iterable[WindowCharge] = (),
    soft: Iterable[SoftCharge] = (),
    overruns: Iterable[OverrunOfCall] = (),
    refusals: Mapping[int, int] | None = None,
    closing: bool = False,
) -> None:
    """Settle what a journal's calls cost; part of the caller's transaction, which makes it happen once.

    With ``closing`` the rest of every lease of the journal goes back and the leases end. Charges that exceed the lease
    (which no data plane makes) are settled as far as the window has room; what then is left is overrun, so that the
    constraint cannot stop the journal. ``refusals`` are windows that had too little for a call, and the limits that they had then. Windows and budgets that no longer exist are passed over and logged.
    """
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("book() is part of a transaction: wrap the caller in transaction.atomic()")
    causes: dict[int, list[OverrunOfCall]] = {}
    for one in overruns:
        causes.setdefault(one.window_id, []).append(one)
    sums: dict[int, _Sum] = {}
    for window_id, cost in _soft_windows(soft).items():
        sums.setdefault(window_id, _Sum()).free += cost
    for charge in charges:
        found = sums.setdefault(charge.window_id, _Sum())
        found.leased += charge.cost
        found.overrun += charge.overrun
    for window_id, limit in still_to_tell(refusals).items() if refusals else ():
        sums.setdefault(window_id, _Sum()).refused_at = limit
    if closing:
        ours = Lease.objects.filter(journal_id=journal_id).exclude(state=Lease.CLOSED)
        for window_id in ours.values_list("window_id", flat=True):
            sums.setdefault(window_id, _Sum())
    for window_id in sorted(sums):
        try:
            _book_one(window_id, journal_id, sums[window_id], closing)
            _note_overruns(window_id, sums[window_id].overrun, causes.get(window_id, []))
        except NotFound:
            log.error(
                "Charges of journal %s name the budget window %s, which does not exist", journal_id, window_id
            )


def close_leases(journal_id: UUID) -> None:
    """Give back what is left of the leases of a journal that is booked to its end, and end them."""
    with transaction.atomic():
        book(journal_id=journal_id, closing=True)


def _book_one(window_id: int, journal_id: UUID, amounts: _Sum, closing: bool) -> None:
    window, budget = locked_window(window_id)
    row = Lease.objects.filter(window_id=window_id, journal_id=journal_id).first()
    rest = amounts.leased
    if row is not None:
        paid = min(rest, row.outstanding_nano)
        row.consumed_nano += paid
        if row.state == Lease.FORFEITED:
            # Charged whole before: the money is settled already, now it is known what for.
            window.unattributed_nano -= paid
        elif row.state == Lease.OPEN:
            window.leased_nano -= paid
            window.settled_nano += paid
        rest -= paid
    if rest:
        log.error(
            "Journal %s spent %s nanodollars of window %s that it had not leased", journal_id, rest, window_id
        )
    if row is not None:
        if closing and row.state != Lease.CLOSED:
            back = row.outstanding_nano
            row.returned_nano += back
            release(row, window, back)
            row.state = Lease.CLOSED
        row.save(update_fields=["returned_nano", "consumed_nano", "state"])
    amounts.overrun += settle_free(window, budget, rest + amounts.free)
    window.overrun_nano += amounts.overrun
    save_amounts(window, budget, refused_at=amounts.refused_at)


def settle_free(window: Window, budget: Budget, amount: int) -> int:
    """Settle money nobody had leased: all of it on a soft window, what there is room for on a hard one. What there is no
    room for."""
    beyond = 0
    if window.hard:
        room = max(0, spendable_limit(window, budget) - window.settled_nano - window.leased_nano)
        beyond = max(0, amount - room)
    window.settled_nano += amount - beyond
    return beyond


def _note_overruns(window_id: int, amount: int, causes: list[OverrunOfCall]) -> None:
    """One row for each call; what no call is named for (money that was spent without a lease) has one of its own."""
    rest = amount - sum(one.amount for one in causes)
    rows = [
        Overrun(
            window_id=window_id, call_id=one.call_id, amount_nano=one.amount, cause=one.cause[:200], at=one.at
        )
        for one in causes
    ]
    if rest:
        cause = "charged where nothing was held, and there was no room left"
        rows.append(Overrun(window_id=window_id, amount_nano=rest, cause=cause, at=database_now()))
    if rows:
        Overrun.objects.bulk_create(rows)


def _soft_windows(charges: Iterable[SoftCharge]) -> dict[int, int]:
    by_budget: dict[UUID, list[SoftCharge]] = {}
    for charge in charges:
        by_budget.setdefault(charge.budget_id, []).append(charge)
    sums: dict[int, int] = {}
    for budget_id in sorted(by_budget):
        budget = Budget.objects.filter(pk=budget_id).first()
        if budget is None:
            log.error("Calls name the budget %s, which does not exist", budget_id)
            continue
        for starts_at, cost in _by_period(budget, by_budget[budget_id]).items():
            window = window_at(budget, starts_at)
            sums[window.pk] = sums.get(window.pk, 0) + cost
    return sums


def _by_period(budget: Budget, charges: list[SoftCharge]) -> dict[datetime, int]:
    costs: dict[datetime, int] = {}
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    for charge in sorted(charges, key=lambda charge: charge.at):
        if starts_at is None or (ends_at is not None and charge.at >= ends_at):
            starts_at, ends_at = bounds(budget.period, budget.timezone, charge.at)
        costs[starts_at] = costs.get(starts_at, 0) + charge.cost
    return costs
