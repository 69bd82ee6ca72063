"""Calls that carry no model work of their own: what a provider keeps is made, read, listed, changed, deleted through here.

    identify  key, from the snapshot                                       auth.py
    admit     requests a minute and calls at once of key and project      limits.py
    find      whose the object is and where, or who takes a new one       objects.py, places.py
    forward   as it came: method, query, headers, body in pieces           uploading.py, upstream.py
    relay     status, type and bytes as they came; written down first

Only what the console must not pass on is taken out: credentials, cookies, headers of the connection, its own. A call is
one record without money. Idempotent methods are tried again, before anything of an answer was relayed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

import msgspec

from llmops.core.errors import ConsoleError, InvalidRequest, UpstreamError, UpstreamTimeout
from llmops.gateway import admission, settle
from llmops.gateway.addresses import Handler, Visit
from llmops.gateway.attempts.failures import STATUS, Failure
from llmops.gateway.bodies import read_body
from llmops.gateway.call import MAX_FEATURE, MAX_SESSION, MAX_USER, Call, ClientGone
from llmops.gateway.endpoints.base import Members
from llmops.gateway.ends import refuse_broken_body, shutting_down
from llmops.gateway.errors import as_console_error, error_body, error_headers
from llmops.gateway.forwarding import errands
from llmops.gateway.forwarding.errands import (
    IDEMPOTENT,
    BrokeOff,
    Errand,
    Fetched,
    GaveUp,
    fetch,
    record,
    relay,
    reply,
    see_through,
)
from llmops.gateway.kept.owners import MAX_ID, Owner, not_there
from llmops.gateway.kept.places import Place, place_of
from llmops.gateway.money import charging
from llmops.gateway.pipeline import identify

if TYPE_CHECKING:
    from llmops.gateway.endpoints.base import Endpoint
    from llmops.gateway.routing import Target

Work = Callable[[Call, Visit], Awaitable[None]]

#: What of a path may be an id.
SAFE_ID = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._~:@=+-]+")
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Named:
    """What calls of one kind are recorded under; stands where the pipeline has an endpoint."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


# ---------------------------------------------------------------------- a call from beginning to end


def handler(name: str, work: Work) -> Handler:
    """Who answers an address: ``work`` under the name ``name``."""

    async def answer(visit: Visit) -> None:
        await serve(visit, name, work)

    return answer


async def serve(visit: Visit, name: str, work: Work) -> None:
    call = Call(visit.plane, cast("Endpoint", Named(name)), visit.scope, visit.receive, visit.send)
    try:
        visit.plane.enter(call)
        identify(call)
        if len(visit.plane.calls) > visit.plane.many_in_flight:
            visit.plane.share(call)
        attribute(call)
        limited = call.view.limited(call.key) if call.key is not None else ()
        if limited:
            call.ticket = await admission.ticket(call, limited, 0)
        await work(call, visit)
    except ClientGone:
        _closed(call, "client")
        if not call.started_sending:
            await refuse_broken_body(call)
    except asyncio.CancelledError:
        reason = call.watch.reason
        call.watch.caught()
        if reason == "client" or reason is None or call.started_sending:
            _closed(call, reason or "server")
            if reason is None:
                raise
        else:
            await _refuse(call, _out_of_time(call) if reason == "deadline" else shutting_down())
    except GaveUp as gave_up:
        await _give_up(call, gave_up)
    except BrokeOff:
        # A server closes the connection of an answer that was not ended: the client sees that it is not complete.
        return
    except Exception as error:
        await _refuse(call, as_console_error(error, where=f"{name} {call.request_id}"))
    finally:
        call.close()


def attribute(call: Call) -> None:
    """Who the call is for, from its headers. Raises ``InvalidRequest``."""
    call.user = call.header_text(b"x-llmops-user", MAX_USER)
    call.origin = settle.origin_of(
        call,
        feature=call.header_text(b"x-llmops-feature", MAX_FEATURE),
        session=call.header_text(b"x-llmops-session", MAX_SESSION),
        tags=call.tags(),
    )


