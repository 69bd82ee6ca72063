"""Attempt after attempt at a call, until one answers or its plan gives up.

    attempts   a step of the plan: a probe's turn, a place at the target, money held, one attempt, what follows from it
    attempt    the body out, the head in, then the answer on its way to the client
    after      a failed attempt: told to the plan, settled, and followed by another or by the end

Whatever is raised, an attempt that was written down as held is settled once.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from llmops.core.errors import ConsoleError
from llmops.gateway import admission, settle
from llmops.gateway.attempts import context, last_resort
from llmops.gateway.attempts.failures import MALFORMED, TOO_LONG, Failure
from llmops.gateway.attempts.resilience import OPEN, Plan, Step
from llmops.gateway.attempts.trial import Trial
from llmops.gateway.attempts.upstream import (
    Channel,
    Failed,
    Response,
    failure_of_status,
    is_compressed,
    said_id,
)
from llmops.gateway.call import Call, ClientGone
from llmops.gateway.ends import cancelled, give_up
from llmops.gateway.money.cheaper import Turned, turn
from llmops.gateway.policing import calls as policing
from llmops.gateway.streaming.events import Relay
from llmops.gateway.streaming.media import relay_media
from llmops.gateway.streaming.relaying import (
    is_events,
    over,
    relay_stream,
    relay_whole,
    until_known,
)

if TYPE_CHECKING:
    from llmops.gateway.attempts.shared_breakers import SharedBreakers


async def attempts(call: Call) -> None:
    """Attempt after attempt, until one answers or the plan gives up."""
    plan, key = call.plan, call.key
    assert plan is not None and key is not None
    project = key.project_id
    try:
        step: Step | None = plan.first(time.monotonic())
    except ConsoleError as error:
        if await last_resort.answered(call, error.message):
            return
        raise
    adapts = plan.resolution.adapts
    ended: tuple[Trial, Failure] | None = None
    while step is not None:
        if step.probe and (shared := call.plane.shared_breakers) is not None:
            step = await probing(plan, step, shared)
            if step is None:
                await nothing_left(call, plan, ended)
                return
        try:
            if adapts:
                step = await context.before(call, step)
            if step.delay:
                await asyncio.sleep(step.delay)
            gate = call.plane.gates.of(plan.resolution.route, step.target.slug)
            if not gate.enter_now(project):
                await admission.wait_for_place(call, gate)
            beside = gate.in_flight
            try:
                trial = settle.begin(call, step, await admission.hold(call, step.target))
                failure = await attempt(call, trial)
                admission.tell(call, gate, trial, failure, beside)
            finally:
                gate.leave(project)
        except Turned as turned:
            step.dropped()
            plan, step = turn(call, turned, time.monotonic())
            continue
        except BaseException:
            step.dropped()
            raise
        if failure is None:
            step.ended(trial.broke, time.monotonic())
            return
        step, ended = await after(call, plan, trial, failure), (trial, failure)


async def after(call: Call, plan: Plan, trial: Trial, failure: Failure) -> Step | None:
    """What follows a failed attempt, which is settled by then. None: the call is over."""
    step, now = trial.step, time.monotonic()
    following: Step | None = None
    try:
        step.ended(failure, now)
        call.plane.credential_failed(step, failure, now)
        if call.watch.left:
            # Nobody waits for another one, nor to be told.
            raise asyncio.CancelledError
        if call.watch.reason is None:
            if plan.resolution.adapts and failure.code == TOO_LONG:
                settle.failed(call, trial, failure)
                following = await context.after(call, step, failure)
            following = following or plan.after(failure, time.monotonic())
        if following is None:
            await give_up(call, trial, failure)
        elif not trial.settled:
            settle.failed(call, trial, failure)
    except BaseException:
        step.dropped()
        if not trial.settled:
            settle.failed(call, trial, failure)
        raise
    return following


async def probing(plan: Plan, step: Step, shared: SharedBreakers) -> Step | None:
    """The step to make where ``step`` would probe: of all processes one at a time may."""
    following: Step | None = step
    while following is not None and following.probe:
        try:
            if following.probed is None or await shared.may_probe(following.probed):
                return following
        except BaseException:
            following.dropped()
            raise
        following = plan.passed_over(following, OPEN, time.monotonic())
    return following


async def nothing_left(call: Call, plan: Plan, ended: tuple[Trial, Failure] | None) -> None:
    """Another process probes the only target that was left: the call ends as if its breaker were open."""
    if ended is not None:
        await give_up(call, *ended)
        return
    refusal = plan.refusal(time.monotonic())
    if not await last_resort.answered(call, refusal.message):
        raise refusal


async def attempt(call: Call, trial: Trial) -> Failure | None:
    """Send, and relay what comes. None: the client has its answer, and it is settled."""
    asked, step = call.asked, trial.step
    assert asked is not None
    relay: Relay | None = None
    channel: Channel | None = None
    response: Response | None = None
    if asked.keeps and call.watch.stays is None:
        call.watch.stays = until_known(call, trial)
    # From here on money is held: whatever is raised, the attempt is settled.
    try:
        relay = call.relay = call.endpoint.relay(asked) if asked.stream else None
        if relay is not None and call.policing is not None:
            policing.watch(call, relay)
        channel = call.plane.transport.channel(step.target.provider)
        channel.in_flight += 1
        body = call.endpoint.encode(asked, step.target, trial.holding.cap)
        response = await channel.send(
            call.endpoint.path, body, step.credential, f"{call.id}.{trial.record.n}", trial
        )
        note_head(trial, response)
        if response.status != 200:
            return await failure_of_status(response, step.credential)
        if is_compressed(response.headers):
            return Failure(MALFORMED, "the answer is compressed, which was not asked for", billed=None)
        call.plane.credential_answered(step, response.headers, time.monotonic())
        if relay is not None and (asked.units is None or is_events(response)):
            return await relay_stream(call, trial, response, relay)
        if asked.units is not None:
            return await relay_media(call, trial, response)
        return await relay_whole(call, trial, response)
    except Failed as failed:
        failure = failed.failure
        if failure.billed is None and not trial.sent:
            failure.billed = False
        return failure
    except (asyncio.CancelledError, ClientGone) as gone:
        if isinstance(gone, ClientGone):
            call.watch.seen_gone()
        if response is not None:
            # At once, before anything is counted: the provider is to stop now.
            response.close()
        try:
            return await cancelled(call, trial, relay)
        except BaseException:
            # Whatever ends it while what came is counted, cancelled once more or broken.
            unaccounted(call, trial)
            raise
    except BaseException:
        unaccounted(call, trial)
        raise
    finally:
        if asked.keeps:
            over(call)
        if channel is not None:
            channel.in_flight -= 1
        if response is not None:
            # Gives the connection back when the answer was read to its end, closes it otherwise.
            response.release()


def unaccounted(call: Call, trial: Trial) -> None:
    """Settle an attempt that something of ours broke, unless it is."""
    if not (trial.settled or trial.followed):
        unsent = None if trial.sent else False
        settle.failed(call, trial, Failure(MALFORMED, "an error of the console itself", billed=unsent))


def note_head(trial: Trial, response: Response) -> None:
    record, headers = trial.record, response.headers
    record.status = response.status
    record.provider_request = said_id(headers, trial.step.credential)
    took = headers.get("openai-processing-ms")
    if took is not None and took.isdecimal() and len(took) < 10:
        record.provider_us = int(took) * 1000
