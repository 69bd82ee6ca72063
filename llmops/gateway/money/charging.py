"""What an attempt costs: by its answer's tokens, by its failure, or by what was held for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llmops.core.tokens import count_text
from llmops.gateway.attempts.failures import Failure
from llmops.gateway.money.holding import output_bound
from llmops.usage.records import Tokens

if TYPE_CHECKING:
    from llmops.gateway.attempts.trial import Trial
    from llmops.gateway.call import Call

UNKNOWN_BILL = "the bill is not known: charged at its hold"
ESTIMATED = "no usage was sent: tokens were counted"
UNDERSTATED = "the provider's usage says less than the answer holds: tokens were counted"
UNDERSTATED_INPUT = "the provider's usage says less than the request holds: tokens were counted"


def of_answer(trial: Trial, tokens: Tokens, *, charge_hold: bool) -> int:
    holding = trial.holding
    if charge_hold:
        trial.record.note = UNKNOWN_BILL
        return holding.worst
    cost = cost_of(trial, tokens)
    if tokens.estimated:
        # What was merely counted can not have cost more than the worst case.
        cost = min(cost, holding.worst)
        trial.record.note = ESTIMATED
    if trial.stated is not None:
        cost = max(cost, trial.stated)
        trial.record.note = "; ".join(trial.doubts)
    return cost


def cost_of(trial: Trial, tokens: Tokens) -> int:
    prices = trial.holding.prices
    if prices is not None and tokens.tier:
        prices = prices.of_tier(tokens.tier)
    return prices.cost(tokens) if prices is not None else 0


def of_failure(trial: Trial, failure: Failure) -> int:
    record = trial.record
    record.code = code_of(failure)
    record.status = failure.status
    if failure.tokens is not None:
        return cost_of(trial, failure.tokens)
    if failure.billed is None:
        record.note = UNKNOWN_BILL
        return trial.holding.worst
    return 0


def code_of(failure: Failure) -> str:
    """A short code of a failure for records and charts; few different ones, whatever providers send."""
    if failure.kind == "status":
        known = (
            "context_length_exceeded",
            "rate_limit_exceeded",
            "insufficient_quota",
            "content_filter",
            "content_policy_violation",
        )
        return failure.code if failure.code in known else f"upstream_{failure.status}"
    return f"upstream_{failure.kind}"


async def count(call: Call, trial: Trial, text: str) -> Tokens:
    """Tokens of an answer without usage, counted beside the loop; the bounds when even that is cut short."""
    asked, target = call.asked, trial.step.target
    assert asked is not None
    model = target.entry.upstream_model
    if trial.holding.prices is None and not text:
        return Tokens(input=call.endpoint.input_bound(asked, target), estimated=True)
    try:
        counted, output = await call.plane.off_loop(
            lambda: (call.endpoint.count_input(asked, target), count_text(text, model) if text else 0),
            size=asked.size + len(text),
        )
    except (asyncio.CancelledError, RuntimeError):
        return Tokens(
            input=call.endpoint.input_bound(asked, target),
            output=min(
                len(text.encode("utf-8", "replace")), output_bound(asked, target.entry, trial.holding.cap)
            ),
            estimated=True,
        )
    return Tokens(input=counted, output=output, estimated=True)