def _closed(call: Call, whom: str) -> None:
    status = settle.CLIENT_CLOSED if whom == "client" else settle.ERROR
    record(call, status=status, http=settle.CLIENT_CLOSED_STATUS, code=f"{whom}_closed")


async def _refuse(call: Call, error: ConsoleError) -> None:
    size = 0 if call.started_sending else len(error_body(error))
    call.bytes_out += size
    status = settle.status_of(call, error)
    record(call, status=status, http=error.status, code=error.code, message=error.message)
    call.bytes_out -= size
    if not call.started_sending:
        await call.send_error(error)


async def _give_up(call: Call, gave_up: GaveUp) -> None:
    """The provider's own words for what the caller did wrong, ours for everything else."""
    failure = gave_up.failure
    error = _error_of(failure, gave_up.place)
    status, body = error.status, error_body(error)
    if failure.callers_own and failure.body is not None:
        status, body = failure.status, failure.body
    code = charging.code_of(failure) if failure.kind == STATUS else error.code
    call.bytes_out = len(body)
    record(call, status=settle.ERROR, http=status, code=code, message=failure.message)
    await call.send_whole(status, body, headers=error_headers(error))


def _error_of(failure: Failure, place: Place) -> ConsoleError:
    if failure.kind == STATUS and failure.status in (404, 405):
        return UpstreamError(
            f"The provider {place.provider.slug!r} does not offer this: it answered with status {failure.status}. Name another "
            "one by the header x-llmops-route."
        )
    return failure.error(cast("Target", place))


def _out_of_time(call: Call) -> ConsoleError:
    return UpstreamTimeout(f"The provider gave no answer within {errands.PATIENCE_S:g} s. Try again.")


# ---------------------------------------------------------------------- objects


After = Callable[[Call, Place, Owner, Fetched], Awaitable[None] | None]
Before = Callable[[Call, Owner], Awaitable[None]]


def of_object(
    name: str,
    kind: str,
    *,
    content: bool = False,
    deletes: bool = False,
    before: Before | None = None,
    after: After | None = None,
) -> Handler:
    """Who answers an address with the id of one object, such as ``/v1/files/{file}``: its first parameter is the id.

    Others that follow are passed on as they are (parts of the object). ``content``: the answer is bytes of any kind;
    otherwise it is a JSON object. ``deletes``: the object is gone afterwards. ``before`` may refuse,
    ``after`` sees the answer before the client does, and may refuse it or change its body.
    """

    async def work(call: Call, visit: Visit) -> None:
        owner = await owner_of(call, kind, next(iter(visit.arguments.values())))
        if before is not None:
            await before(call, owner)
        place = place_of(call, owner)
        errand = Errand(visit.method, provider_path(visit), visit.query)
        if visit.method not in IDEMPOTENT:
            errand.body = await read_body(call)
            see_through(call)
        if content:
            await relay(call, place, errand)
            return
        fetched = await fetch(call, place, errand)
        if deletes:
            call.plane.objects.gone(owner)
        if after is not None:
            waited = after(call, place, owner, fetched)
            if waited is not None:
                await waited
        await reply(call, fetched)

    return handler(name, work)


async def owner_of(call: Call, kind: str | None, object_id: str) -> Owner:
    """Where an object of the call's project is. Raises ``NotFound``, ``ServiceUnavailable``."""
    assert call.key is not None
    if not SAFE_ID.fullmatch(object_id):
        raise not_there(object_id)
    return await call.plane.objects.owner(kind, object_id, call.key.project_id)


def provider_path(visit: Visit) -> str:
    """The path behind ``/v1``, with the arguments of the address filled in."""
    path = visit.template.removeprefix("/v1")
    for name, value in visit.arguments.items():
        if len(value) > MAX_ID or not SAFE_ID.fullmatch(value):
            raise not_there(value)
        path = path.replace("{" + name + "}", value)
    return path


def json_body(body: bytes) -> Members:
    """The members of a body in JSON. Raises ``InvalidRequest``."""
    try:
        return _decode_object(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest("The body must be a JSON object.", code="invalid_json") from None
