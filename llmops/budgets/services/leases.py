"""What a data-plane process's keeper calls: windows, leases, renewals; and what happens to leases nobody renews."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction

from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.budgets.models import Budget, Lease, Window
from llmops.budgets.services.carrying import carry_over
from llmops.budgets.services.windows import locked_window, open_window_row, save_amounts, spendable_limit
from llmops.core.actors import Actor, job_actor
from llmops.core.errors import Conflict, InvalidRequest, NotFound


@dataclass(frozen=True, slots=True)
class WindowState:
    """A window as it stands. ``ends_at`` is exclusive, None for a budget that never resets; amounts nanodollars."""

    window_id: int
    starts_at: datetime
    ends_at: datetime | None
    limit_nano: int
    settled_nano: int
    leased_nano: int
    hard: bool


@dataclass(frozen=True, slots=True)
class LeaseState:
    """A lease's three totals, which only grow, and its window's amounts at the same moment (nanodollars)."""

    granted_nano: int
    returned_nano: int
    consumed_nano: int
    state: str
    expires_at: datetime
    limit_nano: int
    settled_nano: int
    leased_nano: int


def open_window(*, budget_id: UUID, at: datetime) -> WindowState:
    """The window that holds ``at``, made on first use. Raises ``NotFound`` for a budget that does not exist."""
    window, budget = open_window_row(budget_id, at)
    if budget.carry_over_nano and carry_over(budget_id=budget_id):
        window.refresh_from_db()
    return WindowState(
        window_id=window.pk,
        starts_at=window.starts_at,
        ends_at=window.ends_at,
        limit_nano=spendable_limit(window, budget),
        settled_nano=window.settled_nano,
        leased_nano=window.leased_nano,
        hard=window.hard,
    )


def lease(
    *, window_id: int, journal_id: UUID, need: int, want: int, lease_seconds: int | float
) -> LeaseState:
    """Move money of the window to the journal's lease: ``want``, or what is left when that is less.

    ``need`` is the least that is of use; ``want`` smaller than it counts as ``need``. What is left may be less than
    the need, also nothing: the caller compares ``granted_nano`` with what it knew before. The lease then runs for
    ``lease_seconds`` from now. Raises ``Conflict`` when the journal is closed, ``NotFound`` for an unknown window.
    """
    if need < 0 or want < 0:
        raise InvalidRequest("need: an amount to lease must not be negative.", param="need")
    state, missing, budget = _lease(window_id, journal_id, max(need, want), lease_seconds)
    if missing and budget.carry_over_nano and carry_over(budget_id=budget.pk):
        state, _, _ = _lease(window_id, journal_id, missing, lease_seconds)
    return state


def _lease(
    window_id: int, journal_id: UUID, wanted: int, lease_seconds: int | float
) -> tuple[LeaseState, int, Budget]:
    with transaction.atomic():
        window, budget = locked_window(window_id)
        expires_at = database_now() + timedelta(seconds=lease_seconds)
        row, _ = Lease.objects.get_or_create(
            window=window, journal_id=journal_id, defaults={"expires_at": expires_at}
        )
        _revive(row, window)
        grant = wanted
        if window.hard:
            left = spendable_limit(window, budget) - window.settled_nano - window.leased_nano
            grant = max(0, min(grant, left))
        row.granted_nano += grant
        row.expires_at = expires_at
        row.save(update_fields=["granted_nano", "expires_at", "state"])
        window.leased_nano += grant
        save_amounts(window, budget)
        return _state(row, window, budget), wanted - grant, budget


def give_back(*, window_id: int, journal_id: UUID, amount: int) -> LeaseState:
    """Return ``amount`` of a lease. Raises ``Conflict`` when that is more than is outstanding.

    Not idempotent by itself: whoever lost the answer reads the lease again and compares ``returned_nano``.
    """
    if amount < 0:
        raise InvalidRequest("amount: an amount to give back must not be negative.", param="amount")
    with transaction.atomic():
        window, budget = locked_window(window_id)
        row = _lease_of(window_id, journal_id)
        if amount > row.outstanding_nano:
            raise Conflict(
                f"The lease has {row.outstanding_nano} nanodollars outstanding; {amount} cannot be given back."
            )
        row.returned_nano += amount
        row.save(update_fields=["returned_nano"])
        release(row, window, amount)
        save_amounts(window, budget)
        return _state(row, window, budget)


def read_lease(*, window_id: int, journal_id: UUID) -> LeaseState:
    """The lease as the database has it. Raises ``NotFound`` when this journal never leased from this window."""
    with transaction.atomic():
        window, budget = locked_window(window_id)
        return _state(_lease_of(window_id, journal_id), window, budget)


def renew_leases(*, journal_id: UUID, lease_seconds: int | float) -> dict[int, LeaseState]:
    """Let every lease of a living process run for ``lease_seconds`` from now; answers them by window.

    A lease that was charged whole meanwhile is put back as it was: its process turned out to live, and its journal
    tells what was spent of it.
    """
    states: dict[int, LeaseState] = {}
    windows = Lease.objects.filter(journal_id=journal_id).exclude(state=Lease.CLOSED)
    with transaction.atomic():
        for window_id in windows.order_by("window_id").values_list("window_id", flat=True):
            window, budget = locked_window(window_id)
            row = _lease_of(window_id, journal_id)
            if row.state == Lease.CLOSED:
                continue
            revived = _revive(row, window)
            row.expires_at = database_now() + timedelta(seconds=lease_seconds)
            row.save(update_fields=["state", "expires_at"])
            if revived:
                save_amounts(window, budget)
            states[window_id] = _state(row, window, budget)
    return states


def reap_leases(
    now: datetime | None = None, *, spare: Callable[[UUID], bool] = lambda journal_id: False
) -> list[UUID]:
    """Charge leases past their end whole, as unattributed, unless ``spare`` says that their journal is being read.

    Nobody knows what of them was spent, and their process no longer spends from them. Answers the journals concerned.
    """
    now = now or database_now()
    reaped: list[UUID] = []
    expired = Lease.objects.filter(state=Lease.OPEN, expires_at__lte=now).order_by("window_id", "pk")
    spared: dict[UUID, bool] = {}
    for pk, window_id, journal_id in list(expired.values_list("pk", "window_id", "journal_id")):
        if journal_id not in spared:
            spared[journal_id] = spare(journal_id)
        if not spared[journal_id] and _forfeit(pk, window_id, now):
            reaped.append(journal_id)
    return list(dict.fromkeys(reaped))


def _forfeit(pk: int, window_id: int, now: datetime) -> bool:
    with transaction.atomic():
        window, budget = locked_window(window_id)
        row = Lease.objects.filter(pk=pk, state=Lease.OPEN, expires_at__lte=now).first()
        if row is None:
            return False
        row.state = Lease.FORFEITED
        row.save(update_fields=["state"])
        amount = row.outstanding_nano
        window.leased_nano -= amount
        window.settled_nano += amount
        window.unattributed_nano += amount
        save_amounts(window, budget)
        if amount:
            _tell(job_actor("budgets.reap_leases"), budget, window, row, amount)
    return True


def _tell(actor: Actor, budget: Budget, window: Window, row: Lease, amount: int) -> None:
    record(
        actor,
        action="budget.lease_charged_whole",
        object_type="budgets.budget",
        object_id=budget.pk,
        object_name=budget.slug,
        project_id=budget.project_id,
        after={
            "window_starts_at": window.starts_at.isoformat(),
            "journal": str(row.journal_id),
            "unattributed_nano": amount,
        },
        reason="The lease ran out and nobody could read the journal of its process.",
    )


def release(row: Lease, window: Window, amount: int) -> None:
    """Take ``amount`` of a lease out of a locked window: from what is leased, or from what it was charged whole (or what a
    person said of that)."""
    if row.state == Lease.FORFEITED:
        window.settled_nano -= amount
        window.unattributed_nano -= amount
    elif row.state == Lease.EXPLAINED:
        window.settled_nano -= amount
    else:
        window.leased_nano -= amount


def _revive(row: Lease, window: Window) -> bool:
    if row.state == Lease.CLOSED:
        raise Conflict(
            f"The journal {row.journal_id} is closed; its process is taken for dead and may not spend."
        )
    if row.state == Lease.OPEN:
        return False
    amount = row.outstanding_nano
    release(row, window, amount)
    window.leased_nano += amount
    row.state = Lease.OPEN
    return True


def _lease_of(window_id: int, journal_id: UUID) -> Lease:
    row = Lease.objects.filter(window_id=window_id, journal_id=journal_id).first()
    if row is None:
        raise NotFound(f"The journal {journal_id} has no lease on the budget window {window_id}.")
    return row


def _state(row: Lease, window: Window, budget: Budget) -> LeaseState:
    return LeaseState(
        granted_nano=row.granted_nano,
        returned_nano=row.returned_nano,
        consumed_nano=row.consumed_nano,
        state=row.state,
        expires_at=row.expires_at,
        limit_nano=spendable_limit(window, budget),
        settled_nano=window.settled_nano,
        leased_nano=window.leased_nano,
    )
