"""Objects that a request refers to: earlier responses and items of them, conversations, files, vector stores, voices. They must
be the caller's own, or stand among those that the operator lets every project name, and the call goes where they are kept."""

from __future__ import annotations

import asyncio

from llmops.core.errors import InvalidRequest, NotFound, ServiceUnavailable
from llmops.gateway.call import Call
from llmops.gateway.endpoints.base import Reference
from llmops.gateway.kept.owners import MAX_ID
from llmops.gateway.policing.texts import refuse_twice
from llmops.gateway.routing import Resolution

#: More objects than this in one request are not looked up.
MAX_REFERENCES = 1_000
#: Where a reference may be kept: provider -> the id of the credential that made it, empty where that is not known.
Places = dict[str, str]


async def where_kept(call: Call, resolution: Resolution) -> tuple[Resolution, str]:
    """The targets of ``resolution`` at the provider that keeps what the request refers to, and the id of the credential that
    made it.

    Raises ``InvalidRequest`` or ``NotFound`` naming the member, ``ServiceUnavailable`` when it cannot be found out.
    """
    asked, key = call.asked, call.key
    assert asked is not None and key is not None
    references = list(dict.fromkeys(asked.refers))
    refuse_twice(asked.members)
    if len(references) + len(asked.tells) > MAX_REFERENCES:
        where = references[0].param if references else "input"
        raise InvalidRequest(
            f"{where}: the request refers to more than {MAX_REFERENCES} kept objects.", param=where
        )
    if asked.tells:
        await _not_anothers(call)
    if not references:
        return resolution, ""
    found = await _places(call, resolution, references)
    common = found[0]
    for one, places in zip(references[1:], found[1:], strict=True):
        left = {provider: common[provider] or places[provider] for provider in common if provider in places}
        if not left:
            raise InvalidRequest(
                f"{one.param}: {one.id!r} is kept by another provider than {references[0].id!r}; "
                "one request cannot use both.",
                param=one.param,
            )
        common = left
    for provider, credential in common.items():
        if (there := resolution.at(provider)) is not None:
            return there, credential
    one = references[0]
    raise InvalidRequest(
        f"{one.param}: {one.id!r} is kept by the provider {next(iter(common))!r}, and {resolution.name!r} leads to no "
        "model there. Name a model of that provider, or send what it holds instead of its id.",
        param=one.param,
    )


async def _places(call: Call, resolution: Resolution, references: list[Reference]) -> list[Places]:
    """Where each is. What this process does not know is looked up together."""
    objects, key = call.plane.objects, call.key
    assert key is not None
    found: list[Places | None] = []
    for one in references:
        owner = objects.known(one.kind, one.id, key.project_id)
        found.append(
            {owner.provider: owner.credential} if owner else await _shared(call, resolution, one.id) or None
        )
    missing = [one for one, places in zip(references, found, strict=True) if places is None]
    if missing:
        looked = iter(
            await asyncio.gather(
                *(objects.owner(one.kind, one.id, key.project_id) for one in missing), return_exceptions=True
            )
        )
        for index, one in enumerate(references):
            if found[index] is not None:
                continue
            owner_or = next(looked)
            if isinstance(owner_or, NotFound):
                raise _not_there(one) from None
            if isinstance(owner_or, BaseException):
                raise owner_or
            found[index] = {owner_or.provider: owner_or.credential}
    return [places for places in found if places is not None]


async def _shared(call: Call, resolution: Resolution, object_id: str) -> Places:
    """The providers of the call at which every project may name this object."""
    by_name, by_beginning = set(), set()
    for target in resolution.everything():
        for listed in target.provider.shared_objects:
            if listed == object_id:
                by_name.add(target.provider.slug)
            elif listed.endswith("*") and object_id.startswith(listed[:-1]):
                by_beginning.add(target.provider.slug)
    if by_name:
        return dict.fromkeys(by_name, "")
    assert call.key is not None
    if by_beginning and await call.plane.objects.foreign([object_id], project_id=call.key.project_id):
        # The beginning of ids stands for what was made elsewhere, not for what another project made here.
        return {}
    return dict.fromkeys(by_beginning, "")


async def _not_anothers(call: Call) -> None:
    """Items that stand in full in the request have no need to be kept anywhere, so they need not be known; but a provider may
    look at nothing but their ids."""
    asked, key = call.asked, call.key
    assert asked is not None and key is not None
    try:
        found = await call.plane.objects.foreign(asked.tells, project_id=key.project_id)
    except ServiceUnavailable:
        return
    if found:
        raise _not_there(Reference(None, min(found), "input", "not_found", "item"))


def _not_there(one: Reference) -> InvalidRequest | NotFound:
    said = (
        f"{one.param}: this project has no {one.what} with the id {one.id[:MAX_ID]!r}. Name one that its own service keys "
        "made; an operator can let every project name what was made elsewhere, on the provider's page."
    )
    if one.code == "not_found":
        return NotFound(said, param=one.param)
    # So OpenAI answers, and its clients know.
    return InvalidRequest(said, param=one.param, code=one.code)
