"""Reading the trail: by object, person, action and time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import Model, Q, QuerySet
from django.utils.module_loading import import_string

from llmops.audit import wording
from llmops.audit.models import ChainHead, Event

_MOST_LINES = 200


@dataclass(frozen=True)
class Line:
    """One event about an object, for a page."""

    sequence: int
    at: datetime
    who: str
    action: str
    changes: list[str]
    reason: str
    name: str = ""

    @property
    def summary(self) -> str:
        changed = f" ({', '.join(self.changes)})" if self.changes else ""
        return f"{self.who} did “{self.action}”{changed} at {self.at:%H:%M:%S} UTC"

    @property
    def told(self) -> str:
        """As ``summary``, with the object's name."""
        changed = f" ({', '.join(self.changes)})" if self.changes else ""
        return f"{self.who} did “{self.action}” on {self.name}{changed} at {self.at:%H:%M:%S} UTC"


def object_history(obj: Model, *, since: datetime | None = None, most: int = _MOST_LINES) -> list[Line]:
    """The newest events about ``obj``. ``settings.OBJECT_HISTORY`` points here."""
    events = Event.objects.filter(object_id=str(obj.pk), object_type__in=[type_of(obj), obj._meta.model_name])
    if since is not None:
        events = events.filter(at__gt=since)
    return [line_of(event) for event in events[:most]]


def type_of(obj: Model | type[Model]) -> str:
    """The ``object_type`` of events about ``obj``: ``app.model`` in lower case."""
    return obj._meta.label_lower


def line_of(event: Event) -> Line:
    return Line(
        sequence=event.sequence,
        at=event.at,
        who=event.actor_name,
        action=event.action,
        changes=wording.changes(event.before, event.after),
        reason=event.reason,
        name=event.object_name,
    )


def any_of(events: QuerySet[Event], kinds: Iterable[str]) -> QuerySet[Event]:
    """Those whose ``object_type`` begins with one of ``kinds``."""
    wanted = Q()
    for kind in kinds:
        wanted |= Q(object_type__startswith=kind)
    return events.filter(wanted)


def changes_since(sequence: int, kinds: Iterable[str], *, most: int = 20) -> list[Line]:
    """The first events after ``sequence`` about objects of ``kinds`` (beginnings of ``object_type``), in their order."""
    found = any_of(Event.objects.filter(sequence__gt=sequence), kinds).order_by("sequence")
    return [line_of(event) for event in found[:most]]


def actors_named(text: str) -> list[str]:
    """Identifiers of whom ``text`` may mean. ``settings.ACTORS_NAMED`` names who knows, a room above."""
    work: Callable[[str], list[str]] = import_string(settings.ACTORS_NAMED)
    return work(text)


def events(
    *,
    object_type: str = "",
    object_id: str = "",
    actor_id: str = "",
    action: str = "",
    project_id: Any = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> QuerySet[Event]:
    """Events that match everything given, newest first. ``action`` may be a prefix that ends in a dot."""
    found = Event.objects.all()
    if object_type:
        found = found.filter(object_type=object_type)
    if object_id:
        found = found.filter(object_id=object_id)
    if actor_id:
        found = found.filter(actor_id=actor_id)
    if action:
        found = (
            found.filter(action__startswith=action) if action.endswith(".") else found.filter(action=action)
        )
    if project_id:
        found = found.filter(project_id=project_id)
    if since:
        found = found.filter(at__gte=since)
    if until:
        found = found.filter(at__lt=until)
    return found


def in_order(*, first: int = 1, last: int | None = None, chunk: int = 1000) -> Iterator[Event]:
    """Events from ``first`` to ``last`` in ascending order, a chunk in memory at a time."""
    position = first - 1
    while True:
        batch = Event.objects.filter(sequence__gt=position)
        if last is not None:
            batch = batch.filter(sequence__lte=last)
        rows = list(batch.order_by("sequence")[:chunk])
        if not rows:
            return
        yield from rows
        position = rows[-1].sequence


def head() -> tuple[int, str]:
    """``(sequence, hash)`` of the last event as the chain head has it."""
    return ChainHead.objects.values_list("sequence", "hash").get(pk=1)
