"""/v1/files and /v1/uploads: files that a provider keeps. OpenAI API reference, "Files" and "Uploads"."""

from __future__ import annotations

import msgspec

from llmops.core.errors import RequestTooLarge
from llmops.core.texts import size_words
from llmops.gateway.addresses import Handler, Visit
from llmops.gateway.bodies import read_body
from llmops.gateway.call import Call
from llmops.gateway.endpoints.batches import spare_output
from llmops.gateway.forwarding.calls import handler, json_body, of_object, owner_of, provider_path
from llmops.gateway.forwarding.errands import Errand, Fetched, fetch, reply, see_through
from llmops.gateway.forwarding.uploading import Upload
from llmops.gateway.kept.listing import of_objects
from llmops.gateway.kept.owners import FILE, UPLOAD, Owner
from llmops.gateway.kept.places import Place, chosen_place, place_of


async def _upload(call: Call, visit: Visit) -> None:
    place = chosen_place(call)
    upload = Upload(call, place.provider, largest=call.plane.max_upload)
    see_through(call)
    fetched = await fetch(call, place, Errand("POST", "/files", visit.query, upload))
    made(call, FILE, fetched.text("id"), place)
    await reply(call, fetched)


async def _begin(call: Call, visit: Visit) -> None:
    """An upload in parts begins."""
    place = chosen_place(call)
    body = await read_body(call)
    try:
        size = msgspec.json.decode(json_body(body).get("bytes", b"0"), type=int)
    except (msgspec.DecodeError, msgspec.ValidationError):
        size = 0
    if size > call.plane.max_upload:
        raise RequestTooLarge(
            f"bytes: {size:,} is more than the {size_words(call.plane.max_upload)} that may be uploaded here. Send several files; "
            "whoever runs the gateway can allow more.",
            param="bytes",
        )
    see_through(call)
    fetched = await fetch(call, place, Errand("POST", "/uploads", visit.query, body))
    made(call, UPLOAD, fetched.text("id"), place)
    await reply(call, fetched)


async def _part(call: Call, visit: Visit) -> None:
    owner = await owner_of(call, UPLOAD, visit.arguments["upload"])
    place = place_of(call, owner)
    upload = Upload(call, place.provider, largest=call.plane.max_upload)
    await reply(call, await fetch(call, place, Errand("POST", provider_path(visit), visit.query, upload)))


class _File(msgspec.Struct):
    id: str = ""


def _completed(call: Call, place: Place, owner: Owner, fetched: Fetched) -> None:
    """The file that an upload has become is the project's own."""
    try:
        made(call, FILE, msgspec.json.decode(fetched.members.get("file", b"{}"), type=_File).id, place)
    except msgspec.DecodeError:
        return


def made(call: Call, kind: str, object_id: str, place: Place, **known: object) -> None:
    """An object was made at ``place``, with the provider key that answered."""
    assert call.key is not None
    call.plane.objects.made(
        kind,
        object_id,
        key=call.key,
        provider=place.provider.slug,
        credential=call.attempts[-1].credential,
        model=place.model,
        **known,  # type: ignore[arg-type]
    )


ADDRESSES: dict[str, dict[str, Handler]] = {
    "/v1/files": {
        "POST": handler("files.create", _upload),
        "GET": of_objects("files.list", FILE, usual=10_000, most=10_000),
    },
    "/v1/files/{file}": {
        "GET": of_object("files.retrieve", FILE),
        "DELETE": of_object("files.delete", FILE, deletes=True, before=spare_output),
    },
    "/v1/files/{file}/content": {"GET": of_object("files.content", FILE, content=True)},
    "/v1/uploads": {"POST": handler("uploads.create", _begin)},
    "/v1/uploads/{upload}/parts": {"POST": handler("uploads.parts.create", _part)},
    "/v1/uploads/{upload}/complete": {"POST": of_object("uploads.complete", UPLOAD, after=_completed)},
    "/v1/uploads/{upload}/cancel": {"POST": of_object("uploads.cancel", UPLOAD)},
}
