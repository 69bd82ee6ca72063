"""Paths that an operator allows at a provider beyond those that are served here (``ProviderEntry.passthrough``).

Forwarded as they come, with what can be kept of the rest: the ids in a path must be of objects that the project made, a
body must not name another project's object nor a model that the key may not use, a list shows what is the project's own.
What an answer of a known model says of its usage is priced; since that is known afterwards only, nothing of this runs under
a hard budget. Answers of methods that change something are JSON.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from llmops.core.asgi import Message, Receive
from llmops.core.errors import InvalidRequest, NotFound, UnprocessableEntity
from llmops.gateway import settle
from llmops.gateway.addresses import Visit
from llmops.gateway.bodies import keep, read_body
from llmops.gateway.call import Call, ClientGone
from llmops.gateway.endpoints.base import MAX_MODEL, encode
from llmops.gateway.endpoints.batches import callable_at
from llmops.gateway.forms.multipart import read_form
from llmops.gateway.forms.spool import Spool
from llmops.gateway.forwarding.calls import SAFE_ID, handler, owner_of
from llmops.gateway.forwarding.errands import (
    IDEMPOTENT,
    Errand,
    Fetched,
    fetch,
    record,
    relay,
    see_through,
    send,
)
from llmops.gateway.forwarding.naming import Names, begins_as_json, is_json
from llmops.gateway.forwarding.uploading import Upload
from llmops.gateway.kept.believing import usage_of
from llmops.gateway.kept.metering import target_named
from llmops.gateway.kept.owners import MAX_ID, Owner, not_there
from llmops.gateway.kept.places import Place, chosen_place, place_at, place_of, reachable_providers
from llmops.gateway.money import bounds
from llmops.gateway.routing import Budgets, View
from llmops.providers.rules import covers
from llmops.serving.snapshot import ProviderEntry

METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE"))
#: A segment that is a word of the API, unless it is a registered id; everything else is an id.
_WORD = re.compile(r"[a-z_]+")
#: Types of bodies that are no JSON to anybody, beside forms, sound, images and video.
_FILES = frozenset(
    (
        b"application/octet-stream",
        b"application/pdf",
        b"application/zip",
        b"application/gzip",
        b"application/x-tar",
    )
)


def allows(view: View, path: str) -> bool:
    """Whether any provider lets this path through; ``path`` begins with ``/v1/``."""
    below = path.removeprefix("/v1")
    return any(_covered(provider, below) for provider in view.snapshot.providers.values())


def _covered(provider: ProviderEntry, path: str) -> bool:
    return any(covers(pattern, path) for pattern in provider.passthrough)


async def _work(call: Call, visit: Visit) -> None:
    path = visit.path.removeprefix("/v1")
    segments = path[1:].split("/")
    if any(len(one) > MAX_ID or not SAFE_ID.fullmatch(one) for one in segments):
        raise NotFound(f"There is nothing at {visit.path[:200]}.", code="unknown_url")
    budgets = _budgets(call)
    owners = await _owners(call, segments[1:])
    place = _place(call, path, owners)
    named = Names()
    named.query(visit.query)
    await _strangers(call, place, {*named.found, *(one for one in segments[1:] if _WORD.fullmatch(one))})
    errand = Errand(visit.method, path, visit.query)
    if visit.method == "GET":
        if owners:
            await relay(call, place, errand)
        else:
            await _list(call, place, errand, segments[0])
        return
    model = ""
    if visit.method not in IDEMPOTENT:
        if bounds.HEADER in call.headers:
            raise bounds.never_known("a path that is passed through")
        model = await _body(call, place, errand)
        see_through(call)
    fetched = await fetch(call, place, errand)
    if visit.method == "DELETE" and len(owners) == 1 and owners[0].id == segments[-1]:
        call.plane.objects.gone(owners[0])
    elif visit.method == "POST":
        await _made(call, place, fetched, segments[0])
    await _settle(call, place, fetched, budgets, model)


handle = handler("passthrough", _work)


def _budgets(call: Call) -> Budgets:
    key, origin = call.key, call.origin
    assert key is not None and origin is not None
    found = call.view.budgets_of(key, feature=origin.feature, user=call.user, tags=origin.tags)
    hard = next((budget for budget in found if budget.hard), None)
    if hard is not None:
        raise UnprocessableEntity(
            f"This path is passed through to a provider, and what it costs is not known before; the budget {hard.slug!r} "
            "is a hard one. Use a service key or project without a hard budget, or make that budget a soft one.",
            code="passthrough_under_hard_budget",
        )
    return found


async def _owners(call: Call, segments: list[str]) -> list[Owner]:
    """The objects that the path names, all of the project. Raises ``NotFound``."""
    found = [await owner_of(call, None, one) for one in segments if not _WORD.fullmatch(one)]
    for one in found[1:]:
        if one.provider != found[0].provider:
            raise not_there(one.id)
    return found


def _place(call: Call, path: str, owners: list[Owner]) -> Place:
    """Where the path's objects are, or the provider that takes a new one; in either case one that lets the path through."""
    nothing = NotFound(f"There is nothing at /v1{path[:200]}.", code="unknown_url")
    if owners:
        place = place_of(call, owners[0])
        if not _covered(place.provider, path):
            raise nothing
        return place
    offering = [one for one in reachable_providers(call) if _covered(one, path)]
    if not offering:
        raise nothing
    if len(offering) == 1:
        return place_at(call, offering[0])
    place = chosen_place(call)
    if place.provider not in offering:
        raise nothing
    return place


