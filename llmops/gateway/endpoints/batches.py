"""/v1/batches: many requests in a file, answered within a day. OpenAI API reference, "Batch".

What a batch costs is known when it has ended (``metering.py``), so it is refused where a hard budget must hold. Its file
names the provider's own models, and only such as the key may call.
"""

from __future__ import annotations

import time
from typing import Any

from llmops.core.errors import Conflict, InvalidRequest, NotFound, UnpricedModel, UnprocessableEntity
from llmops.gateway.addresses import Handler, Visit
from llmops.gateway.attempts.upstream import Failed
from llmops.gateway.bodies import read_body
from llmops.gateway.call import Call
from llmops.gateway.endpoints.base import text_member
from llmops.gateway.endpoints.batch_lines import ADDRESSES as ADDRESSES_OF_LINES
from llmops.gateway.endpoints.batch_lines import Judge, Line, address_of
from llmops.gateway.forwarding.calls import handler, json_body, of_object, owner_of
from llmops.gateway.forwarding.errands import PATIENCE_S, Errand, Fetched, GaveUp, fetch, reply, see_through
from llmops.gateway.idempotency import repeating
from llmops.gateway.idempotency.seal import HEADER as IDEMPOTENCY_KEY
from llmops.gateway.kept.lines import read_lines
from llmops.gateway.kept.listing import of_objects
from llmops.gateway.kept.metering import FIRST_LOOK_S, note_files
from llmops.gateway.kept.owners import BATCH, FILE, MAX_ID, Owner
from llmops.gateway.kept.places import Place, place_of
from llmops.gateway.money import bounds
from llmops.gateway.policing.lines import Lines
from llmops.gateway.routing import Budgets

#: Models of one batch that are remembered.
_MAX_MODELS = 20
_INPUT = "input_file_id"
#: Lines that are judged together, beside the loop, in bytes.
_TOGETHER = 256 * 1024
_MODERATIONS = "/v1/moderations"


async def _create(call: Call, visit: Visit) -> None:
    body = await read_body(call)
    call.watch.start(PATIENCE_S)
    members = json_body(body)
    source = text_member(members, _INPUT, required=True, longest=MAX_ID)
    try:
        owner = await owner_of(call, FILE, source)
    except NotFound:
        raise NotFound(f"{_INPUT}: there is no file with the id {source!r}.", param=_INPUT) from None
    budgets = _budgets(call)
    place = place_of(call, owner)
    endpoint = address_of(text_member(members, "endpoint", required=True, longest=100))
    if not endpoint:
        raise InvalidRequest(
            f"endpoint: a batch here is for one of {', '.join(sorted(ADDRESSES_OF_LINES))}.", param="endpoint"
        )
    models = await _models(call, place, source, endpoint, budgets)
    if IDEMPOTENCY_KEY in call.headers and await repeating.answered(call, members):
        return
    call.reached = True
    see_through(call)
    try:
        fetched = await fetch(call, place, Errand("POST", "/batches", visit.query, body))
    except GaveUp as gave_up:
        call.reached = gave_up.failure.billed is None
        raise
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
            "endpoint": endpoint,
            "input": source,
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
    if bounds.HEADER in call.headers:
        raise bounds.never_known("a batch")
    return found


async def _models(call: Call, place: Place, source: str, endpoint: str, budgets: Budgets) -> set[str]:
    """The models that a batch's file names.

    Raises ``InvalidRequest`` for a line that is no such call, or has a model that the key may not call, ``UnpricedModel`` for
    one without a price, ``NotFound`` for one that refers to an object of another project, ``PolicyBlocked`` or
    ``ApprovalRequired`` for one that policies do not let pass.
    """
    policed = Lines(call, place, endpoint, _INPUT)
    judge = Judge(_INPUT, endpoint, callable_at(call, place), place.provider.slug)
    waiting: list[Line] = []
    size = number = 0

    async def look() -> None:
        nonlocal waiting, size
        lines, bytes_of_them = waiting, size
        waiting, size = [], 0
        models = await call.plane.off_loop(lambda: judge.look(lines), size=bytes_of_them)
        for (line_number, line), model in zip(lines, models, strict=True):
            await policed.add(line_number, line, model)

    try:
        async for line in read_lines(call.plane.transport, place, source, f"{call.id}.0"):
            number += 1
            waiting.append((number, line))
            size += len(line)
            if size > _TOGETHER:
                await look()
    except Failed as failed:
        raise GaveUp(failed.failure, place) from None
    await look()
    await policed.end()
    if budgets and endpoint != _MODERATIONS:
        for model, first in judge.models.items():
            _check_price(call, place, model, first, budgets)
    if judge.named:
        assert call.key is not None
        strangers = await call.plane.objects.foreign(
            judge.named, provider=place.provider.slug, project_id=call.key.project_id
        )
        if strangers:
            raise NotFound(f"{_INPUT}: there is no object with the id {min(strangers)!r}.", param=_INPUT)
    return set(judge.models)


def _check_price(call: Call, place: Place, model: str, line: int, budgets: Budgets) -> None:
    now = time.time()
    for target in call.view.targets.values():
        if (target.provider.slug, target.entry.upstream_model) != (place.provider.slug, model):
            continue
        prices = target.prices.at(now)
        if prices is not None and (prices.by_tokens or prices.images is not None):
            return
    raise UnpricedModel(
        f"{_INPUT}: line {line}: the model {model!r} has no price, so it cannot be called under the budget "
        f"{budgets[0].slug!r}. Give it a price in the console and publish.",
        param=_INPUT,
    )


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
