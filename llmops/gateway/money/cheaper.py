"""A call that no longer fits into a hard budget, by the cheaper route that the budget names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmops.core.errors import ConsoleError
from llmops.gateway.attempts.resilience import Plan, Step
from llmops.gateway.routing import Budgets, Resolution
from llmops.gateway.suiting import suit
from llmops.serving.snapshot import BudgetEntry

if TYPE_CHECKING:
    from llmops.gateway.call import Call


class Turned(Exception):
    """The call is to go on by ``resolution``: ``budget`` has too little left for it as it was asked. ``refusal`` is what the
    caller is told when nothing there can be used either."""

    def __init__(self, resolution: Resolution, budget: BudgetEntry, refusal: ConsoleError) -> None:
        super().__init__(budget.slug)
        self.resolution = resolution
        self.budget = budget
        self.refusal = refusal


def way_out(call: Call, budgets: Budgets, needed: int) -> tuple[Resolution, BudgetEntry] | None:
    """Where the call can go instead: what the first of the budgets that lack ``needed`` says. None: nowhere, or it went
    already, or what it goes on from lies at one provider."""
    asked, resolution = call.asked, call.resolution
    assert asked is not None and resolution is not None
    if call.turned is not None or asked.refers:
        return None
    for budget in budgets:
        if not budget.at_limit_route or call.plane.purse.left((budget,)) >= needed:
            continue
        found = call.view.cheaper(resolution, budget.at_limit_route)
        if found is not None and suit((*found.targets, *found.fallbacks), call.endpoint.capability):
            return found, budget
    return None


def turn(call: Call, turned: Turned, now: float) -> tuple[Plan, Step]:
    """The plan and first step by the cheaper route, inside the same deadline and all budgets. Raises the refusal when that route has
    nothing that can be used."""
    before, origin = call.plan, call.origin
    assert before is not None and origin is not None
    resolution = call.resolution = turned.resolution
    call.turned = turned.budget
    call.budgets = call.view.budgets(resolution, feature=origin.feature, user=call.user, tags=origin.tags)
    plan = call.plan = Plan(
        resolution,
        before.snapshot,
        before.breakers,
        before.deadline,
        sticky=before.sticky,
        credentials=before.credentials,
        need=before.need,
        # The attempt that was not made counts for nothing.
        attempts=before.attempts - 1,
    )
    try:
        step = plan.first(now)
    except ConsoleError:
        raise turned.refusal from None
    why = f"the budget {turned.budget.slug!r} has too little left: by the route {turned.budget.at_limit_route!r}"
    step.why = f"{why}; {step.why}" if step.why else why
    return plan, step