async def _strangers(call: Call, place: Place, names: set[str]) -> None:
    """Raises ``NotFound`` for the name of another project's object."""
    assert call.key is not None
    if not names:
        return
    found = await call.plane.objects.foreign(
        names, provider=place.provider.slug, project_id=call.key.project_id
    )
    if found:
        raise not_there(min(found))


async def _body(call: Call, place: Place, errand: Errand) -> str:
    """Read and check a body; files go through unseen. The model that it names."""
    kind = call.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    names = Names()
    if kind == b"multipart/form-data":
        return await _form(call, place, errand, names)
    if kind.startswith(b"multipart/"):
        raise InvalidRequest(
            "Of forms, multipart/form-data alone is passed through.",
            param="Content-Type",
            code="invalid_content_type",
        )
    # What calls itself text may be JSON all the same to a provider that does not look at the type.
    if kind in _FILES or kind.startswith((b"audio/", b"image/", b"video/")):
        if not await _like_json(call):
            errand.body = Upload(call, place.provider, largest=call.plane.max_upload)
            return ""
        body = errand.body = await read_body(call)
        if not await call.plane.off_loop(lambda: is_json(body), size=len(body)):
            return ""
    else:
        body = errand.body = await read_body(call)
    if not body.strip():
        return ""
    found = await call.plane.off_loop(lambda: names.json(body), size=len(body))
    await _strangers(call, place, names.found)
    return _model(call, place, found)


async def _form(call: Call, place: Place, errand: Errand, names: Names) -> str:
    plane = call.plane
    form = call.form = await read_form(
        call.receive,
        call.headers,
        Spool(plane.off_loop, plane.spool_directory),
        plane.max_upload,
        ClientGone,
        partial(keep, call),
    )
    call.bytes_in = form.size
    names.form(form)
    await _strangers(call, place, names.found)
    errand.form = form.upload({})
    model = form.text("model", longest=MAX_MODEL) if form.named("model") else ""
    stream = form.text("stream", longest=10).lower() if form.named("stream") else ""
    return _model(call, place, {"model": model, "stream": stream not in ("", "false", "0", "off", "no")})


async def _like_json(call: Call) -> bool:
    """Whether a body begins as JSON does, in whatever encoding. What was read of it to see that is read again."""
    read: list[Message] = []
    begins = b""
    while True:
        message = await call.receive()
        read.append(message)
        begins += message.get("body", b"")
        over = message["type"] != "http.request" or not message.get("more_body")
        like = begins_as_json(begins)
        if over or like is not None:
            break
    call.receive = _again(read, call.receive)
    return like is True


