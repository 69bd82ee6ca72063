"""/v1/batches: many requests in a file, answered within a day. OpenAI API reference, "Batch".

What a batch costs is known when it has ended (``metering.py``), so it is refused where a hard budget must hold. Its file
names the provider's own models, and only such as the key may call.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llmops.core.errors import Conflict, InvalidRequest, NotFound, UnprocessableEntity
from llmops.gateway.addresses import Handler, Visit
from llmops.gateway.attempts.upstream import Failed
from llmops.gateway.call import Call
from llmops.gateway.endpoints.base import decode_any, member, text_member
from llmops.gateway.forwarding.calls import handler, json_body, of_object, owner_of
from llmops.gateway.forwarding.errands import PATIENCE_S, Errand, Fetched, GaveUp, fetch, reply
from llmops.gateway.kept.lines import read_lines
from llmops.gateway.kept.listing import of_objects
from llmops.gateway.kept.metering import FIRST_LOOK_S, note_files
from llmops.gateway.kept.owners import BATCH, FILE, MAX_ID, Owner, texts_like_ids
from llmops.gateway.kept.places import Place, place_of
from llmops.gateway.policing.lines import Lines
from llmops.gateway.routing import Budgets

#: Models of one batch that are remembered.
_MAX_MODELS = 20
_INPUT = "input_file_id"
#: A line without any of these refers to nothing that is kept (an escape may stand for anything).
_MARKS = (b"_id", b"conversation", b"container", b"item_reference", b"\\u")
#: Texts of one file that may be ids of objects, at most.
_MAX_NAMED = 20_000


class _Body(msgspec.Struct):
    model: str


class _Line(msgspec.Struct):
    body: _Body


_decode_line = msgspec.json.Decoder(_Line).decode


async def _create(call: Call, visit: Visit) -> None:
    body = await call.read_body()
    call.watch.start(PATIENCE_S)
    members = json_body(body)
    source = text_member(members, _INPUT, required=True, longest=MAX_ID)
    try:
        owner = await owner_of(call, FILE, source)
    except NotFound:
        raise NotFound(f"{_INPUT}: there is no file with the id {source!r}.", param=_INPUT) from None
    budgets = _budgets(call)
    place = place_of(call, owner)
    models = await _models(call, place, source, str(member(members, "endpoint")))
    fetched = await fetch(call, place, Errand("POST", "/batches", visit.query, body))
    assert call.key is not None and call.origin is not None
    call.plane.objects.made(
        BATCH,
        fetched.text("id"),
        key=call.key,
        provider=place.provider.slug,
        credential=call.attempts[-1].credential,
        model=place.model,
        details={
            "project": call.key.project,
            "feature": call.origin.feature,
            "session": call.origin.session,
            "user": call.origin.user,
            "tags": call.origin.tags,
            "budgets": [budget.id for budget in budgets],
            "models": sorted(models)[:_MAX_MODELS],
            "endpoint": str(member(members, "endpoint"))[:100],
        },
        due_in=FIRST_LOOK_S,
    )
    await reply(call, fetched)


def _budgets(call: Call) -> Budgets:
    """The budgets that the batch will be charged to. Raises ``UnprocessableEntity`` when one of them is hard."""
    key, origin = call.key, call.origin
    assert key is not None and origin is not None
    found = call.view.budgets_of(key, feature=origin.feature, user=call.user, tags=origin.tags)
    hard = next((budget for budget in found if budget.hard), None)
    if hard is not None:
        raise UnprocessableEntity(
            f"A batch cannot run under the hard budget {hard.slug!r}: what it costs is only known when it has ended. "
            "Use a service key or project without a hard budget, or make that budget a soft one.",
            code="batch_under_hard_budget",
        )
    return found


async def _models(call: Call, place: Place, source: str, endpoint: str) -> set[str]:
    """The models that a batch's file names.

    Raises ``InvalidRequest`` for a line with one that the key may not call, ``NotFound`` for one that refers to an object of
    another project, ``PolicyBlocked`` or ``ApprovalRequired`` for one that policies do not let pass.
    """
    policed = Lines(call, place, endpoint, _INPUT)
    allowed = callable_at(call, place)
    found: set[str] = set()
    named: set[str] = set()
    number = 0
    try:
        async for line in read_lines(call.plane.transport, place, source, f"{call.id}.0"):
            number += 1
            try:
                model = _decode_line(line).body.model
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise InvalidRequest(
                    f"{_INPUT}: line {number} is not a request in JSON with a model in its body.",
                    param=_INPUT,
                ) from None
            if model not in found and model not in allowed:
                known = ", ".join(sorted(allowed)[:10]) or "none"
                raise InvalidRequest(
                    f"{_INPUT}: line {number} names the model {model[:100]!r}. The lines of a batch name the provider's "
                    f"own models; of those at {place.provider.slug!r} this key may call: {known}.",
                    param=_INPUT,
                    code="model_not_found",
                )
            found.add(model)
            await policed.add(number, line, model)
            if any(mark in line for mark in _MARKS):
                named.update(texts_like_ids(decode_any(line)))
                if len(named) > _MAX_NAMED:
                    raise InvalidRequest(
                        f"{_INPUT}: the lines refer to more than {_MAX_NAMED} kept objects.", param=_INPUT
                    )
    except Failed as failed:
        raise GaveUp(failed.failure, place) from None
    await policed.end()
    if named:
        assert call.key is not None
        strangers = await call.plane.objects.foreign(
            named, provider=place.provider.slug, project_id=call.key.project_id
        )
        if strangers:
            raise NotFound(f"{_INPUT}: there is no object with the id {min(strangers)!r}.", param=_INPUT)
    return found


def callable_at(call: Call, place: Place) -> set[str]:
    """The provider's own names of the models at ``place`` that the key may call, by name or through a route."""
    view, key = call.view, call.key
    assert key is not None
    slugs = {slug for slug in view.targets if key.may_model(slug)}
    for slug, route in view.snapshot.routes.items():
        if key.may_route(slug):
            slugs.update((*(one.model for one in route.targets), *route.fallbacks))
    return {
        view.targets[slug].entry.upstream_model
        for slug in slugs
        if slug in view.targets and view.targets[slug].provider.slug == place.provider.slug
    }


