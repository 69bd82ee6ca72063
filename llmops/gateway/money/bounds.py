"""What a caller lets one call cost at most, all its attempts together: ``x-llmops-max-cost-nano``, in nanodollars.

What policies ask of moderation models for the call is within it: before the call it is taken from what is left, and what may have to
be asked about an answer is put aside before that is asked for.

A budget is the operator's word; this is the caller's own (a run that may cost so much has so much left for its next turn). It is kept as
a hard budget is: by the worst cost, before anything is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmops.core.errors import InvalidRequest, UnpricedModel, UnprocessableEntity
from llmops.core.money import format_usd
from llmops.gateway.money.cost_headers import BOUND

if TYPE_CHECKING:
    from llmops.gateway.call import Call
    from llmops.gateway.endpoints.base import Asked
    from llmops.gateway.routing import Target

HEADER = BOUND
NAME = HEADER.decode()
_DIGITS = 16


def most(call: Call) -> int:
    """Raises ``InvalidRequest`` for what is no number of nanodollars."""
    raw = call.headers[HEADER].strip()
    if not raw.isdigit() or len(raw) > _DIGITS:
        raise InvalidRequest(
            f"{NAME}: a whole number of nanodollars, such as 50000000 for 5 cents.", param=NAME
        )
    return int(raw)


def left(call: Call) -> int:
    """What of it is left for what comes next. Raises as ``most`` does."""
    return most(call) - call.cost - call.aside


def exceeded(left: int, needed: int) -> UnprocessableEntity:
    return UnprocessableEntity(
        f"{NAME} leaves ${format_usd(max(left, 0))} for this, and it may cost up to ${format_usd(needed)}. Let it cost more, or send "
        "a smaller request, with a lower cap of output tokens.",
        code="cost_bound_exceeded",
        param=NAME,
    )


def judging_exceeded(left: int, model: str) -> UnprocessableEntity:
    return UnprocessableEntity(
        f"{NAME} leaves ${format_usd(max(left, 0))} for this, and what a policy asks the moderation model {model!r} about it may cost "
        "more. Let it cost more, or send a smaller request.",
        code="cost_bound_exceeded",
        param=NAME,
    )


def unpriced(target: Target) -> UnpricedModel:
    return UnpricedModel(
        f"The model {target.slug!r} has no price, so {NAME} cannot be kept. Give it a price in the console and publish, or leave "
        "the bound out.",
        param="model",
    )


def unmetered(asked: Asked) -> UnprocessableEntity:
    return UnprocessableEntity(
        f"The request has {asked.unmetered}: that is billed by other measures than the tokens of this call, so {NAME} cannot be "
        "kept. Leave one of the two out.",
        code="not_metered",
    )


def never_known(what: str) -> UnprocessableEntity:
    """``what``: a call whose cost is known when it is over, and not before."""
    return UnprocessableEntity(
        f"{NAME} cannot be kept for {what}: what it costs is only known when it has ended. Leave the header out.",
        code="not_metered",
        param=NAME,
    )
