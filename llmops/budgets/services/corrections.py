"""What people find out afterwards: what a call really cost, and what of a lost lease was spent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction

from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.budgets.models import Budget, Explanation, Lease, Overrun, Window
from llmops.budgets.periods import bounds
from llmops.budgets.services.booking import settle_free
from llmops.budgets.services.windows import locked_window, save_amounts
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest, NotFound
from llmops.core.money import format_usd


@dataclass(frozen=True, slots=True)
class Charged:
    """What stands in a window for a call: what was settled of its hold, and beside it (nanodollars)."""

    held: int
    cost: int
    overrun: int


def lock_windows(window_ids: Iterable[int], soft: Iterable[UUID], *, at: datetime) -> None:
    """Lock every window that a correction touches, in the order in which the ingester does: of two neither waits for the other.

    ``soft`` are budgets whose window of ``at`` is meant.
    """
    found = set(window_ids)
    for budget in Budget.objects.filter(pk__in=list(soft)):
        starts_at, _ = bounds(budget.period, budget.timezone, at)
        found.update(Window.objects.filter(budget=budget, starts_at=starts_at).values_list("pk", flat=True))
    rows = Window.objects.select_for_update(of=("self",)).filter(pk__in=found).order_by("pk")
    list(rows.values_list("pk", flat=True))


def correct_windows(
    charged: Mapping[int, Charged], cost: int, *, call_id: UUID, who: str
) -> dict[int, Charged]:
    """Let every window of a call say what the call really cost in all; what then stands in each.

    As when the call had ended so: at most its hold is settled, the rest is overrun. Where a window has no room any more for what
    has to be added, that is overrun, too. Windows that do not exist any more are left out. Part of the caller's transaction.
    """
    found: dict[int, Charged] = {}
    for window_id in sorted(charged):
        before = charged[window_id]
        try:
            window, budget = locked_window(window_id)
        except NotFound:
            continue
        wanted = min(cost, before.held)
        more = wanted - before.cost
        beyond = settle_free(window, budget, more) if more > 0 else 0
        if more <= 0:
            window.settled_nano = max(0, window.settled_nano + more)
        settled = wanted - beyond
        after = Charged(before.held, settled, cost - settled)
        window.corrected_nano += after.cost - before.cost
        if after.overrun != before.overrun:
            window.overrun_nano += after.overrun - before.overrun
            Overrun.objects.create(
                window=window,
                call_id=call_id,
                amount_nano=after.overrun - before.overrun,
                cause=f"corrected by {who}"[:200],
                at=database_now(),
            )
        save_amounts(window, budget)
        found[window_id] = after
    return found


def correct_soft(
    budget_ids: Mapping[UUID, int], beyond: Mapping[UUID, int], *, at: datetime, call_id: UUID
) -> dict[UUID, int]:
    """Add to what soft budgets were charged for a call in the period of ``at``, or (below zero) take from it.

    ``beyond`` is what of earlier corrections found no room, where a budget was made hard meanwhile, and so is the answer: what
    is taken back comes from there first, because it was never settled.
    """
    stands: dict[UUID, int] = {}
    for budget_id in sorted(budget_ids):
        budget = Budget.objects.filter(pk=budget_id).first()
        if budget is None:
            continue
        starts_at, _ = bounds(budget.period, budget.timezone, at)
        pk = Window.objects.filter(budget=budget, starts_at=starts_at).values_list("pk", flat=True).first()
        if pk is None:
            continue
        window, budget = locked_window(pk)
        before = window.settled_nano
        delta, held = budget_ids[budget_id], beyond.get(budget_id, 0)
        if delta > 0:
            over = settle_free(window, budget, delta)
        else:
            over = -min(-delta, held, window.overrun_nano)
            window.settled_nano = max(0, before + delta - over)
        if over:
            window.overrun_nano += over
            cause = "a correction without room" if over > 0 else "a correction without room, taken back"
            Overrun.objects.create(
                window=window, call_id=call_id, amount_nano=over, cause=cause, at=database_now()
            )
        stands[budget_id] = held + over
        window.corrected_nano += window.settled_nano - before
        save_amounts(window, budget)
    return stands


def explain_lease(actor: Actor, *, lease_id: int, spent_nano: int, reason: str) -> Lease:
    """Say what of a lease that was charged whole was really spent; the rest is free again in its window.

    Should the journal turn up after all, what it says takes the place of what the person said.
    """
    reason = reason.strip()
    if not reason:
        raise InvalidRequest("reason: say how you know; it goes into the audit trail.", param="reason")
    with transaction.atomic():
        found = Lease.objects.filter(pk=lease_id).first()
        if found is None:
            raise NotFound("There is no such lease.")
        window, budget = locked_window(found.window_id)
        row = Lease.objects.get(pk=lease_id)
        if row.state != Lease.FORFEITED:
            raise Conflict(
                f"This lease is {row.get_state_display().lower()}; there is nothing to explain any more."
            )
        charged = row.outstanding_nano
        if isinstance(spent_nano, bool) or not isinstance(spent_nano, int) or not 0 <= spent_nano <= charged:
            raise InvalidRequest(
                f"spent_usd: from 0 to the ${format_usd(charged)} that were charged.", param="spent_usd"
            )
        row.returned_nano += charged - spent_nano
        row.state = Lease.EXPLAINED
        row.save(update_fields=["returned_nano", "state"])
        window.settled_nano -= charged - spent_nano
        window.unattributed_nano -= charged
        save_amounts(window, budget)
        Explanation.objects.create(
            lease=row, charged_nano=charged, spent_nano=spent_nano, reason=reason, by_name=actor.name[:200]
        )
        record(
            actor,
            action="budget.lease_explained",
            object_type="budgets.budget",
            object_id=budget.pk,
            object_name=budget.slug,
            project_id=budget.project_id,
            before={"unattributed_usd": format_usd(charged)},
            after={
                "spent_usd": format_usd(spent_nano),
                "journal": str(row.journal_id),
                "window_starts_at": window.starts_at.isoformat(),
            },
            reason=reason,
        )
    return row
