"""``/mcp/``: a project's tools for any client of the Model Context Protocol, over streamable HTTP, behind the same gate as everything.

A service key with the scope ``actions`` opens it. A call is an action: it runs at once where nobody need agree, and else waits, while
the client is told how it stands, up to a bound; then the answer is a pending handle that ``wait_for_action`` takes. Sessions, resuming
and messages that the server begins are not offered: there is nothing that a client could miss.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from llmops.access.authentication import REFUSAL, find_key, why_paused
from llmops.access.models import Project, ServiceKey
from llmops.access.selectors import may, powers_of_actor
from llmops.base.refusals import REFUSALS, as_console_error
from llmops.base.requests import actor_of
from llmops.core.actors import Actor
from llmops.core.digests import digest
from llmops.core.errors import NotFound
from llmops.tools import services
from llmops.tools.mcp import offering, protocol
from llmops.tools.mcp.protocol import Message, Refused
from llmops.tools.models import Action

log = logging.getLogger(__name__)

#: How long a call waits where nobody says; clients give up after a minute mostly.
WAIT_S, LONGEST_WAIT_S = 25.0, 50.0
#: So many streams of a process, and of one key, wait at once; beyond, a call is answered as pending at once.
MOST_WAITING, MOST_OF_A_KEY = 64, 16
_TELL_EVERY_S, _FIRST_LOOK_S, _LAST_LOOK_S = 5.0, 0.1, 1.0
_LONGEST_KEY = 512
_META = "llmops/"
_NAME = re.compile(r"[a-z0-9._-]{1,63}")
_waiting: Counter[str] = Counter()


@dataclass(frozen=True, slots=True)
class _Call:
    """An action that somebody waits for."""

    message: Message
    actor: Actor
    action: Action
    seconds: float


@csrf_exempt
def endpoint(request: HttpRequest) -> HttpResponseBase:
    """One message, one answer. A key comes in a header, never by a cookie, so no page of another site can bring one along."""
    if request.method != "POST":
        # There is no stream without a request, and no session to end.
        return HttpResponse(status=405, headers={"Allow": "POST"})
    try:
        _check_origin(request)
        key = _key_of(request)
        _check_media(request)
        message = protocol.read(
            _body_of(request), {name.lower(): value for name, value in request.headers.items()}
        )
        return _answered(request, message, key)
    except Refused as refused:
        answer = JsonResponse(protocol.refusal(refused), status=refused.status)
        if refused.status == 401:
            answer["WWW-Authenticate"] = 'Bearer realm="llmops"'
        return answer


def _check_origin(request: HttpRequest) -> None:
    """A page in somebody's browser may reach a console that is not meant for it, under a name that it resolves as it likes
    (DNS rebinding): browsers say which page it is. Django has looked at ``Host`` by now."""
    origin = request.headers.get("Origin")
    if origin is not None:
        home = urlsplit(settings.PUBLIC_URL)
        if origin not in (f"{home.scheme}://{home.netloc}", *settings.CSRF_TRUSTED_ORIGINS):
            raise Refused(
                protocol.INVALID_REQUEST,
                "This Origin may not call the console. Its address is CONSOLE_PUBLIC_URL; CONSOLE_TRUSTED_ORIGINS lets others in.",
                status=403,
            )


def _check_media(request: HttpRequest) -> None:
    if request.content_type != "application/json":
        raise Refused(protocol.INVALID_REQUEST, "Content-Type: application/json is needed.", status=415)
    if not request.accepts("application/json"):
        raise Refused(
            protocol.INVALID_REQUEST, "Accept: application/json, text/event-stream is needed.", status=406
        )


def _key_of(request: HttpRequest) -> ServiceKey:
    words = request.headers.get("Authorization", "").split()
    right = len(words) == 2 and words[0].lower() == "bearer" and len(words[1]) <= _LONGEST_KEY
    key = find_key(words[1]) if right else None
    if key is None:
        raise Refused(protocol.INVALID_REQUEST, REFUSAL, status=401)
    if why := why_paused(key):
        raise Refused(protocol.INVALID_REQUEST, why, status=403)
    request.service_key = key  # type: ignore[attr-defined]
    if not may(key, "action.propose", key.project):
        raise Refused(
            protocol.INVALID_REQUEST, "This key may not call tools; give it the scope actions.", status=403
        )
    return key


def _body_of(request: HttpRequest) -> bytes:
    body = request.read(protocol.MOST_BYTES + 1)
    if len(body) > protocol.MOST_BYTES:
        raise Refused(
            protocol.INVALID_REQUEST,
            f"The message is larger than {protocol.MOST_BYTES} bytes. Arguments may have 64 KiB.",
            status=413,
        )
    return bytes(body)


def _answered(request: HttpRequest, message: Message, key: ServiceKey) -> HttpResponseBase:
    if message.id is None:
        # What clients tell (that they began, that they gave up waiting) changes nothing here.
        return HttpResponse(status=202)
    if message.method == "tools/call":
        call = _call_of(message, actor_of(request), key.project)
        return (
            _told(request, call) if isinstance(call, _Call) else JsonResponse(protocol.answer(message, call))
        )
    answering = (_MODERN if message.modern else _HANDSHAKE).get(message.method)
    if answering is None:
        raise protocol.no_method(message)
    answer = JsonResponse(protocol.answer(message, answering(message, actor_of(request), key.project)))
    if message.method == "initialize":
        answer[protocol.SESSION_HEADER] = protocol.new_session()
    return answer


# Methods ------------------------------------------------------------------------------------------------------------


def _server() -> dict[str, str]:
    return {"name": "llmops-console", "title": "LLMOps Console", "version": "1"}


def _initialize(message: Message, actor: Actor, project: Project) -> dict[str, Any]:
    return {
        "protocolVersion": protocol.agreed(message.params.get("protocolVersion")),
        "capabilities": {"tools": {}},
        "serverInfo": _server(),
        "instructions": offering.INSTRUCTIONS.format(project=project.slug),
    }


def _discover(message: Message, actor: Actor, project: Project) -> dict[str, Any]:
    return {
        "supportedVersions": [*protocol.HANDSHAKE, *protocol.MODERN],
        "capabilities": {"tools": {}},
        "instructions": offering.INSTRUCTIONS.format(project=project.slug),
        "_meta": {"io.modelcontextprotocol/serverInfo": _server()},
        **_UNCACHED,
    }


def _ping(message: Message, actor: Actor, project: Project) -> dict[str, Any]:
    return {}


def _list(message: Message, actor: Actor, project: Project) -> dict[str, Any]:
    cursor = message.params.get("cursor") or ""
    if not isinstance(cursor, str) or (cursor and not _NAME.fullmatch(cursor)):
        raise _invalid(message, "cursor: as the page before gave it.")
    tools, following = offering.tools_for(actor, project, cursor)
    told: dict[str, Any] = {"tools": tools, **(_UNCACHED if message.modern else {})}
    return {**told, "nextCursor": following} if following else told


#: What a key sees may change with the next version of a tool, and is nobody else's.
_UNCACHED = {"ttlMs": 0, "cacheScope": "private"}
_HANDSHAKE = {"initialize": _initialize, "ping": _ping, "tools/list": _list}
_MODERN = {"server/discover": _discover, "tools/list": _list}


def _call_of(message: Message, actor: Actor, project: Project) -> _Call | dict[str, Any]:
    """The action that the call is, or the answer where it is not taken."""
    name, arguments = message.params.get("name"), message.params.get("arguments")
    if not isinstance(name, str):
        raise _invalid(message, "name: the name of a tool is needed.")
    if name == offering.WAIT:
        return _asked_again(message, actor, arguments)
    seconds = _seconds(message, message.meta.get(f"{_META}wait", WAIT_S), "llmops/wait")
    given = {} if arguments is None else arguments
    try:
        if not _NAME.fullmatch(name):
            raise NotFound("No tool has such a name.")
        offering.check_offered(actor, project, name)
        action = services.propose(
            actor,
            project=project,
            tool=name,
            arguments=given,
            reason=_said(message, "reason"),
            run=_said(message, "run"),
            behalf_of=_said(message, "on-behalf-of"),
            idempotency_key=_said(message, "idempotency-key")
            or protocol.idempotency_key(message, digest({"tool": name, "arguments": given})),
            once=True,
        )
    except NotFound:
        raise _invalid(message, f"Unknown tool: {name[:80]}") from None
    except REFUSALS as raised:
        error = as_console_error(raised)
        if error is None:
            raise
        return offering.refused_result(error.message)
    return _Call(message, actor, action, seconds)


def _asked_again(message: Message, actor: Actor, arguments: Any) -> _Call | dict[str, Any]:
    given = arguments if isinstance(arguments, Mapping) else {}
    try:
        wanted = UUID(str(given.get("action", "")))
    except ValueError:
        return offering.refused_result("action: the id that the pending answer named is needed.")
    # Only its own: what other services of the project did is none of its business.
    found = Action.objects.filter(
        pk=wanted, requested_by_kind=actor.kind, requested_by_id=actor.identifier[:64]
    ).first()
    if found is None:
        return offering.refused_result("action: there is none of this id that you asked for.")
    return _Call(message, actor, found, _seconds(message, given.get("seconds", WAIT_S), "seconds"))


def _said(message: Message, name: str) -> str:
    found = message.meta.get(f"{_META}{name}", "")
    if not isinstance(found, str):
        raise _invalid(message, f"_meta[{_META}{name}]: a text is needed.")
    return found


def _seconds(message: Message, value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 86_400:
        raise _invalid(message, f"{name}: a number of seconds, at most {LONGEST_WAIT_S:g}.")
    return min(float(value), LONGEST_WAIT_S)


def _invalid(message: Message, said: str) -> Refused:
    # The older generation tells of such errors within an answer that arrived.
    return Refused(protocol.INVALID_PARAMS, said, status=400 if message.modern else 200, of=message.id)


# Waiting ------------------------------------------------------------------------------------------------------------


def _told(request: HttpRequest, call: _Call) -> HttpResponseBase:
    key = call.actor.identifier
    crowded = _waiting[key] >= MOST_OF_A_KEY or _waiting.total() >= MOST_WAITING
    if crowded or not call.seconds or not request.accepts("text/event-stream"):
        return JsonResponse(_as_it_stands(call, offering.standing_of(call.action.pk)))
    answer = StreamingHttpResponse(_events(call), content_type="text/event-stream; charset=utf-8")
    answer["Cache-Control"], answer["X-Accel-Buffering"] = "no-store", "no"
    return answer


def _as_it_stands(call: _Call, standing: offering.Standing) -> dict[str, Any]:
    return protocol.answer(call.message, offering.result_of(standing))


async def _events(call: _Call) -> AsyncIterator[bytes]:
    key = call.actor.identifier
    _waiting[key] += 1
    try:
        async for one in _following(call):
            yield one
    except Refused as refused:
        yield protocol.event(protocol.refusal(refused))
    except Exception:
        # The stream has begun, so this is the only way to say so.
        log.exception("A call of the Model Context Protocol was not followed to its end")
        said = f"The console failed while this waited. What became of it tells {offering.WAIT}: {call.action.pk}."
        yield protocol.event(protocol.refusal(Refused(protocol.INTERNAL, said, of=call.message.id)))
    finally:
        _waiting[key] -= 1
        if not _waiting[key]:
            del _waiting[key]


async def _following(call: _Call) -> AsyncIterator[bytes]:
    look, token = sync_to_async(_look), call.message.progress_token
    began = told_at = time.monotonic()
    said, mark, pause = "", 0.0, _FIRST_LOOK_S
    while True:
        standing = await look(call)
        now = time.monotonic()
        left = call.seconds - (now - began)
        if standing.over or left <= 0:
            yield protocol.event(_as_it_stands(call, standing))
            return
        news = offering.progress_said(standing)
        if news != said or now - told_at >= _TELL_EVERY_S:
            said, told_at, mark = news, now, max(mark + 0.001, round(now - began, 3))
            yield (
                protocol.event(protocol.progress(token, mark, said)) if token is not None else b": waits\n\n"
            )
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, _LAST_LOOK_S)


def _look(call: _Call) -> offering.Standing:
    try:
        if not powers_of_actor(call.actor).allow("action.view", call.action.project_id):
            raise Refused(protocol.INVALID_REQUEST, REFUSAL, of=call.message.id)
        return offering.standing_of(call.action.pk)
    finally:
        # Somebody else may have the connection while this one sleeps.
        if not connection.in_atomic_block:
            connection.close()
