"""Objects that a request refers to: earlier responses, conversations, files. They must be the caller's own, and the call goes
where they are kept."""

from __future__ import annotations

from llmops.core.errors import InvalidRequest, NotFound
from llmops.gateway.call import Call
from llmops.gateway.endpoints.base import Reference
from llmops.gateway.kept.objects import MAX_ID, Owner
from llmops.gateway.routing import Resolution

#: More objects than this in one request are not looked up.
MAX_REFERENCES = 128


async def where_kept(call: Call, resolution: Resolution) -> tuple[Resolution, str]:
    """The targets of ``resolution`` at the provider that keeps what the request refers to, and the id of the credential that
    made it.

    Raises ``InvalidRequest`` or ``NotFound`` naming the member, ``ServiceUnavailable`` when it cannot be found out.
    """
    asked, key = call.asked, call.key
    assert asked is not None and key is not None
    references = list(dict.fromkeys(asked.refers))
    if len(references) > MAX_REFERENCES:
        raise InvalidRequest(
            f"{references[0].param}: the request refers to more than {MAX_REFERENCES} kept objects.",
            param=references[0].param,
        )
    first: Owner | None = None
    for one in references:
        try:
            owner = await call.plane.objects.owner(one.kind, one.id, key.project_id)
        except NotFound:
            raise _not_there(one) from None
        if first is None:
            first = owner
        elif owner.provider != first.provider:
            raise InvalidRequest(
                f"{one.param}: {one.id!r} is kept by another provider than {references[0].id!r}; "
                "one request cannot use both.",
                param=one.param,
            )
    assert first is not None
    there = resolution.at(first.provider)
    if there is None:
        one = references[0]
        raise InvalidRequest(
            f"{one.param}: {one.id!r} is kept by the provider {first.provider!r}, and {resolution.name!r} leads to no "
            "model there. Name a model of that provider, or send what it holds instead of its id.",
            param=one.param,
        )
    return there, first.credential


def _not_there(one: Reference) -> InvalidRequest | NotFound:
    said = f"{one.param}: there is no {one.what} with the id {one.id[:MAX_ID]!r}."
    if one.code == "not_found":
        return NotFound(said, param=one.param)
    # So OpenAI answers, and its clients know.
    return InvalidRequest(said, param=one.param, code=one.code)
