"""Bringing an answer to the client: whole or as a stream, settled before its last byte."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from llmops.core.errors import StreamInterrupted
from llmops.gateway import settle
from llmops.gateway.attempts.failures import FILTERED, MALFORMED, Failure
from llmops.gateway.attempts.refusals import failure_in_answer, failure_of_error
from llmops.gateway.attempts.trial import Trial
from llmops.gateway.attempts.upstream import BROKE, Response, clean, failure_of, read_whole
from llmops.gateway.call import Call, ClientGone
from llmops.gateway.endpoints.base import BILLED, ErrorInside, tier_answered
from llmops.gateway.errors import error_body
from llmops.gateway.kept.background import RUNNING
from llmops.gateway.kept.owners import AUDIO, RESPONSE
from llmops.gateway.kept.takeover import FIRST_LOOK_S
from llmops.gateway.money import estimating
from llmops.gateway.policing import calls as policing
from llmops.gateway.policing.refusing import refuse_answer
from llmops.gateway.streaming.events import Relay
from llmops.gateway.streaming.flow import Flow, KeepAlive
from llmops.gateway.streaming.media import tokens_of
from llmops.providers.pricing import AUDIO_OUT
from llmops.providers.rules import CONTENT_FILTER
from llmops.usage.records import Tokens

#: Events after which an answer has no id that a provider keeps it under.
NAMELESS = 3
#: After its last event a provider has this long to end its answer, or its connection is not used again.
_TAIL_S = 1.0
_FILTERED = "the answer was stopped by a content filter"
#: What a provider's error event means where a status would have said the same.
_STATUS_OF_CODE = {"context_length_exceeded": 400, "rate_limit_exceeded": 429, "insufficient_quota": 429}


async def relay_whole(call: Call, trial: Trial, response: Response) -> Failure | None:
    body = call.hide(await read_whole(response))
    endpoint = call.endpoint
    try:
        said = endpoint.whole(body)
    except ErrorInside as error:
        return failure_in_answer(error.raw, secret=trial.step.credential.secret)
    if said is None:
        return Failure(MALFORMED, "the answer is not a JSON object", billed=None)
    asked = call.asked
    assert asked is not None
    if asked.keeps and said.id:
        keep(call, trial, said.id, said.items)
    if said.items and asked.uses & AUDIO_OUT:
        keep_sounds(call, trial, said.items)
    left = call.watch.left
    if asked.background and said.status in RUNNING:
        call.plane.background.follow(call, trial, said.id)
        await call.send_whole(200, body)
        return None
    tokens = endpoint.usage(said.usage)
    unknown = False
    if tokens is None and asked.billing != BILLED and trial.holding.prices is None:
        tokens = Tokens()
    elif (
        tokens is None
        or (endpoint.has_output and len(body) > estimating.SUSPICIOUS + estimating.PLAIN * tokens.output)
        or estimating.understates(call, tokens)
    ):
        tokens = await estimating.of_whole(call, trial, endpoint, said, body)
        unknown = tokens.estimated and estimating.hides(call, trial, said.thought)
    if said.tier:
        tokens.tier = tier_answered(said.tier)
    if left:
        # Nobody reads it: it is known whose it is and what it cost.
        settle.answered(
            call,
            trial,
            tokens,
            said,
            charge_hold=unknown,
            status=settle.CLIENT_CLOSED,
            code="client_closed",
            http=settle.CLIENT_CLOSED_STATUS,
        )
        raise ClientGone
    if said.finish == CONTENT_FILTER and call.plan is not None and call.plan.moves_on(CONTENT_FILTER):
        return Failure(FILTERED, _FILTERED, status=200, tokens=tokens)
    if call.policing is not None:
        body, failure = await policing.whole(call, body)
        if failure is not None:
            failure.tokens = tokens
            return failure
        if call.policing.error is not None:
            await refuse_answer(call, trial, tokens, said, call.policing.error, charge_hold=unknown)
            return None
    call.bytes_out = len(body)
    settle.answered(call, trial, tokens, said, charge_hold=unknown)
    await call.send_whole(200, body)
    return None


def until_known(call: Call, trial: Trial) -> Callable[[], bool]:
    """What a client that hangs up is told by ``Watch.stays``: what a provider makes and keeps goes on until its id is known. Who breaks
    off before leaves something behind that nobody could ever name, delete or reckon up."""

    def stays() -> bool:
        call.watch.left = trial.sent
        return trial.sent

    return stays


def keep(call: Call, trial: Trial, object_id: str, items: Sequence[str] = ()) -> None:
    """The provider keeps the answer under an id that the client is about to learn, with those of what is inside of it."""
    asked, key, resolution = call.asked, call.key, call.resolution
    assert asked is not None and key is not None and resolution is not None
    if call.hides(object_id):
        return
    step = trial.step
    call.plane.objects.made(
        asked.keeps,
        object_id,
        key=key,
        provider=step.target.provider.slug,
        credential=step.credential.id,
        model=resolution.name,
        items=items if asked.keeps == RESPONSE else (),
        # An answer that is not whole yet may never be settled by this process.
        details={"call": call.id, "started": call.started_ns, "model": step.target.slug}
        if asked.stream or asked.background
        else None,
        due_in=FIRST_LOOK_S if asked.background else None,
    )


def known(call: Call) -> None:
    """The id of what the provider keeps is known: a client that hangs up ends the call now. Raises ``ClientGone`` for one that has."""
    if call.watch.left:
        raise ClientGone
    if call.lead is None:
        call.watch.stays = None


def over(call: Call) -> None:
    """The attempt is over: no other is made for a client that left while it was made."""
    if call.watch.left:
        call.watch.seen_gone()
    elif call.lead is None:
        call.watch.stays = None


def keep_sounds(call: Call, trial: Trial, sounds: Sequence[str]) -> None:
    """The provider keeps what it said aloud for a while, whether the answer is stored or not."""
    key, resolution, step = call.key, call.resolution, trial.step
    assert key is not None and resolution is not None
    for one in sounds:
        call.plane.objects.made(
            AUDIO,
            one,
            key=key,
            provider=step.target.provider.slug,
            credential=step.credential.id,
            model=resolution.name,
        )


def keep_items(call: Call, trial: Trial, relay: Relay) -> None:
    """What a stream said of an answer that the provider keeps, and of what is inside of it, as far as it came."""
    if relay.id and call.asked is not None and call.asked.keeps:
        keep(call, trial, relay.id, relay.items)


# ---------------------------------------------------------------------- a stream


def is_events(response: Response) -> bool:
    return response.headers.get("content-type", "").lower().startswith("text/event-stream")


async def relay_stream(call: Call, trial: Trial, response: Response, relay: Relay) -> Failure | None:
    if not is_events(response):
        return Failure(MALFORMED, "the answer is not a stream of events", billed=None)
    assert call.resolution is not None
    every = call.resolution.route.keep_alive_s
    alive = KeepAlive(call, every) if every else None
    try:
        return await _relay(call, trial, response, relay, alive)
    finally:
        if alive is not None:
            alive.close()


async def _relay(
    call: Call, trial: Trial, response: Response, relay: Relay, alive: KeepAlive | None
) -> Failure | None:
    flow = Flow(call, response.content, relay, alive)
    failure: Failure | None = None
    out = held = b""
    asked = call.asked
    # Where a content filter leads to another target, nothing goes out before the model has said something.
    moves = waits = _moves_on(call)
    keeps = asked is not None and asked.keeps
    sounds = asked is not None and asked.uses & AUDIO_OUT and asked.units is None
    while True:
        try:
            out = await flow.next(passes=call.begun and not (waits or keeps or sounds))
        except BROKE as error:
            failure = failure_of(error)
            break
        if alive is not None and alive.saying is not None:
            await alive.said()
        if keeps and relay.id:
            keep(call, trial, relay.id)
            keeps = ""
            known(call)
        elif keeps and relay.events >= NAMELESS:
            # Whoever gives names gives them first: this one will have none.
            known(call)
        if sounds and relay.items:
            keep_sounds(call, trial, relay.items)
        if relay.done or relay.broken:
            break
        # Comments of the provider need not wait.
        if waits and relay.events:
            if not relay.parts:
                held += out
                continue
            out, held, waits = held + out, b"", False
        if out:
            if not call.begun and relay.events:
                await begin_stream(call, trial)
            elif not call.started_sending:
                # Comments of the provider: not yet an answer.
                await call.start_events()
            await call.send_piece(out)
            if alive is not None:
                alive.sent()
            out = b""
    keep_items(call, trial, relay)
    if moves and relay.done and relay.finish == CONTENT_FILTER and not call.begun:
        return Failure(FILTERED, _FILTERED, status=200, tokens=await partial_tokens(call, trial, relay))
    if call.policing is not None:
        if relay.done and (refused := await policing.end_of_stream(call)) is not None:
            refused.tokens = await partial_tokens(call, trial, relay)
            return refused
        if (why := policing.stopped(call)) is not None:
            # The provider is to stop now.
            response.close()
            tokens = await partial_tokens(call, trial, relay)
            unknown = tokens.estimated and estimating.hides(call, trial, relay.thought)
            await refuse_answer(call, trial, tokens, relay, why, charge_hold=unknown)
            return None
    if relay.done:
        await finish_stream(call, trial, relay, held + out, response)
        return None
    if relay.broken:
        relay.broken = clean(relay.broken, trial.step.credential)
    if not call.begun and not (out and relay.events):
        return failure or _failure_of_broken(relay)
    if not call.begun:
        await begin_stream(call, trial)
    await break_off(call, trial, relay, out, failure)
    return None


def _moves_on(call: Call) -> bool:
    """Whether a stream that a content filter stops, before anything of it went out, is answered by another target."""
    asked, plan = call.asked, call.plan
    return (
        plan is not None
        and plan.moves_on(CONTENT_FILTER)
        and asked is not None
        and asked.units is None
        and not asked.background
    )


def _failure_of_broken(relay: Relay) -> Failure:
    """What a stream means that broke before any of its events was relayed."""
    if not relay.provider_error or relay.events:
        return Failure(MALFORMED, relay.broken, billed=None)
    # An error as the first event is what an error status would have been.
    status = _STATUS_OF_CODE.get(relay.code)
    if status is None:
        return Failure(MALFORMED, relay.broken, billed=False)
    body = error_body(StreamInterrupted(relay.broken, code=relay.code))
    return failure_of_error(status, body, secret="")


async def begin_stream(call: Call, trial: Trial) -> None:
    """Something of the answer goes out: from here on nothing is tried again."""
    call.begun = True
    call.watch.open_end()
    if trial.step.probe:
        # A stream may take long; that the target answers again is known by now.
        trial.step.ended(None, time.monotonic())
    trial.record.ttft_us = int((time.perf_counter() - trial.started) * 1_000_000)
    if not call.started_sending:
        await call.start_events()


async def finish_stream(call: Call, trial: Trial, relay: Relay, out: bytes, response: Response) -> None:
    tokens = await partial_tokens(call, trial, relay)
    unknown = tokens.estimated and estimating.hides(call, trial, relay.thought)
    if trial.record.ttft_us is None:
        trial.record.ttft_us = int((time.perf_counter() - trial.started) * 1_000_000)
    last = out + relay.tail
    call.begun = True
    call.bytes_out += len(last)
    settle.answered(call, trial, tokens, relay, charge_hold=unknown)
    call.bytes_out -= len(last)
    if not call.started_sending:
        await call.start_events()
    await call.send_piece(last, last=True)
    if not response.content.at_eof():
        try:
            async with asyncio.timeout(_TAIL_S):
                await response.content.readany()
        except BROKE:
            return


async def break_off(call: Call, trial: Trial, relay: Relay, out: bytes, failure: Failure | None) -> None:
    """The provider's stream ended before its end: say so, settle what came, and never send the event of a good end."""
    trial.broke = failure or Failure(MALFORMED, relay.broken, billed=None)
    reason = relay.broken or (failure.message if failure is not None else "")
    error = StreamInterrupted(
        f"The answer of the provider {trial.record.provider!r} broke off: {reason}. "
        "What came before is not complete."
    )
    last = out + relay.error_event(error)
    if goes_on(call, relay):
        # Only the telling broke off; the work goes on, and is settled when it is done.
        call.plane.background.follow(call, trial, relay.id)
        await call.send_piece(last, last=True)
        return
    tokens = await partial_tokens(call, trial, relay)
    call.bytes_out += len(last)
    settle.answered(
        call,
        trial,
        tokens,
        relay,
        charge_hold=tokens.estimated
        and (
            (in_background(call) and not relay.provider_error) or estimating.hides(call, trial, relay.thought)
        ),
        status=settle.INTERRUPTED,
        code=error.code,
        message=reason,
    )
    call.bytes_out -= len(last)
    await call.send_piece(last, last=True)


def goes_on(call: Call, relay: Relay | None) -> bool:
    """Whether the provider works on although nobody listens to its stream any more."""
    return relay is not None and in_background(call) and bool(relay.id) and not relay.provider_error


def in_background(call: Call) -> bool:
    """Whether the provider was asked to work on without anybody who waits."""
    return call.asked is not None and call.asked.background


async def partial_tokens(call: Call, trial: Trial, relay: Relay) -> Tokens:
    """What a stream has brought so far, which is all of it when it is done."""
    if call.asked is not None and call.asked.units is not None:
        return await tokens_of(call, trial, relay)
    tokens = await estimating.of_stream(call, trial, relay)
    tokens.tier = tier_answered(relay.tier)
    return tokens
