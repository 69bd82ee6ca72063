"""Making a budget looser for good, where that takes a second person: one asks, another approves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from llmops.approvals.kinds import Kind
from llmops.approvals.models import Request
from llmops.approvals.services import ask
from llmops.base.live import LIVE_STATE, touch
from llmops.budgets import rules
from llmops.budgets.models import Budget
from llmops.budgets.services.changes import apply_to_windows
from llmops.budgets.services.raises import refuse_moved, what_for
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest, NotFound
from llmops.core.money import format_usd

#: The kind of approval, as ``settings.APPROVAL_KINDS`` names it.
LOOSEN = "budget.loosen"
LIMIT, SOFT, ARCHIVE, RULE = "limit", "soft", "archive", "rule"
WHAT = [
    (LIMIT, "Raise its limit for good"),
    (SOFT, "Make it soft: it only tells"),
    (ARCHIVE, "Archive it"),
    (RULE, "Let one person loosen it from now on"),
]


def ask_loosening(
    actor: Actor, *, budget_id: UUID, what: str, limit_nano: int | None = None, reason: str
) -> Request:
    """Ask for ``what`` of ``WHAT``, a limit with the new ``limit_nano``. Nothing changes until another person approves.

    Raises ``InvalidRequest`` naming the field, ``Conflict`` for a budget that is archived or that one person may loosen.
    """
    if what not in dict(WHAT):
        raise InvalidRequest(f"what: one of {', '.join(name for name, _ in WHAT)}.", param="what")
    with transaction.atomic():
        budget = _loosenable(_locked(budget_id))
        content: dict[str, Any] = {"budget": str(budget.pk), "for": what_for(budget), "what": what}
        title = f"{dict(WHAT)[what]}: budget {budget.slug}"
        if what == LIMIT:
            content["limit_nano"] = _checked(budget, limit_nano)
            content["from_nano"] = budget.limit_nano
            title = f"Raise the limit of {budget.slug} from ${format_usd(budget.limit_nano)} to ${format_usd(content['limit_nano'])} for good"
        return ask(
            actor,
            kind=LOOSEN,
            title=title,
            content=content,
            object_type="budgets.budget",
            object_id=budget.pk,
            object_name=budget.slug,
            project_id=budget.project_id,
            reason=reason,
        )


def _describe(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    budget = Budget.objects.filter(pk=content["budget"]).first()
    lines = [
        ("Budget", budget.slug if budget else "one that does not exist any more"),
        ("For", str(content.get("for") or (what_for(budget) if budget else "?"))),
        ("What", dict(WHAT)[str(content["what"])]),
    ]
    if content["what"] == LIMIT:
        now = format_usd(budget.limit_nano) if budget else "?"
        lines.append(("Limit", f"${now} now, ${format_usd(content['limit_nano'])} from then on, each period"))
    return lines


def _execute(actor: Actor, request_id: UUID, content: Mapping[str, Any]) -> dict[str, Any]:
    """Done at once. Part of the approval's transaction."""
    budget = _loosenable(_locked(UUID(str(content["budget"]))))
    refuse_moved(budget, content)
    what = content["what"]
    told: dict[str, Any] = {"what": what}
    if what == LIMIT:
        if budget.limit_nano != content["from_nano"]:
            raise Conflict("The limit is another one by now. Reject this and have it asked for again.")
        budget.limit_nano = _checked(budget, content["limit_nano"])
        told["limit_usd"] = format_usd(budget.limit_nano)
    elif what == SOFT:
        budget.hard, budget.at_limit_route, budget.carry_over_nano = False, "", 0
    elif what == ARCHIVE:
        budget.archived_at = timezone.now()
    else:
        budget.second_person = False
    budget.save()
    if what in (LIMIT, SOFT):
        apply_to_windows(budget)
    touch(LIVE_STATE)
    return told


KIND = Kind(
    name=LOOSEN, permission="budget.approve", asks="budget.request", describe=_describe, execute=_execute
)


def _checked(budget: Budget, limit_nano: int | None) -> int:
    if limit_nano is None:
        raise InvalidRequest("limit_usd: say what the limit is to be.", param="limit_usd")
    limit_nano = rules.checked_limit(limit_nano)
    if limit_nano <= budget.limit_nano:
        raise InvalidRequest(
            f"limit_usd: the limit is ${format_usd(budget.limit_nano)} already. A lower one is set on the budget's own form.",
            param="limit_usd",
        )
    return limit_nano


def _locked(budget_id: UUID) -> Budget | None:
    return Budget.objects.select_for_update(of=("self",)).filter(pk=budget_id).first()


def _loosenable(budget: Budget | None) -> Budget:
    if budget is None:
        raise NotFound("There is no such budget.")
    if budget.archived_at is not None:
        raise Conflict(f"The budget {budget.slug} is archived; there is nothing to loosen.")
    if not budget.second_person:
        raise Conflict(f"The budget {budget.slug} takes no second person: change it on its own form.")
    return budget
