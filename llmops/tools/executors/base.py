"""What every way of carrying an action out shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmops.core.texts import deeper_than

#: The largest result that is kept and shown to a model, in bytes of JSON.
MOST_RESULT_BYTES = 256 * 1024
#: Deeper ones are kept as text: no page would show them.
DEEPEST_RESULT = 100

State = Literal["succeeded", "failed", "unknown"]


@dataclass(frozen=True, slots=True)
class Job:
    """One call that may be carried out now. ``key`` is the same whenever the same action is meant; ``at`` is when it was
    claimed (Unix seconds); ``secret`` signs it where the executor signs."""

    key: str
    tool: str
    version: int
    arguments: Mapping[str, Any]
    digest: str
    timeout_s: float
    settings: Mapping[str, Any]
    at: int
    secret: str = field(default="", repr=False)
    run: str = ""
    risk: str = ""
    proposed_by: str = ""
    approved_by: tuple[str, ...] = ()
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """``failed`` says that nothing happened, or that whoever carries it out said no; ``unknown`` that it may have happened."""

    state: State
    result: Any = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Executor:
    """``check`` gives the settings as they are kept, or raises ``InvalidRequest`` with ``param`` below
    ``definition.settings``; ``run`` never raises. ``signs``: it needs the tool's secret.

    ``end`` says where a call with these settings ends, in one way of writing it, and ``ends_at`` what such a place is called;
    ``shared``: it is the same place for every project."""

    name: str
    title: str
    check: Callable[[Mapping[str, Any]], dict[str, Any]]
    run: Callable[[Job], Outcome]
    end: Callable[[Mapping[str, Any]], str]
    ends_at: str
    signs: bool = False
    shared: bool = False


def storable(value: Any) -> Any:
    """A result without what a database refuses to hold (NUL, halves of surrogate pairs)."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    return value


def too_deep(value: Any) -> bool:
    return deeper_than(value, DEEPEST_RESULT)
