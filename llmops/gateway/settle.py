"""Price an attempt, end its hold, write it down. Each attempt is settled exactly once, whatever becomes of it."""

from __future__ import annotations

import time
from functools import partial
from typing import Protocol

from llmops.core.errors import ConsoleError
from llmops.gateway.attempts.failures import Failure
from llmops.gateway.attempts.resilience import Step
from llmops.gateway.attempts.trial import Trial
from llmops.gateway.cache import MISS, Kept
from llmops.gateway.call import Call
from llmops.gateway.idempotency.lead import First
from llmops.gateway.money import charging
from llmops.gateway.money.holding import Holding
from llmops.usage.records import Charge, Ended, Held, HeldCharge, Origin, Outcome, Shortage, Tokens
from llmops.usage.signals import TRUNCATED

OK, ERROR, REFUSED, CLIENT_CLOSED, INTERRUPTED = "ok", "error", "refused", "client_closed", "interrupted"
CLIENT_CLOSED_STATUS = 499
#: How a call is recorded that got an earlier answer again under its ``Idempotency-Key``.
REPLAYED = "replayed"
#: The provider brought an answer to its end that says that it failed.
ANSWER_FAILED = "answer_failed"
_MAX_MESSAGE = 300
#: of a cap: how many tokens an answer must have that was cut off there, as providers count a few differently
_REACHED = 0.9
_FILTERED = "content_filter"


def begin(call: Call, step: Step, holding: Holding) -> Trial:
    """Write down that an attempt goes upstream. Raises ``ServiceUnavailable``; whatever it raises, nothing is held any more."""
    trial = Trial(call, step, holding)
    assert call.origin is not None
    held = holding.hold
    entry = step.target.entry
    record = Held(
        n=0,
        at=time.time_ns(),
        attempt=trial.record.n,
        origin=call.origin,
        model=entry.slug,
        model_version=entry.version,
        provider=entry.provider,
        charges=[HeldCharge(account.window, held.amount) for account in held.accounts] if held else [],
        soft=holding.soft,
        worst_cost=holding.worst,
        cap=holding.cap,
    )
    try:
        call.plane.journal.append(record)
    except BaseException:
        release(call, holding)
        raise
    call.attempts.append(trial.record)
    call.asks_with(step.credential.secret)
    call.retries += step.retry
    call.fallbacks += step.fallback and not step.retry
    if holding.cap is not None:
        call.cap_header = holding.cap
    return trial


def release(call: Call, holding: Holding) -> None:
    """Let go of money for an attempt that never went upstream."""
    if holding.hold is not None and not holding.hold.ended:
        call.plane.purse.settle(holding.hold, 0)


class Said(Protocol):
    """What an answer says about itself: a ``Relay`` or a ``Whole``."""

    @property
    def model(self) -> str: ...
    @property
    def finish(self) -> str: ...
    @property
    def failed(self) -> str: ...
    @property
    def tools(self) -> list[str]: ...


def answered(
    call: Call,
    trial: Trial,
    tokens: Tokens,
    said: Said | None,
    *,
    charge_hold: bool = False,
    status: str = OK,
    code: str = "",
    message: str = "",
    http: int = 200,
) -> None:
    """The attempt brought an answer, whole or in part: price its tokens and end the call."""
    cost = charging.of_answer(trial, tokens, charge_hold=charge_hold)
    record = trial.record
    if said is not None and said.failed and status == OK:
        status, code = ERROR, ANSWER_FAILED
        message = f"the provider's answer says that it failed: {said.failed[:100]}"
    if code:
        record.code = code
    outcome = _outcome(call, trial, status=status, http=http, code=code, message=message)
    outcome.tokens = tokens
    if said is not None:
        _finish(call, outcome, "" if call.hides(said.finish) else said.finish[:30])
        outcome.upstream_model = "" if call.hides(said.model) else said.model[:120]
        outcome.tools = said.tools if not said.tools else [one for one in said.tools if not call.hides(one)]
    if call.ticket is not None:
        call.ticket.correct(tokens.input + tokens.output)
    if tokens.reasoning:
        call.plane.thinking.add(record.model)
    trial.complete, trial.output_tokens = status == OK, tokens.output
    if status == OK or charge_hold or tokens.input or tokens.output:
        call.reached = True
    if (
        call.filling is not None
        and status == OK
        and not call.fallbacks
        and call.fitting is None
        and call.turned is None
        and outcome.finish != _FILTERED
    ):
        call.filling.kept = partial(_kept, call, trial, outcome, cost)
    _end(call, trial, cost, outcome)


def aside(call: Call, trial: Trial, tokens: Tokens, *, charge_hold: bool = False) -> None:
    """A call to a model on the way to the answer brought what it was made for; the call goes on."""
    trial.complete, trial.output_tokens = True, tokens.output
    _end(call, trial, charging.of_answer(trial, tokens, charge_hold=charge_hold), None)


