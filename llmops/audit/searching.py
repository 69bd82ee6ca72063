"""Looking through the trail a page at a time, at the same cost however long it is.

Pages follow the sequence number (keyset paging). What narrows most is asked by equality, one question a value, since each
has an index in the order of the sequence (``Event.Meta.indexes``); the answers are merged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import QuerySet

from llmops.audit.models import Event

PAGE = 50
#: Clocks are set back at times, so times are only nearly in the order of the sequence.
_SLACK = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for; everything given must fit. ``project_ids``: None is everything, a list its members' events only.

    ``actor_ids``: any of them, None is anybody. ``action``: one, or with a dot at the end all that begin so.
    """

    project_ids: Collection[Any] | None = None
    object_type: str = ""
    object_id: str = ""
    actor_ids: Collection[str] | None = None
    action: str = ""
    ip: str = ""
    request_id: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Newest first. ``newer`` and ``older`` say whether there is more on that side."""

    events: list[Event]
    newer: bool
    older: bool


def page(search: Search, *, before: int | None = None, after: int | None = None, size: int = PAGE) -> Page:
    """The newest ``size`` events of ``search``, or those next to a sequence number: ``before`` it, or ``after`` it."""
    upwards = after is not None
    found: set[int] = set()
    for branch in _branches(search):
        if before is not None:
            branch = branch.filter(sequence__lt=before)
        if after is not None:
            branch = branch.filter(sequence__gt=after)
        in_turn = branch.order_by("sequence" if upwards else "-sequence")
        found.update(in_turn.values_list("sequence", flat=True)[: size + 1])
    ordered = sorted(found, reverse=not upwards)
    events = list(Event.objects.filter(sequence__in=ordered[:size]).order_by("-sequence"))
    more = len(ordered) > size
    if upwards:
        return Page(events, newer=more, older=True)
    return Page(events, newer=before is not None, older=more)


def ascending(search: Search, *, chunk: int = 500) -> Iterator[list[Event]]:
    """All events of ``search``, oldest first, a chunk in memory at a time."""
    position = 0
    while True:
        found = page(search, after=position, size=chunk).events[::-1]
        if not found:
            return
        yield found
        position = found[-1].sequence


def exists(search: Search) -> bool:
    return bool(page(search, size=1).events)


def actions() -> list[str]:
    """Every action that the trail has, each found by one step in the index."""
    return _distinct("action")


def object_types() -> list[str]:
    """Every kind of object that the trail speaks of."""
    return _distinct("object_type")


def bounds(since: datetime | None, until: datetime | None) -> tuple[int | None, int | None] | None:
    """Sequence numbers within which the events of this time lie; None where there can be none."""
    first = last = None
    if since is not None:
        rows = Event.objects.filter(at__gte=since - _SLACK).order_by("at", "sequence")
        first = rows.values_list("sequence", flat=True).first()
        if first is None:
            return None
    if until is not None:
        rows = Event.objects.filter(at__lt=until + _SLACK).order_by("-at", "-sequence")
        last = rows.values_list("sequence", flat=True).first()
        if last is None:
            return None
    return first, last


def _branches(search: Search) -> list[QuerySet[Event]]:
    """Queries of which each follows one index, and which have no event in common."""
    rows = Event.objects.all()
    if search.since is not None or search.until is not None:
        within = bounds(search.since, search.until)
        if within is None:
            return []
        first, last = within
        if search.since is not None:
            # A clock that was set back within the hour may have left earlier numbers in this time.
            rows = rows.filter(at__gte=search.since, sequence__gte=first)
        if search.until is not None:
            rows = rows.filter(at__lt=search.until, sequence__lte=last)
    equal = {
        name: value
        for name in ("object_type", "object_id", "ip", "request_id")
        if (value := getattr(search, name))
    }
    rows = rows.filter(**equal)
    many: list[tuple[str, Collection[Any]]] = []
    if search.actor_ids is not None:
        many.append(("actor_id", search.actor_ids))
    if search.action:
        many.append(("action", actions_named(search.action)))
    if search.project_ids is not None:
        many.append(("project_id", search.project_ids))
    if any(not values for _, values in many):
        return []
    # One way is walked by its index; the others narrow on the way. An object or a request has an index of its own.
    asunder = [] if equal.keys() & {"object_id", "request_id", "ip"} else many[:1]
    for name, values in many[len(asunder) :]:
        rows = rows.filter(**{f"{name}__in": list(values)})
    if not asunder:
        return [rows]
    name, values = asunder[0]
    return [rows.filter(**{name: value}) for value in values]


def actions_named(action: str) -> list[str]:
    """Every action that ``action`` means: itself, or with a dot at the end all that begin so."""
    return [one for one in actions() if one.startswith(action)] if action.endswith(".") else [action]


def _distinct(column: str) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH RECURSIVE found(one) AS (SELECT MIN({column}) FROM audit_event "  # noqa: S608 - a name of ours
            f"UNION ALL SELECT (SELECT MIN({column}) FROM audit_event WHERE {column} > found.one) "
            "FROM found WHERE found.one IS NOT NULL) SELECT one FROM found WHERE one IS NOT NULL"
        )
        return [one for (one,) in cursor.fetchall()]
