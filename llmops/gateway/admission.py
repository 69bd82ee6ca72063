"""Whether a call may go upstream: limits of its key and project, and money held on every budget it touches.

The hold is the worst case: an upper bound of the input and the capped output at the target's dearest prices. The bytes of
the request bound its tokens for free; they are counted exactly, off the loop, only when the bound does not fit. What still
does not fit waits a moment for money that other calls hold, then gets a lower output cap, or is refused.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING

from llmops.budgets.escrow import Hold
from llmops.core.errors import BudgetExceeded, RateLimited, UnpricedModel, UnprocessableEntity
from llmops.core.money import format_usd
from llmops.gateway.call import Call
from llmops.gateway.endpoints import making
from llmops.gateway.endpoints.base import BILLED, FREE, Asked, Endpoint
from llmops.gateway.money import bounds
from llmops.gateway.money.bank import Short
from llmops.gateway.money.cheaper import Turned, way_out
from llmops.gateway.money.holding import Holding, output_bound, output_cap
from llmops.gateway.policing.opinions import INNER, put_aside
from llmops.gateway.routing import Budgets, Target
from llmops.gateway.suiting import check_suited
from llmops.gateway.throttling.limits import Limiteds, Ticket
from llmops.gateway.throttling.queueing import Gate
from llmops.providers.pricing import Prices
from llmops.providers.rules import FLEX
from llmops.usage.records import Shortage

if TYPE_CHECKING:
    from llmops.core.asgi import Message
    from llmops.gateway.attempts.resilience import Failure
    from llmops.gateway.attempts.trial import Trial

#: A cap lower than this is of no use to anybody; the call is refused instead (unless it asked for less itself).
LEAST_OUTPUT = 16
#: A refusal whose money is only held by other calls asks to come back this soon, in seconds.
SOON_S = 2.0


async def admit(call: Call, scope: Message) -> None:
    """Take a place under the limits of the call's key and project. What the console asks for a call is within that call's place.
    Raises ``RateLimited``."""
    asked, resolution = call.asked, call.resolution
    assert asked is not None and resolution is not None
    limited = resolution.limited
    if not limited or call.ticket is not None or INNER in scope:
        return
    if not resolution.counts_tokens:
        call.ticket = await ticket(call, limited, 0)
        return
    target = resolution.targets[0]
    output = 0
    if asked.units is not None:
        output = making.output_bound(call.endpoint, asked, target)
    elif call.endpoint.has_output:
        output = output_bound(asked, target.entry, output_cap(asked, target.entry))
    bound = call.endpoint.input_bound(asked, target)
    try:
        call.ticket = await ticket(call, limited, bound + output)
    except RateLimited as refusal:
        if not refusal.code.startswith("tokens"):
            raise
        counted = await call.plane.off_loop(lambda: call.endpoint.count_input(asked, target), size=asked.size)
        if counted >= bound:
            raise
        call.ticket = await ticket(call, limited, counted + output)


async def ticket(call: Call, limited: Limiteds, tokens: int) -> Ticket:
    """Leave for a call that may use ``tokens``. Raises ``RateLimited``."""
    assert call.key is not None
    shared = call.plane.shared_limits
    if shared is None:
        return call.plane.limits.admit(limited, tokens, time.time())
    return await shared.admit(limited, call.key.project_id, tokens, time.time(), call.id)


async def wait_for_place(call: Call, gate: Gate) -> None:
    """Take a place among the calls to a target when there is one; to be given back by ``leave``. Raises ``QueueFull``."""
    assert call.plan is not None and call.key is not None
    began = time.perf_counter()
    try:
        await gate.enter(call.priority, call.plan.deadline, call.key.project_id)
    finally:
        call.queue_us += int((time.perf_counter() - began) * 1_000_000)


def tell(call: Call, gate: Gate, trial: Trial, failure: Failure | None, beside: int) -> None:
    """Let the gate learn from how an attempt went, which was one of ``beside`` when it went in."""
    assert call.key is not None
    if failure is None:
        record = trial.record
        if trial.complete:
            took = record.total_us if record.ttft_us is None else record.ttft_us
            gate.answered(
                streamed=record.ttft_us is not None,
                seconds=took / 1_000_000,
                tokens=trial.output_tokens,
                project=call.key.project_id,
                beside=beside,
                ago=record.total_us / 1_000_000,
            )
    elif failure.overloaded:
        gate.overloaded(call.key.project_id)


async def hold(call: Call, target: Target) -> Holding:
    """Hold the worst cost of one attempt on all hard budgets or on none.

    Raises ``Turned`` when a budget names a cheaper route for what no longer fits, ``BudgetExceeded``, ``UnpricedModel``, or ``ServiceUnavailable`` when the budgets cannot be asked.
    """
    asked = call.asked
    assert asked is not None
    prices = target.prices.at(time.time())
    entry = target.entry
    budgets = call.budgets
    hard, soft = budgets, list[str]()
    for budget in budgets:
        if not budget.hard:
            hard = tuple([one for one in budgets if one.hard])
            soft = [one.id for one in budgets if not one.hard]
            break
    holding = Holding(prices, hard, soft)
    cap = output_cap(asked, entry) if call.endpoint.has_output else None
    if cap is not None and cap != asked.cap:
        holding.cap = cap
    if asked.unmetered and hard:
        raise _unmetered(asked, hard)
    bounded = bounds.HEADER in call.headers
    if asked.unmetered and bounded:
        raise bounds.unmetered(asked)
    if asked.billing == FREE or prices is None or not _pays(prices, call.endpoint, asked):
        if asked.billing == BILLED and (budgets or bounded):
            assert call.resolution is not None
            # What has no price for this may be for something else.
            check_suited(call.resolution, call.endpoint.capability)
            raise _unpriced(target, budgets) if budgets else bounds.unpriced(target)
        holding.prices = None
        return holding
    if asked.tier:
        if (hard or bounded) and asked.tier != FLEX and asked.tier not in prices.tiers:
            raise _unpriced_tier(target, asked.tier, _kept_by(hard))
        prices = prices.holding(asked.tier)
    output = output_bound(asked, entry, cap) if call.endpoint.has_output else 0
    if asked.units is not None and prices.by_tokens:
        under = _kept_by(hard) if hard or bounded else ""
        output = making.output_bound(call.endpoint, asked, target, under=under)
    bound = call.endpoint.input_bound(asked, target)
    holding.bound, holding.output = bound, output
    holding.worst = prices.worst_cost(bound, output, asked.uses, asked.units)
    if bounded:
        await _keep_within(call, target, holding, prices)
    if hard and holding.worst:
        holding.hold = call.plane.purse.hold_now(hard, holding.worst)
        if holding.hold is None:
            with call.plane.purse.weighing(hard):
                await _hold_slowly(call, target, holding, prices, holding.bound, holding.output)
    return holding


async def _keep_within(call: Call, target: Target, holding: Holding, prices: Prices) -> None:
    """Bring the worst cost within what the caller lets the call cost: count exactly; then lower the cap; then refuse."""
    asked = call.asked
    assert asked is not None and call.resolution is not None
    left = bounds.left(call) - put_aside(call, holding.output)
    if holding.worst <= left:
        call.spare = bounds.left(call) - holding.worst
        return
    bound = holding.bound = await call.plane.off_loop(
        lambda: call.endpoint.count_input(asked, target), size=asked.size
    )
    holding.worst = prices.worst_cost(bound, holding.output, asked.uses, asked.units)
    if holding.worst <= left:
        call.spare = bounds.left(call) - holding.worst
        return
    if call.resolution.route.clamp_output and holding.output and not asked.uncapped and asked.units is None:
        cap = _cap_within(left, asked, prices, bound)
        if cap is not None:
            holding.output = cap * asked.choices
            holding.worst = prices.worst_cost(bound, holding.output, asked.uses, asked.units)
            holding.cap, holding.clamped = cap, True
    if holding.worst > left:
        raise bounds.exceeded(left, holding.worst)
    call.spare = bounds.left(call) - holding.worst


async def _hold_slowly(
    call: Call, target: Target, holding: Holding, prices: Prices, bound: int, output: int
) -> None:
    """Ask for money; then count exactly; then wait for other calls; then lower the cap; then refuse."""
    purse, asked = call.plane.purse, call.asked
    assert asked is not None and call.resolution is not None
    began = time.perf_counter()
    try:
        found = await purse.hold(holding.hard, holding.worst, wait=False)
        if isinstance(found, Short):
            bound = await call.plane.off_loop(
                lambda: call.endpoint.count_input(asked, target), size=asked.size
            )
            holding.bound = bound
            holding.worst = prices.worst_cost(bound, output, asked.uses, asked.units)
            found = await purse.hold(holding.hard, holding.worst)
        if isinstance(found, Hold):
            holding.hold = found
            return
        if (way := way_out(call, holding.hard, holding.worst)) is not None:
            raise Turned(*way, _exceeded(found, holding.worst, time.time()))
        if call.resolution.route.clamp_output and output and call.endpoint.has_output and not asked.uncapped:
            cap = _affordable_cap(call, holding, prices, bound)
            if cap is not None:
                holding.output = cap * asked.choices
                holding.worst = prices.worst_cost(bound, holding.output, asked.uses, asked.units)
                holding.hold = purse.hold_now(holding.hard, holding.worst)
                holding.cap, holding.clamped = cap, True
        if holding.hold is None:
            raise _exceeded(found, holding.worst, time.time())
    finally:
        call.queue_us += int((time.perf_counter() - began) * 1_000_000)


def _affordable_cap(call: Call, holding: Holding, prices: Prices, bound: int) -> int | None:
    asked = call.asked
    assert asked is not None
    return _cap_within(call.plane.purse.left(holding.hard), asked, prices, bound)


def _cap_within(left: int, asked: Asked, prices: Prices, bound: int) -> int | None:
    """The output cap with which a call costs no more than ``left``; None where that leaves too little for an answer."""
    tokens = prices.affordable_output(left, bound, asked.uses)
    if tokens is None:
        return None
    cap = tokens // asked.choices
    least = LEAST_OUTPUT if asked.cap is None else min(LEAST_OUTPUT, asked.cap)
    return cap if cap >= least else None


def _pays(prices: Prices, endpoint: Endpoint, asked: Asked) -> bool:
    """Whether the prices say what a call costs: its tokens, or the units in which the model is billed instead."""
    units = asked.units
    if units is None:
        return prices.by_tokens and (prices.output is not None or not endpoint.has_output)
    return (
        (prices.by_tokens and prices.has_output(asked.uses))
        or (units.characters > 0 and prices.characters is not None)
        or (units.seconds > 0 and prices.seconds is not None)
        or (units.images > 0 and prices.images is not None)
    )


def _unmetered(asked: Asked, hard: Budgets) -> UnprocessableEntity:
    return UnprocessableEntity(
        f"The request has {asked.unmetered}: that is billed by other measures than the tokens of this call, so it cannot be "
        f"held under the hard budget {hard[0].slug!r}. Leave it out, or make a soft budget of it.",
        code="not_metered",
    )


def _kept_by(hard: Budgets) -> str:
    """What must not be exceeded, in words: a hard budget, or the caller's own bound."""
    return f"the hard budget {hard[0].slug!r}" if hard else bounds.NAME