def again(call: Call, kept: Kept) -> None:
    """The call is answered by an answer that is kept: it costs nothing, and saves what that one cost."""
    origin = call.origin
    assert origin is not None and not call.ended
    outcome = Outcome(
        status=OK,
        http=200,
        model=kept.model,
        model_version=kept.model_version,
        provider=kept.provider,
        upstream_model=kept.upstream_model,
        cache=call.cache_word.decode(),
        saved=kept.cost,
    )
    _fill(call, outcome)
    _finish(call, outcome, kept.finish)
    call.ended = call.reached = True
    call.plane.record_end(Ended(n=0, at=time.time_ns(), attempt=0, origin=origin, cost=0, outcome=outcome))


def repeated(call: Call, first: First) -> None:
    """The call is answered by what an earlier one under the same ``Idempotency-Key`` was answered with, free."""
    origin = call.origin
    assert origin is not None and not call.ended
    outcome = Outcome(
        status=first.outcome,
        http=first.status,
        code=first.code,
        message=f"the answer of call {first.call} again, under the same Idempotency-Key",
        model=first.model,
        model_version=first.model_version,
        provider=first.provider,
        upstream_model=first.upstream_model,
        cache=REPLAYED,
    )
    _fill(call, outcome)
    _finish(call, outcome, first.finish)
    call.ended = True
    call.plane.record_end(Ended(n=0, at=time.time_ns(), attempt=0, origin=origin, cost=0, outcome=outcome))


def resorted(call: Call, *, code: str, reason: str) -> None:
    """The call is answered by its route's last resort, after what was tried: that answer costs nothing."""
    origin, kept = call.origin, call.kept
    assert origin is not None and not call.ended
    outcome = Outcome(status=OK, http=200, code=code, message=reason[:_MAX_MESSAGE])
    _fill(call, outcome)
    if kept is not None:
        outcome.model, outcome.model_version, outcome.provider = kept.model, kept.model_version, kept.provider
        outcome.upstream_model = kept.upstream_model
        _finish(call, outcome, kept.finish)
        outcome.cache = call.cache_word.decode()
    outcome.upstream_us = sum(one.total_us for one in call.attempts) if call.attempts else None
    if call.ticket is not None:
        call.ticket.correct(0)
    call.ended = True
    call.plane.record_end(Ended(n=0, at=time.time_ns(), attempt=0, origin=origin, cost=0, outcome=outcome))


def _kept(call: Call, trial: Trial, outcome: Outcome, cost: int, body: bytes) -> Kept:
    entry, asked = trial.step.target.entry, call.asked
    return Kept(
        body=body,
        streamed=asked is not None and asked.stream,
        at=time.monotonic(),
        model=entry.slug,
        model_version=entry.version,
        provider=entry.provider,
        upstream_model=outcome.upstream_model,
        finish=outcome.finish,
        cost=cost,
    )


def failed(call: Call, trial: Trial, failure: Failure) -> None:
    """The attempt brought nothing; the call goes on, or ends by ``gave_up``, ``resorted`` or ``never_sent``."""
    if failure.billed is None or failure.tokens is not None:
        call.reached = True
    _end(call, trial, charging.of_failure(trial, failure), None)


def gave_up(call: Call, trial: Trial, failure: Failure, *, http: int, code: str) -> None:
    """The call ends with its last attempt's failure, settled already or not; ``http`` is the status the client gets."""
    if trial.settled:
        never_sent(call, status=ERROR, http=http, code=code, message=failure.message)
        return
    if failure.billed is None or failure.tokens is not None:
        call.reached = True
    cost = charging.of_failure(trial, failure)
    outcome = _outcome(call, trial, status=ERROR, http=http, code=code, message=failure.message)
    if call.ticket is not None:
        call.ticket.correct(0)
    _end(call, trial, cost, outcome)


#: What an operator has switched off is refused: nothing failed.
_SWITCHED_OFF = frozenset(("route_degraded", "route_paused", "provider_paused"))


def status_of(call: Call, error: ConsoleError) -> str:
    """How a call that ends with an error of the console's own is recorded."""
    if call.attempts:
        return ERROR
    return REFUSED if error.status < 500 or error.code in _SWITCHED_OFF else ERROR


def never_sent(
    call: Call, *, status: str, http: int, code: str, message: str, short: Shortage | None = None
) -> None:
    """The call ends without an attempt under way: refused, or given up between two attempts. ``short`` is of the hard budget
    that had too little left for it."""
    if call.ended or call.key is None:
        return
    origin = call.origin or origin_of(call)
    outcome = Outcome(status=status, http=http, code=code, message=message[:_MAX_MESSAGE])
    _fill(call, outcome)
    if call.attempts:
        last = call.attempts[-1]
        outcome.model, outcome.provider = last.model, last.provider
        outcome.upstream_us = sum(one.total_us for one in call.attempts)
    if call.ticket is not None:
        call.ticket.correct(0)
    call.ended = True
    call.plane.record_end(
        Ended(n=0, at=time.time_ns(), attempt=0, origin=origin, cost=0, outcome=outcome, short=short)
    )


