"""Events as the Audit pages show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest
from django.urls import reverse

from llmops.access.models import Project
from llmops.access.selectors import may, projects_for
from llmops.audit import searching, wording
from llmops.audit.models import Event
from llmops.audit.objects import address_of, in_words, kind_of
from llmops.dashboards.trail.difference import FieldDifference, differences
from llmops.dashboards.trail.query import name_to_find

#: Other events of the same request or object that an event's page lists.
NEIGHBOURS = 12
PERMISSION = "audit.view"


@dataclass(frozen=True, slots=True)
class Reader:
    """``projects`` are those whose events may be seen; ``everywhere`` says that it is the whole organisation."""

    projects: tuple[Project, ...]
    everywhere: bool

    @classmethod
    def of(cls, request: HttpRequest) -> Reader:
        return cls(tuple(projects_for(request, PERMISSION)), may(request, PERMISSION))

    @property
    def project_ids(self) -> list[Any] | None:
        return None if self.everywhere else [project.pk for project in self.projects]


@dataclass(frozen=True, slots=True)
class EventRow:
    event: Event
    href: str
    title: str
    kind: str
    changes: list[str]
    more: int


def row_of(event: Event) -> EventRow:
    lines = wording.changes(event.before, event.after)
    return EventRow(
        event, reverse("dashboards:event", args=[event.pk]), in_words(event.action), kind_of(event), lines[:2], max(0, len(lines) - 2)
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Story:
    """One event with all that is known of it. The addresses are empty where there is nothing to lead to."""

    event: Event
    title: str
    kind: str
    project: str
    changes: list[str]
    differences: list[FieldDifference]
    object_href: str
    history_href: str
    actor_href: str
    ip_href: str
    request_href: str
    agent: str
    session: str
    of_request: list[EventRow]
    earlier: EventRow | None
    later: EventRow | None


def story(reader: Reader, sequence: int) -> Story | None:
    """None where there is no such event, or none that the reader may see."""
    if sequence >= 2**63:
        return None
    seen = Event.objects.filter(pk=sequence)
    if reader.project_ids is not None:
        seen = seen.filter(project_id__in=reader.project_ids)
    event = seen.first()
    if event is None:
        return None
    about = searching.Search(reader.project_ids, object_type=event.object_type, object_id=event.object_id)
    earlier = later = None
    if event.object_id:
        earlier = _first(searching.page(about, before=event.pk, size=1))
        later = _first(searching.page(about, after=event.pk, size=1))
    beside: list[EventRow] = []
    if event.request_id:
        same = searching.Search(reader.project_ids, request_id=event.request_id)
        found = searching.page(same, size=NEIGHBOURS).events
        beside = [row_of(one) for one in found[::-1] if one.pk != event.pk]
    origin = event.origin or {}
    who = name_to_find(event.actor_kind, event.actor_id, event.actor_name)
    return Story(
        event=event,
        title=in_words(event.action),
        kind=kind_of(event),
        project=_project_name(event),
        changes=wording.changes(event.before, event.after),
        differences=differences(event.before, event.after),
        object_href=address_of(event) or "" if event.object_id else "",
        history_href=history_address(event.object_type, event.object_id) if event.object_id else "",
        actor_href=_list(who=who),
        ip_href=_list(ip=event.ip) if event.ip else "",
        request_href=_list(request=event.request_id) if event.request_id else "",
        agent=origin.get("agent", ""),
        session=origin.get("session", ""),
        of_request=beside,
        earlier=earlier,
        later=later,
    )


def history_address(object_type: str, object_id: str) -> str:
    """The Audit page narrowed to one object."""
    return _list(kind=object_type, object=object_id)


def _list(**narrowed: str) -> str:
    return f"{reverse('dashboards:audit')}?{urlencode(narrowed)}"


def _first(page: searching.Page) -> EventRow | None:
    return row_of(page.events[0]) if page.events else None


def _project_name(event: Event) -> str:
    if event.project_id is None:
        return "The whole organisation"
    name = Project.objects.filter(pk=event.project_id).values_list("name", flat=True).first()
    return name or "a project that is gone"