def _again(read: list[Message], receive: Receive) -> Receive:
    async def replayed() -> Message:
        return read.pop(0) if read else await receive()

    return replayed


def _model(call: Call, place: Place, found: Mapping[str, Any]) -> str:
    model = found.get("model")
    if model is None or model == "":
        return ""
    if not isinstance(model, str) or len(model) > MAX_MODEL:
        raise InvalidRequest("model: must be text.", param="model", code="invalid_type")
    allowed = callable_at(call, place)
    if model not in allowed:
        known = ", ".join(sorted(allowed)[:10]) or "none"
        raise InvalidRequest(
            f"model: on this path the provider's own names are used; of those at {place.provider.slug!r} this key may "
            f"call: {known}.",
            param="model",
            code="model_not_found",
        )
    if found.get("stream"):
        raise UnprocessableEntity(
            "stream: what a stream on this path costs cannot be counted. Ask for a whole answer.",
            param="stream",
        )
    return model


async def _list(call: Call, place: Place, errand: Errand, kind: str) -> None:
    """A list of the provider's, whatever the member that holds it, without what is not the project's own."""
    assert call.key is not None
    fetched = await fetch(call, place, errand)
    lists = {}
    for name, raw in fetched.members.items():
        if bytes(raw)[:1] == b"[":
            lists[name] = msgspec.json.decode(raw)
    if "data" in fetched.members:
        lists.setdefault("data", [])
    body = fetched.body
    if lists:
        ours = await call.plane.objects.owned(
            kind,
            {name for items in lists.values() for one in items if (name := _id(one))},
            provider=place.provider.slug,
            project_id=call.key.project_id,
        )
        sent: dict[str, Any] = dict(fetched.members)
        for name, items in lists.items():
            # Of other lists what bears no id is about the answer.
            sent[name] = [one for one in items if _id(one) in ours or (name != "data" and not _bears_id(one))]
        kept = sent.get("data", [])
        for name, index in (("first_id", 0), ("last_id", -1)):
            if name in sent:
                sent[name] = kept[index]["id"] if kept else None
        body = encode(sent)
    call.bytes_out = len(body)
    record(call, status=settle.OK, http=fetched.status)
    await send(call, fetched, body)


def _id(item: Any) -> str:
    name = item.get("id") if isinstance(item, dict) else None
    return name if isinstance(name, str) else ""


def _bears_id(item: Any) -> bool:
    return isinstance(item, dict) and "id" in item


async def _made(call: Call, place: Place, fetched: Fetched, kind: str) -> None:
    """The object that an answer names is the project's, unless it is somebody's already."""
    name = fetched.text("id")
    assert call.key is not None
    slug = place.provider.slug
    if not name or await call.plane.objects.foreign([name], provider=slug, project_id=call.key.project_id):
        return
    call.plane.objects.made(
        kind,
        name,
        key=call.key,
        provider=slug,
        credential=call.attempts[-1].credential,
        model=place.model,
    )


async def _settle(call: Call, place: Place, fetched: Fetched, budgets: Budgets, model: str) -> None:
    """Price what the answer says of its usage, and let it go."""
    tokens = usage_of(bytes(fetched.members["usage"])) if "usage" in fetched.members else None
    cost, slug = 0, ""
    if tokens is not None:
        target = target_named(call.view, place.provider.slug, model or fetched.text("model"))
        prices = target.prices.at(time.time()) if target is not None else None
        if target is not None and prices is not None:
            cost, slug = prices.cost(tokens), target.slug
    call.bytes_out = len(fetched.body)
    record(
        call,
        status=settle.OK,
        http=fetched.status,
        tokens=tokens,
        cost=cost,
        model=slug,
        soft=[budget.id for budget in budgets],
    )
    await send(call, fetched, fetched.body)
