"""How a call ends that is not answered: cancelled, given up by its plan, refused by the console."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from llmops.core.errors import (
    BudgetExceeded,
    ConsoleError,
    InvalidRequest,
    ServiceUnavailable,
    UpstreamTimeout,
)
from llmops.gateway import settle
from llmops.gateway.attempts import last_resort
from llmops.gateway.attempts.failures import STATUS, TIMEOUT, TOO_LONG, Failure
from llmops.gateway.attempts.trial import Trial
from llmops.gateway.call import Call
from llmops.gateway.endpoints.base import Asked
from llmops.gateway.errors import error_body, error_headers
from llmops.gateway.money import charging, estimating
from llmops.gateway.streaming.events import Relay
from llmops.gateway.streaming.relaying import goes_on, in_background, keep_items, partial_tokens
from llmops.usage.records import Tokens


async def cancelled(call: Call, trial: Trial, relay: Relay | None) -> Failure:
    """The attempt was cancelled: its time is over, the client is gone, or the server stops.

    Returns the failure of a time-out that another attempt might mend; raises otherwise, with everything settled.
    """
    reason = call.watch.reason
    call.watch.caught()
    if trial.settled or trial.followed:
        # The answer was complete and accounted for; only its last bytes did not reach the client.
        raise asyncio.CancelledError
    if reason == "deadline":
        return Failure(TIMEOUT, "the time for the whole call is over", billed=None if trial.sent else False)
    status, code = (
        (settle.CLIENT_CLOSED, "client_closed")
        if reason == "client"
        else (settle.INTERRUPTED, "server_closed")
    )
    if trial.record.status not in (0, 200):
        # The provider had refused already.
        settle.failed(call, trial, Failure(STATUS, "", status=trial.record.status))
        raise asyncio.CancelledError
    if relay is not None:
        keep_items(call, trial, relay)
    if goes_on(call, relay):
        assert relay is not None
        call.plane.background.follow(call, trial, relay.id)
        if reason == "shutdown" and call.started_sending:
            call.begun = True
            await call.send_piece(call.error_event(shutting_down()), last=True)
        raise asyncio.CancelledError
    if not trial.sent:
        tokens, unknown = Tokens(), False
    elif relay is None:
        # Whether the provider goes on without us, and how far it came, nobody tells.
        tokens, unknown = Tokens(), True
    else:
        tokens = await partial_tokens(call, trial, relay)
        # Work in the background goes on, also when it had not said its name yet.
        unknown = tokens.estimated and (in_background(call) or estimating.hides(call, trial, relay.thought))
    settle.answered(
        call,
        trial,
        tokens,
        relay,
        charge_hold=unknown,
        status=status,
        code=code,
        http=settle.CLIENT_CLOSED_STATUS if reason == "client" else 200 if call.started_sending else 503,
    )
    if reason == "shutdown" and call.started_sending:
        call.begun = True
        await call.end_with(shutting_down())
    raise asyncio.CancelledError


async def give_up(call: Call, trial: Trial, failure: Failure) -> None:
    """The last failure becomes the answer: the provider's own words for what the caller did wrong, ours otherwise."""
    assert call.asked is not None
    error = failure.error(trial.step.target, param=input_member(call.asked))
    code = charging.code_of(failure) if failure.kind == STATUS else error.code
    if not failure.callers_own and last_resort.has_one(call):
        if not trial.settled:
            settle.failed(call, trial, failure)
        if await last_resort.answered(call, error.message):
            return
    if call.started_sending:
        # Comments kept the client waiting in a stream; only an event can tell it now.
        settle.gave_up(call, trial, failure, http=200, code=code)
        await call.send_piece(call.error_event(error), last=True)
        return
    status, body = error.status, error_body(error)
    # What the context window is, is said in one way, whatever the provider's words.
    if failure.callers_own and failure.body is not None and failure.code != TOO_LONG:
        status, body = failure.status, failure.body
    call.bytes_out = len(body)
    settle.gave_up(call, trial, failure, http=status, code=code)
    await call.send_whole(status, body, headers=error_headers(error))


def input_member(asked: Asked) -> str:
    """The member of the body that holds what the model is given."""
    return "messages" if "messages" in asked.members else "input"


async def refuse_broken_body(call: Call) -> None:
    """A body whose framing is broken ends like a client that hung up, but its client may still read an answer."""
    error = InvalidRequest("The body broke off, or its chunks are not well formed.", code="invalid_body")
    # Some servers raise when the client really is gone; then nobody is left to be told.
    with suppress(Exception):
        await call.send_error(error)


async def refuse(call: Call, error: ConsoleError) -> None:
    """The console itself refuses or fails."""
    last = b"" if call.sound else call.error_event(error) if call.started_sending else error_body(error)
    call.bytes_out += len(last)
    status = settle.status_of(call, error)
    settle.never_sent(
        call,
        status=status,
        http=error.status,
        code=error.code,
        message=error.message,
        short=error.data.get("shortage") if isinstance(error, BudgetExceeded) else None,
    )
    call.bytes_out -= len(last)
    if call.started_sending:
        await call.end_with(error)
    else:
        await call.send_error(error)


def shutting_down() -> ConsoleError:
    return ServiceUnavailable("This server is shutting down; the answer is not complete.", retry_after=1)


def out_of_time(call: Call) -> ConsoleError:
    assert call.asked is not None
    return UpstreamTimeout(
        f"No answer for {call.asked.model!r} within the time that its route allows. Try again, ask for a shorter answer or a "
        "stream, or ask an operator to raise the route's total time-out."
    )
