"""One request from its first byte to its last.

    identify  key, from the snapshot                          auth.py
    read      body, attribution, name -> targets, budgets     endpoints/, prompting.py, routing.py
    repeat    the first answer under an Idempotency-Key       idempotency/
    police    what is asked, and later what is answered         policing/
    recall    the answer to the same request                  cache.py, recalling.py
    admit     limits of the key and its project               throttling/, admission.py
    attempt   a place at the target                           attempts/attempting.py, admission.py
              hold, write ``Held``, send, relay               admission.py, settle.py, attempts/upstream.py, streaming/
    settle    price, write ``Ended``, then the last byte      settle.py
    again     another attempt, target or credential           attempts/resilience.py
    end       otherwise than with an answer                   ends.py

A call keeps the snapshot it began with. Whatever happens, a call whose key was identified is recorded once.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from llmops.core.asgi import Message, Receive, Send
from llmops.core.errors import InvalidRequest
from llmops.core.verdicts import BEFORE
from llmops.gateway import admission, on_behalf, prompting, recalling, settle
from llmops.gateway.attempts import last_resort
from llmops.gateway.attempts.attempting import attempts
from llmops.gateway.attempts.resilience import Plan
from llmops.gateway.auth import check_scope, key_of
from llmops.gateway.bodies import read_body
from llmops.gateway.cache import Kept
from llmops.gateway.call import (
    MAX_FEATURE,
    MAX_SESSION,
    MAX_USER,
    Call,
    ClientGone,
)
from llmops.gateway.endpoints.base import Asked, Endpoint
from llmops.gateway.ends import out_of_time, refuse, refuse_broken_body, shutting_down
from llmops.gateway.errors import as_console_error
from llmops.gateway.idempotency import repeating
from llmops.gateway.idempotency.seal import HEADER as IDEMPOTENCY_KEY
from llmops.gateway.kept import texts
from llmops.gateway.kept.referring import where_kept
from llmops.gateway.plane import Plane
from llmops.gateway.policing import calls as policing
from llmops.gateway.policing.opinions import INNER
from llmops.gateway.streaming.media import read_media
from llmops.gateway.suiting import check_suited
from llmops.gateway.throttling.queueing import INTERACTIVE

if TYPE_CHECKING:
    from collections.abc import Callable

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
        body = await read_body(call)
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
        check_suited(resolution, call.endpoint.capability)
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