def _end(call: Call, trial: Trial, cost: int, outcome: Outcome | None) -> None:
    assert not trial.settled and call.origin is not None
    trial.settled = True
    record, held = trial.record, trial.holding.hold
    record.cost = cost
    record.total_us = int((time.perf_counter() - trial.started) * 1_000_000)
    call.cost += cost
    charges: list[Charge] = []
    cause = ""
    if held is not None:
        spent, overrun = call.plane.purse.settle(held, cost)
        charges = [Charge(account.window, held.amount, spent, overrun) for account in held.accounts]
        if overrun:
            cause = _cause(trial, outcome)
            record.note = f"{record.note}; {cause}" if record.note else cause
    if outcome is not None:
        outcome.cost = call.cost
        outcome.provider_us = record.provider_us
        outcome.provider_request = record.provider_request
        outcome.upstream_us = (
            record.total_us if len(call.attempts) == 1 else sum(a.total_us for a in call.attempts)
        )
        call.ended = True
    call.plane.record_end(
        Ended(
            n=0,
            at=time.time_ns(),
            attempt=record.n,
            origin=call.origin,
            charges=charges,
            soft=trial.holding.soft,
            cost=cost,
            outcome=outcome,
            cause=cause,
        )
    )


def _cause(trial: Trial, outcome: Outcome | None) -> str:
    """Why an attempt cost more than was held for it, as far as its usage tells."""
    holding, tokens = trial.holding, outcome.tokens if outcome is not None else Tokens()
    if tokens.output > holding.output:
        return f"beyond its hold: {tokens.output} output tokens were billed and {holding.output} held"
    if tokens.input > holding.bound:
        return f"beyond its hold: {tokens.input} input tokens were billed and {holding.bound} held"
    if tokens.tier:
        return f"beyond its hold: it was served in the tier {tokens.tier!r}, which costs more than was held"
    return "beyond its hold: it was billed by more than was held"


def _outcome(call: Call, trial: Trial, *, status: str, http: int, code: str, message: str) -> Outcome:
    entry = trial.step.target.entry
    outcome = Outcome(
        status=status,
        http=http,
        model=entry.slug,
        model_version=entry.version,
        provider=entry.provider,
        code=code[:60],
        message=message[:_MAX_MESSAGE],
        cap=call.cap_header,
        clamped=trial.holding.clamped,
        ttft_us=None if trial.record.ttft_us is None else trial.record.started_us + trial.record.ttft_us,
    )
    _fill(call, outcome)
    return outcome


def _fill(call: Call, outcome: Outcome) -> None:
    call.outcome = outcome
    outcome.attempts = call.attempts
    outcome.retries = call.retries
    outcome.fallbacks = call.fallbacks
    outcome.cost = call.cost
    outcome.total_us = call.elapsed_us()
    outcome.queue_us = call.queue_us
    if call.cache_word is MISS:
        outcome.cache = "miss"
    outcome.bytes_out = call.bytes_out
    if call.policing is not None:
        outcome.verdicts = call.policing.told()


def _finish(call: Call, outcome: Outcome, finish: str) -> None:
    """How the answer ended; ``outcome.capped``: cut off at the cap that the caller set, not at one that the console set nor at
    the model's own limit."""
    outcome.finish = finish
    asked, tokens = call.asked, outcome.tokens
    if finish not in TRUNCATED or asked is None or asked.cap is None:
        return
    theirs = asked.own_cap and not asked.uncapped and outcome.cap is None
    # An answer that ended well before it ran into the model's window.
    reached = not tokens.output or tokens.estimated or tokens.output >= _REACHED * asked.cap
    outcome.capped = theirs and reached


def origin_of(call: Call, *, feature: str = "", session: str = "", tags: list[str] | None = None) -> Origin:
    """Who asked for what, as far as it is known when the call is recorded."""
    key = call.key
    assert key is not None
    asked, resolution = call.asked, call.resolution
    return Origin(
        call=call.id,
        started=call.started_ns,
        project=key.project_id,
        key=key.id,
        endpoint=call.endpoint.name,
        revision=call.view.snapshot.revision,
        route=resolution.route.slug if resolution is not None else "",
        streamed=asked.stream if asked is not None else False,
        request=call.request_id,
        feature=feature,
        user=call.plane.user_digest(key.project_id, call.user) if call.user else "",
        session=session,
        tags=tags or [],
        bytes_in=call.bytes_in,
        prompt_name=call.prompt[0] if call.prompt is not None else "",
        prompt_version=call.prompt[1] if call.prompt is not None else 0,
        old_secret=key.replaced,
    )