def _seen(call: Call, place: Place, owner: Owner, fetched: Fetched) -> None:
    note_files(call.plane.objects, owner, fetched.body)


async def _each_seen(call: Call, place: Place, item: bytes, item_id: str) -> bytes | None:
    assert call.key is not None
    owner = await call.plane.objects.owner(BATCH, item_id, call.key.project_id)
    note_files(call.plane.objects, owner, item)
    return None


async def spare_output(call: Call, owner: Owner) -> None:
    """A file that says what a batch cost must not go before that is counted. Raises ``Conflict``."""
    batch: Any = owner.details.get("batch")
    if not isinstance(batch, str):
        return
    try:
        known = await call.plane.objects.owner(BATCH, batch, owner.project, afresh=True)
    except NotFound:
        known = None
    if known is None or not known.metered:
        raise Conflict(
            f"This file is the output of the batch {batch!r}, whose cost is not counted yet. Try again in a minute.",
            code="batch_not_counted",
            retry_after=30,
        )


ADDRESSES: dict[str, dict[str, Handler]] = {
    "/v1/batches": {
        "POST": handler("batches.create", _create),
        "GET": of_objects("batches.list", BATCH, usual=20, most=100, each=_each_seen),
    },
    "/v1/batches/{batch}": {"GET": of_object("batches.retrieve", BATCH, after=_seen)},
    "/v1/batches/{batch}/cancel": {"POST": of_object("batches.cancel", BATCH, after=_seen)},
}
