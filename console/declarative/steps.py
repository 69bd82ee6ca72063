"""Steps of a plan, and how they are put into words. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from console.declarative.present import Present
from console.declarative.schema import Entry
from console.declarative.shape import Secret
from llmops.core.errors import ConsoleError
from llmops.core.money import format_usd
from llmops.providers.secret_stores import environment

CREATE, CHANGE, BRING_BACK, ACTIVATE, REPLACE, ROTATE, PRICE = (
    "create",
    "change",
    "bring back",
    "activate",
    "replace",
    "rotate",
    "price",
)
_SIGNS = {CREATE: "+", CHANGE: "~", BRING_BACK: "+", ACTIVATE: "~", REPLACE: "~", ROTATE: "~", PRICE: "+"}


@dataclass(frozen=True)
class Step:
    """One call of a service. ``values`` are what it is given (a change: only what differs); ``words`` say it."""

    action: str
    kind: str
    key: str
    line: int
    values: dict[str, Any] = field(repr=False)
    words: tuple[str, ...] = ()
    lines: dict[str, int] = field(default_factory=dict, repr=False)

    def line_of(self, name: str | None) -> int:
        """Where the file speaks of a member, or else of the object."""
        return self.lines.get(name or "", self.line)

    def __str__(self) -> str:
        head = f"{_SIGNS[self.action]} {self.kind} {self.key}"
        if self.action not in (CREATE, CHANGE):
            head += f": {self.action}"
        return "\n".join([head, *(f"    {line}" for line in self.words)])


@dataclass(frozen=True)
class Plan:
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()


#: The secret behind a reference as this process sees it, or None where it cannot be read here; raises ``ConsoleError``
#: for a reference that can never be read.
Reveal = Callable[[Secret], str | None]


class Planner(Protocol):
    """What the plan of one kind of object is made with."""

    notes: list[str]
    unread: list[tuple[str, str]]
    reveal: Reveal

    def plain(self, entry: Entry, present: Present | None, values: dict[str, Any]) -> Iterator[Step]: ...
    def refer(self, entry: Entry, member: str, kind: str, key: str) -> None: ...
    def missing(self, kind: str, key: str) -> bool: ...
    def step(self, action: str, entry: Entry, values: dict[str, Any], words: tuple[str, ...]) -> Step: ...
    def bad(self, entry: Entry, member: str, reason: str) -> None: ...


def placeholder(*names: str) -> str:
    """The environment variable that an export names in place of a secret that is kept in the database."""
    name = re.sub(r"[^A-Z0-9]+", "_", "_".join(names).upper()).strip("_")[:190]
    try:
        environment.check(name)
    except ConsoleError:
        name = f"KEY_{name}"
    return name


def same(left: Any, right: Any) -> bool:
    """Equality that tells true from 1, as JSON does, and 1.0 not from 1, as a database may."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def bare(error: ConsoleError) -> str:
    prefix = f"{error.param}: "
    return error.message.removeprefix(prefix) if error.param else error.message


def member(name: str) -> str:
    """The file's word for a field."""
    return f"{name.removesuffix('_nano')}_usd" if name.endswith("_nano") else name


def shown(name: str, value: Any) -> str:
    if name.endswith("_nano"):
        return f"{format_usd(value)} USD"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value in (None, "", [], {}):
        return "none"
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
