"""What the simulated provider keeps: files, batches, stored chats. Gone when it stops; the oldest make room for the newest."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Generic, TypeVar
from urllib.parse import parse_qs

import msgspec

from llmops.simulator.errors import ApiError, wrong

_IN_MEMORY = 1024 * 1024
_PIECE = 64 * 1024
MOST = 10_000

Kept = TypeVar("Kept", bound="Thing")


@dataclass(slots=True)
class Thing:
    """``shown`` is the object as the API has it."""

    shown: dict[str, Any]

    @property
    def id(self) -> str:
        found: str = self.shown["id"]
        return found

    def close(self) -> None:
        """It makes room."""


@dataclass(slots=True)
class File(Thing):
    content: IO[bytes]

    def pieces(self) -> Iterator[bytes]:
        self.content.seek(0)
        while piece := self.content.read(_PIECE):
            yield piece

    def close(self) -> None:
        self.content.close()


@dataclass(slots=True)
class Batch(Thing):
    due: float
    #: whose key made it: its lines are asked with the same
    headers: dict[bytes, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Chat(Thing):
    messages: list[dict[str, Any]] = field(default_factory=list)


class Shelf(Generic[Kept]):
    """Things of one kind, oldest first. ``what`` is their name in an error."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._things: dict[str, Kept] = {}

    def put(self, thing: Kept) -> None:
        self._things[thing.id] = thing
        while len(self._things) > MOST:
            self._things.pop(next(iter(self._things))).close()

    def get(self, name: str) -> Kept:
        found = self._things.get(name)
        if found is None:
            raise ApiError(404, f"No such {self._what} object: {name}", param="id")
        return found

    def take(self, name: str) -> Kept:
        found = self.get(name)
        del self._things[name]
        return found

    def page(
        self, query: bytes, usual: int, most: int, wanted: Callable[[dict[str, Any]], bool] | None = None
    ) -> bytes:
        """A list as the API pages it: ``limit``, ``after``, ``order`` (newest first unless asked otherwise)."""
        asked = {name: values[-1] for name, values in parse_qs(query.decode("latin-1")).items()}
        try:
            limit = int(asked.get("limit", str(usual)))
        except ValueError as error:
            raise wrong("Invalid 'limit': it is a whole number.", "limit", "invalid_type") from error
        if not 1 <= limit <= most:
            raise wrong(f"Invalid 'limit': it is from 1 to {most}.", "limit", "integer_out_of_range")
        things = list(self._things.values())
        if asked.get("order", "desc") == "desc":
            things.reverse()
        if "after" in asked:
            names = [thing.id for thing in things]
            self.get(asked["after"])
            things = things[names.index(asked["after"]) + 1 :]
        if "purpose" in asked:
            things = [thing for thing in things if thing.shown.get("purpose") == asked["purpose"]]
        if wanted is not None:
            things = [thing for thing in things if wanted(thing.shown)]
        data = [thing.shown for thing in things[:limit]]
        return msgspec.json.encode(
            {
                "object": "list",
                "data": data,
                "first_id": data[0]["id"] if data else None,
                "last_id": data[-1]["id"] if data else None,
                "has_more": len(things) > limit,
            }
        )


class Keeping:
    """All that one simulator keeps."""

    def __init__(self) -> None:
        self.files: Shelf[File] = Shelf("File")
        self.batches: Shelf[Batch] = Shelf("Batch")
        self.chats: Shelf[Chat] = Shelf("ChatCompletion")

    def new_file(self, file_id: str, made_at: float, name: str, purpose: str) -> File:
        """An empty file: write to its ``content``, then ``seal`` it."""
        shown = {
            "id": file_id,
            "object": "file",
            "bytes": 0,
            "created_at": int(made_at),
            "expires_at": None,
            "filename": name,
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
        }
        return File(shown, tempfile.SpooledTemporaryFile(_IN_MEMORY))

    def seal(self, file: File) -> None:
        file.shown["bytes"] = file.content.tell()
        self.files.put(file)
