"""What an object that a provider keeps is known by: its owner, its id, and the one answer for what is not there."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from llmops.core.errors import NotFound, ServiceUnavailable

#: Kinds of objects; a pass-through object has the first segment of its path as its kind.
RESPONSE, FILE, UPLOAD, BATCH, CHAT = "response", "file", "upload", "batch", "chat.completion"
#: What an assistant said aloud, by whose id a later request may name it, and what a kept response holds: it is where, and
#: whose, the response is.
AUDIO, ITEM = "audio", "item"
#: The longest id of an object; a longer one names none.
MAX_ID = 200
_ID_LIKE = re.compile(r"[A-Za-z]+[-_][A-Za-z0-9_-]{4,}")


class Owner(msgspec.Struct, frozen=True):
    """Where an object is: ``provider`` is a slug, ``credential`` the id of the provider key that made it (it may be retired
    by now), ``model`` what the call that made it named. ``metered``: what it cost is booked."""

    kind: str
    id: str
    project: str
    key: str
    provider: str
    credential: str = ""
    model: str = ""
    made_at: float = 0.0
    gone: bool = False
    metered: bool = False
    details: Mapping[str, Any] = {}


class ShelfAway(Exception):
    """The database cannot be asked now."""


class Shelf(Protocol):
    """The database's part: ``shelf.DatabaseShelf``."""

    async def find(self, ids: Collection[str]) -> list[Owner]:
        """Every object with one of these ids, of whatever project and provider. Raises ``ShelfAway``."""
        ...

    async def close(self) -> None: ...


class NoShelf:
    """Nothing but what this process made itself."""

    async def find(self, ids: Collection[str]) -> list[Owner]:
        return []

    async def close(self) -> None:
        return None


def may_be_id(text: str) -> bool:
    """PostgreSQL refuses a whole question in which one text holds NUL."""
    return 0 < len(text) <= MAX_ID and "\0" not in text


def fits(owner: Owner, kind: str | None) -> bool:
    return kind is None or owner.kind == kind


def item_of(owner: Owner, item: str) -> Owner:
    """Where a thing inside of an object is."""
    return msgspec.structs.replace(owner, kind=ITEM, id=item, metered=False, details={})


def texts_like_ids(value: Any) -> Iterator[str]:
    """Every text in a JSON value that may be the id of an object; not the names of members."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if len(one) <= MAX_ID and _ID_LIKE.fullmatch(one):
                yield one
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            waiting += one.values()


def not_there(object_id: str) -> NotFound:
    """One answer for what does not exist, what was deleted, and what is another project's."""
    return NotFound(f"There is no object with the id {object_id[:MAX_ID]!r}.", param="id")


def cannot_tell() -> ServiceUnavailable:
    return ServiceUnavailable(
        "The console's database does not answer at the moment, so it cannot be told whose this object is. Try again.",
        retry_after=2,
    )
