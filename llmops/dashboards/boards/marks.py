"""What was done meanwhile: publishes, rotations, switches, incidents, as the audit trail has them."""

from __future__ import annotations

from django.urls import NoReverseMatch, reverse

from llmops.audit.models import Event
from llmops.dashboards.boards.gather import Gathered
from llmops.dashboards.boards.shapes import Mark

#: action -> (kind, what happened). Of the whole organisation, so they are told to those who may look at what they are about.
_REVISIONS = {
    "revision.published": ("publish", "{name} went live"),
    "revision.restored": ("publish", "{name} went live again (roll-back)"),
    "switch.turned_on": ("switch", "Switch {name} was turned on"),
    "switch.turned_off": ("switch", "Switch {name} was turned off"),
    "route.paused": ("switch", "Route {name} was paused"),
    "route.degraded": ("switch", "Route {name} was degraded"),
    "route.breakers_reset": ("switch", "Breakers of route {name} were reset"),
}
_PROVIDERS = {
    "rotation.activated": ("rotation", "Rotation of {name}: the new key is in use"),
    "rotation.returned": ("rotation", "Rotation of {name} was taken back"),
    "credential.revoked": ("rotation", "Provider key {name} was revoked"),
    "credential.replaced": ("rotation", "Provider key {name} was replaced"),
    "provider.paused": ("switch", "Provider {name} was paused"),
}
_INCIDENTS = {
    "incident.opened": ("incident", "Incident: {name}"),
    "incident.came_back": ("incident", "Incident again: {name}"),
    "incident.resolved": ("incident", "Resolved: {name}"),
}
MOST = 40


def marks(of: Gathered) -> list[Mark]:
    """The newest in the range, oldest first. One query."""
    scope = of.scope
    told = {
        **(_REVISIONS if scope.revisions else {}),
        **(_PROVIDERS if scope.providers else {}),
        **_INCIDENTS,
    }
    events = Event.objects.filter(action__in=list(told), at__gte=of.start, at__lt=of.end)
    if not scope.everywhere:
        # Incidents of one's own projects alone; what belongs to none is the organisation's.
        mine = [pk for pk, _ in scope.projects]
        own = events.filter(action__in=list(_INCIDENTS), project_id__in=mine)
        events = own | events.exclude(action__in=list(_INCIDENTS)).filter(project_id=None)
    rows = events.order_by("-sequence").values_list("sequence", "at", "action", "object_name")[:MOST]
    found = []
    for sequence, at, action, name in rows:
        kind, text = told[action]
        said = text.format(name=name)
        found.append(Mark(at, kind, said[:1].upper() + said[1:], _page(sequence) if scope.audit else ""))
    return found[::-1]


def _page(sequence: int) -> str:
    try:
        return reverse("dashboards:event", args=[sequence])
    except NoReverseMatch:
        return ""