def _unpriced_tier(target: Target, tier: str, under: str) -> UnpricedModel:
    """A dearer tier whose prices nobody knows; flex is cheaper, and held at the standard prices."""
    return UnpricedModel(
        f"service_tier: the model {target.slug!r} has no prices for the tier {tier!r}, so it cannot be called in it under "
        f"{under}. Ask for another tier, or give the model input and output prices for this one.",
        param="service_tier",
    )


def _unpriced(target: Target, budgets: Budgets) -> UnpricedModel:
    return UnpricedModel(
        f"The model {target.slug!r} has no price, so it cannot be called under the budget {budgets[0].slug!r}. "
        "Give it a price in the console and publish.",
        param="model",
    )


def _exceeded(short: Short, needed: int, now: float) -> BudgetExceeded:
    budget = short.budget
    resets, wait = "It does not reset: it has to be raised in the console.", None
    advice = "Ask whoever manages it for a raise, or send a smaller request."
    if short.ends is not None:
        when = datetime.fromtimestamp(short.ends, tz=UTC)
        resets, wait = f"It resets at {when:%Y-%m-%d %H:%M} UTC.", max(1.0, short.ends - now)
    held = ""
    shortage: Shortage | None = Shortage(short.window, short.limit)
    if short.limit - short.spent >= needed:
        # It fits once those calls have ended: the budget is not at its end.
        shortage = None
        held, wait = " The rest is held by calls under way: try again shortly.", SOON_S
        advice = ""
    left = max(0, min(short.left, short.limit))
    return BudgetExceeded(
        f"The budget {budget.slug!r} has ${format_usd(left)} of its ${format_usd(short.limit)} left, and this call may cost "
        f"up to ${format_usd(needed)}.{held} {resets} {advice}".rstrip(),
        retry_after=wait,
        data={
            "budget": budget.slug,
            "shortage": shortage,
            "left_nano": left,
            "needed_nano": needed,
            "resets": short.ends or inf,
        },
    )
