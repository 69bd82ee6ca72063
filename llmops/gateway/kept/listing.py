"""Lists of what a provider keeps: of everything that its account holds, a project sees what is its own.

A page is filled from as many pages of the provider as it takes, within bounds, and says truly whether more follows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec

from llmops.gateway.addresses import Handler, Visit
from llmops.gateway.call import Call
from llmops.gateway.endpoints.base import encode
from llmops.gateway.forwarding.calls import handler, owner_of
from llmops.gateway.forwarding.errands import Errand, Fetched, fetch, reply
from llmops.gateway.kept.places import Place, chosen_place, place_of

#: Pages of the provider that are read for one page of an answer at most, and how long they are.
MAX_PAGES, PAGE = 25, 1_000
_CURSORS = ("after", "before")


class _Item(msgspec.Struct):
    id: str


class _Page(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: bool = False


_decode_item = msgspec.json.Decoder(_Item).decode
_decode_page = msgspec.json.Decoder(_Page).decode


Each = Callable[[Call, Place, bytes, str], Awaitable[bytes | None]]


def of_objects(name: str, kind: str, *, usual: int, most: int, each: Each | None = None) -> Handler:
    """Who answers a list such as ``/v1/files``; ``usual`` and ``most`` are the provider's default and largest ``limit``.

    ``each`` sees every object (its JSON, its id) of the project before the client does, and may put another JSON in its place.
    """

    async def work(call: Call, visit: Visit) -> None:
        pairs = parse_qsl(visit.query.decode("latin-1"), keep_blank_values=True)
        query = dict(pairs)
        path = visit.path.removeprefix("/v1")
        # Whichever of several a provider takes, none is another project's.
        cursors = [await owner_of(call, kind, value) for name, value in pairs if name in _CURSORS and value]
        place = place_of(call, cursors[-1]) if cursors else chosen_place(call)
        limit = _limit(query, usual, most)
        if limit is None or query.get("before"):
            # What the provider does not understand it says itself.
            fetched = await fetch(call, place, Errand("GET", path, visit.query))
            more = _read(fetched).has_more
            await _answer(call, place, fetched, await _ours(call, kind, place, fetched), more, each)
            return
        first, found, more = await _filled(call, kind, place, path, query, limit, most)
        await _answer(call, place, first, found, more, each)

    return handler(name, work)


async def _filled(
    call: Call, kind: str, place: Place, path: str, query: Mapping[str, str], limit: int, most: int
) -> tuple[Fetched, list[msgspec.Raw], bool]:
    """One more than asked for is looked for, so that ``has_more`` is true only when something follows."""
    found: list[msgspec.Raw] = []
    asked = {**query, "limit": str(min(most, PAGE))}
    first: Fetched | None = None
    more = False
    for _ in range(MAX_PAGES):
        fetched = await fetch(call, place, Errand("GET", path, urlencode(asked).encode()))
        first = first or fetched
        page = _read(fetched)
        found += await _ours(call, kind, place, fetched)
        more = bool(page.has_more and page.data)
        if len(found) > limit or not more:
            break
        last = _id(page.data[-1])
        if not last or last == asked.get("after"):
            more = False
            break
        asked["after"] = last
    assert first is not None
    return first, found[:limit], more or len(found) > limit


async def _answer(
    call: Call, place: Place, page: Fetched, items: list[msgspec.Raw], more: bool, each: Each | None
) -> None:
    if each is not None:
        for index, item in enumerate(items):
            changed = await each(call, place, bytes(item), _id(item))
            if changed is not None:
                items[index] = msgspec.Raw(changed)
    await reply(call, page, _page(page, items, more))


async def _ours(call: Call, kind: str, place: Place, fetched: Fetched) -> list[msgspec.Raw]:
    assert call.key is not None
    items = [(one, _id(one)) for one in _read(fetched).data]
    owned = await call.plane.objects.owned(
        kind,
        [name for _, name in items if name],
        provider=place.provider.slug,
        project_id=call.key.project_id,
    )
    return [one for one, name in items if name in owned]


def _page(fetched: Fetched, items: list[msgspec.Raw], more: bool) -> bytes:
    """The provider's page with other items."""
    sent: dict[str, Any] = {"object": "list", **fetched.members}
    sent["data"] = items
    sent["first_id"] = _id(items[0]) if items else None
    sent["last_id"] = _id(items[-1]) if items else None
    sent["has_more"] = more
    return encode(sent)


def _read(fetched: Fetched) -> _Page:
    try:
        return _decode_page(fetched.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Page([])


def _id(item: msgspec.Raw) -> str:
    try:
        return _decode_item(item).id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _limit(query: Mapping[str, str], usual: int, most: int) -> int | None:
    """How many are asked for; None when that is no number the provider would take."""
    given = query.get("limit")
    if given is None:
        return usual
    sane = given.isascii() and given.isdigit() and len(given) < 10
    return int(given) if sane and 1 <= int(given) <= most else None
