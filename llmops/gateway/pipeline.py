"""One request from its first byte to its last.

    identify  key, from the snapshot                          auth.py
    read      body, attribution, name -> targets, budgets     endpoints/, prompting.py, routing.py
    repeat    the first answer under an Idempotency-Key       idempotency/
    police    what is asked, and later what is answered         policing.py
    recall    the answer to the same request                  cache.py, recalling.py
    admit     limits of the key and its project               limits.py, admission.py
    attempt   a place at the target                           queueing.py, admission.py
              hold, write ``Held``, send, relay               admission.py, settle.py, upstream.py, relaying.py, streaming.py
    settle    price, write ``Ended``, then the last byte      settle.py
    again     another attempt, target or credential           resilience.py
    end       otherwise than with an answer                   ends.py

A call keeps the snapshot it began with. Whatever happens, an attempt that was written down as held is settled once, and a
call whose key was identified is recorded once.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from llmops.core.asgi import Message, Receive, Send
from llmops.core.errors import ConsoleError, InvalidRequest
from llmops.core.verdicts import BEFORE
from llmops.gateway import admission, on_behalf, prompting, recalling, settle
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
from llmops.gateway.auth import check_scope, key_of
from llmops.gateway.cache import Kept
from llmops.gateway.call import (
    MAX_FEATURE,
    MAX_SESSION,
    MAX_USER,
    Call,
    ClientGone,
)
from llmops.gateway.endpoints.base import Asked, Endpoint
from llmops.gateway.ends import cancelled, give_up, out_of_time, refuse, refuse_broken_body, shutting_down
from llmops.gateway.errors import as_console_error
from llmops.gateway.idempotency import repeating
from llmops.gateway.idempotency.seal import HEADER as IDEMPOTENCY_KEY
from llmops.gateway.kept import texts
from llmops.gateway.kept.referring import where_kept
from llmops.gateway.money.cheaper import Turned, turn
from llmops.gateway.plane import Plane
from llmops.gateway.policing import calls as policing
from llmops.gateway.policing.opinions import INNER
from llmops.gateway.streaming.events import Relay
from llmops.gateway.streaming.media import check_capability, read_media, relay_media
from llmops.gateway.streaming.relaying import (
    is_events,
    over,
    relay_stream,
    relay_whole,
    until_known,
)
from llmops.gateway.throttling.queueing import INTERACTIVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmops.gateway.attempts.shared_breakers import SharedBreakers

#: Roughly, for the rate limits of credentials, which providers reckon in the same way.
BYTES_A_TOKEN = 4


async def serve(
    plane: Plane,
    endpoint: Endpoint,
    scope: Message,
    receive: Receive,
    send: Send,
    over: Callable[[Call], None] | None = None,
) -> None:
    """Answer one request of an endpoint, whatever happens. ``over`` is told when it is over."""
    call = Call(plane, endpoint, scope, receive, send)
    try:
        plane.enter(call)
        identify(call)
        if len(plane.calls) > plane.many_in_flight and INNER not in scope:
            plane.share(call)
        await read(call)
        if IDEMPOTENCY_KEY in call.headers and await answered_before(call):
            return
        if call.resolution is not None and call.resolution.guard is not None and INNER not in scope:
            if call.resolution.guard.remote(BEFORE):
                # Who is over its limits does not make others work either.
                await admission.admit(call, scope)
            await policing.before(call)
        keeps = call.resolution is not None and call.resolution.keeps and INNER not in scope
        if call.cache_key is not None and (kept := await recalling.find(call)) is not None:
            if keeps:
                texts.keep(call)
            await answer_again(call, kept)
            return
        await admission.admit(call, scope)
        if keeps:
            # What limits refuse is not kept: whoever asks too often would fill the journal with it.
            texts.keep(call)
        await attempts(call)
    except ClientGone:
        settle.never_sent(
            call,
            status=settle.CLIENT_CLOSED,
            http=settle.CLIENT_CLOSED_STATUS,
            code="client_closed",
            message="",
        )
        if not call.started_sending:
            await refuse_broken_body(call)
    except asyncio.CancelledError:
        reason = call.watch.reason
        call.watch.caught()
        if reason == "client" or reason is None or call.begun:
            settle.never_sent(
                call,
                status=settle.CLIENT_CLOSED if reason == "client" else settle.ERROR,
                http=settle.CLIENT_CLOSED_STATUS,
                code=f"{reason or 'server'}_closed",
                message="",
            )
            if reason is None:
                raise
        elif reason != "deadline":
            await refuse(call, shutting_down())
        elif not await last_resort.answered(call, out_of_time(call).message):
            await refuse(call, out_of_time(call))
    except Exception as error:
        await refuse(call, as_console_error(error, where=f"{endpoint.name} {call.request_id}"))
    finally:
        call.close()
        if over is not None:
            over(call)


async def answered_before(call: Call) -> bool:
    """Whether the call was answered by what its ``Idempotency-Key`` stands for."""
    asked = call.asked
    assert asked is not None
    members = asked.members if call.unexpanded is None else call.unexpanded
    return await repeating.answered(call, members, call.form)


def identify(call: Call) -> None:
    # From here on the call is recorded, however it ends.
    key = call.key = key_of(call.view.snapshot, call.headers.get(b"authorization"), time.time())
    check_scope(key)
    if key.held and on_behalf.HEADER in call.headers:
        call.key = on_behalf.key_for(call.view, key, call.headers[on_behalf.HEADER], time.time())


async def read(call: Call) -> None:
    """The body, who it is for, what it leads to."""
    key = call.key
    assert key is not None
    endpoint = call.endpoint
    asked: Asked
    if endpoint.forms:
        asked = await read_media(call)
    else:
        body = await call.read_body()
        asked = endpoint.read(body)
        if asked.prompt:
            call.unexpanded = asked.members
            asked = prompting.expand(call, body, asked)
    call.asked = asked
    headers = call.headers
    feature = session = ""
    tags: list[str] = []
    if b"x-llmops-feature" in headers:
        feature = call.header_text(b"x-llmops-feature", MAX_FEATURE)
    if b"x-llmops-session" in headers:
        session = call.header_text(b"x-llmops-session", MAX_SESSION)
    if b"x-llmops-tags" in headers:
        tags = call.tags()
    if b"x-llmops-priority" in headers or key.priority != INTERACTIVE:
        call.priority = call.read_priority(key.priority)
    call.user = call.header_text(b"x-llmops-user", MAX_USER) or asked.user
    if not asked.model:
        asked.model = call.view.default_route(key)
    resolution = call.resolution = call.view.resolve(key, asked.model)
    call.origin = settle.origin_of(call, feature=feature, session=session, tags=tags)
    prefers = ""
    if asked.refers or asked.tells:
        resolution, prefers = await where_kept(call, resolution)
        call.resolution = resolution
    if asked.background:
        call.plane.background.room(key.project_id)
    if asked.units is not None:
        check_capability(call, resolution)
    largest = resolution.largest_output
    if asked.cap is not None and largest and asked.cap > largest:
        raise InvalidRequest(
            f"{asked.cap_field}: {asked.cap} is more than the {largest} tokens that {asked.model!r} can answer with.",
            param=asked.cap_field,
        )
    call.budgets = call.view.budgets(resolution, feature=feature, user=call.user, tags=tags)
    route = resolution.route
    call.plan = Plan(
        resolution,
        call.view.snapshot,
        call.plane.breakers,
        time.monotonic() + route.total_timeout_ms / 1000,
        sticky=session or call.user,
        credentials=call.plane.credentials,
        need=asked.size // BYTES_A_TOKEN + (asked.cap or 0),
        prefers=prefers,
    )
    call.watch.start(route.total_timeout_ms / 1000)
    if resolution.caches:
        await recalling.remember(call)


async def answer_again(call: Call, kept: Kept) -> None:
    """Answer with what was answered before."""
    call.kept = kept
    call.bytes_out = len(kept.body)
    settle.again(call, kept)
    call.bytes_out = 0
    if kept.streamed:
        await call.start_events()
        await call.send_piece(kept.body, last=True)
    else:
        await call.send_whole(200, kept.body)


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
