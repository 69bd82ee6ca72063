"""More money for a while, which one person asks for and another approves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from llmops.approvals.kinds import Kind
from llmops.approvals.models import Request
from llmops.approvals.services import ask
from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.base.live import LIVE_STATE, touch
from llmops.budgets import rules
from llmops.budgets.models import Budget, Raise, Window
from llmops.budgets.periods import ONCE
from llmops.budgets.selectors import scope_text
from llmops.budgets.services.windows import locked_window, raised_by, save_amounts
from llmops.core.actors import Actor, job_actor
from llmops.core.errors import Conflict, NotFound
from llmops.core.money import format_usd

#: The kind of approval, as ``settings.APPROVAL_KINDS`` names it.
RAISE = "budget.raise"


def ask_raise(
    actor: Actor,
    *,
    budget_id: UUID,
    amount_nano: int,
    ends_at: datetime,
    starts_at: datetime | None = None,
    reason: str,
) -> Request:
    """Ask for ``amount_nano`` more until ``ends_at``. Nothing changes until another person approves.

    Raises ``InvalidRequest`` naming the field, ``Conflict`` for a budget that is archived or soft.
    """
    with transaction.atomic():
        budget = _raisable(Budget.objects.select_for_update(of=("self",)).filter(pk=budget_id).first())
        now = database_now()
        starts_at = max(starts_at, now) if starts_at else now
        rules.checked_raise(amount_nano, starts_at, ends_at, now=now, limit_nano=_limit_raised(budget, now))
        content = {
            "budget": str(budget.pk),
            "for": what_for(budget),
            "amount_nano": amount_nano,
            "starts_at": starts_at.isoformat(),
            "ends_at": ends_at.isoformat(),
        }
        return ask(
            actor,
            kind=RAISE,
            title=f"Raise the budget {budget.slug} by ${format_usd(amount_nano)} until {ends_at:%d %b %Y %H:%M} UTC",
            content=content,
            object_type="budgets.budget",
            object_id=budget.pk,
            object_name=budget.slug,
            project_id=budget.project_id,
            reason=reason,
            latest=ends_at,
        )


def _describe(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    budget = Budget.objects.filter(pk=content["budget"]).first()
    starts_at, ends_at = _moments(content)
    amount = int(content["amount_nano"])
    lines = [("Budget", budget.slug if budget else "one that does not exist any more")]
    if budget is not None:
        now = budget.limit_nano + raised_by(budget)
        lines += [
            ("For", str(content.get("for") or what_for(budget))),
            ("Limit", f"${format_usd(now)} now, ${format_usd(now + amount)} meanwhile"),
        ]
    lines += [
        ("Raised by", f"${format_usd(amount)}"),
        ("From", f"{starts_at:%d %b %Y %H:%M} UTC, or when it is approved, if that is later"),
        ("Until", f"{ends_at:%d %b %Y %H:%M} UTC"),
    ]
    return lines


def _execute(actor: Actor, request_id: UUID, content: Mapping[str, Any]) -> dict[str, Any]:
    """The raise is in force from now on, or from its start. Part of the approval's transaction."""
    budget = _raisable(
        Budget.objects.select_for_update(of=("self",)).filter(pk=UUID(str(content["budget"]))).first()
    )
    refuse_moved(budget, content)
    request = Request.objects.get(pk=request_id)
    starts_at, ends_at = _moments(content)
    now = database_now()
    starts_at = max(starts_at, now)
    limit = _limit_raised(budget, now)
    rules.checked_raise(content["amount_nano"], starts_at, ends_at, now=now, limit_nano=limit)
    Raise.objects.create(
        budget=budget,
        amount_nano=content["amount_nano"],
        starts_at=starts_at,
        ends_at=ends_at,
        reason=request.reason,
        asked_by=request.requested_by_name,
        approved_by=actor.name[:200],
        request_id=request_id,
    )
    budget.raised_until = max(budget.raised_until, ends_at) if budget.raised_until else ends_at
    budget.save(update_fields=["raised_until", "updated_at"])
    _follow(budget, now)
    touch(LIVE_STATE)
    return {
        "raised_by_usd": format_usd(content["amount_nano"]),
        "starts_at": starts_at.isoformat(),
        "ends_at": ends_at.isoformat(),
    }


KIND = Kind(
    name=RAISE, permission="budget.approve", asks="budget.request", describe=_describe, execute=_execute
)


def end_raises(now: datetime | None = None) -> int:
    """Bring the limits of budgets down whose last raise is over; how many.

    Nothing waits for this: what may be leased follows the clock. It is for the record, and for what pages show.
    """
    now = now or database_now()
    ended = 0
    for pk in Budget.objects.filter(raised_until__lte=now).order_by("pk").values_list("pk", flat=True):
        with transaction.atomic():
            budget = Budget.objects.select_for_update(of=("self",)).get(pk=pk)
            if budget.raised_until is None or budget.raised_until > now:
                continue
            budget.raised_until = None
            budget.save(update_fields=["raised_until", "updated_at"])
            _follow(budget, now)
            record(
                job_actor("budgets.end_raises"),
                action="budget.raise_ended",
                object_type="budgets.budget",
                object_id=budget.pk,
                object_name=budget.slug,
                project_id=budget.project_id,
                after={"limit_usd": format_usd(budget.limit_nano)},
                reason="The time it was raised for is over.",
            )
            ended += 1
    return ended


def _follow(budget: Budget, now: datetime) -> None:
    windows = Window.objects.filter(budget=budget, starts_at__lte=now).exclude(ends_at__lte=now)
    for pk in windows.order_by("pk").values_list("pk", flat=True):
        window, present = locked_window(pk)
        save_amounts(window, present)


def what_for(budget: Budget) -> str:
    """What the budget holds and how long, in words that a request is bound to."""
    period = budget.period if budget.period == ONCE else f"each {budget.period} ({budget.timezone})"
    return f"{scope_text(budget)}, {period}"


def refuse_moved(budget: Budget, content: Mapping[str, Any]) -> None:
    """What was asked for and approved is more money for what the budget was for then. Raises ``Conflict``."""
    if content.get("for", what_for(budget)) != what_for(budget):
        raise Conflict(
            f"The budget {budget.slug} is for something else by now: {what_for(budget)}. Reject this and have it asked for again."
        )


def _limit_raised(budget: Budget, now: datetime) -> int:
    """The limit with every raise that is not over, were they all in force at once."""
    return budget.limit_nano + sum(
        Raise.objects.filter(budget=budget, ends_at__gt=now).values_list("amount_nano", flat=True)
    )


def _raisable(budget: Budget | None) -> Budget:
    if budget is None:
        raise NotFound("There is no such budget.")
    if budget.archived_at is not None:
        raise Conflict(f"The budget {budget.slug} is archived; there is nothing to raise.")
    if not budget.hard:
        raise Conflict(f"The budget {budget.slug} is soft: it refuses nothing, so it needs no raise.")
    return budget


def _moments(content: Mapping[str, Any]) -> tuple[datetime, datetime]:
    return datetime.fromisoformat(content["starts_at"]), datetime.fromisoformat(content["ends_at"])
