"""Switches as their page shows them: what is paused or degraded, since when, why and by whom; and throwing one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied as Denied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from llmops.access import services as access
from llmops.access.models import ServiceKey
from llmops.access.selectors import may, may_anywhere, visible
from llmops.audit.models import Event
from llmops.base.refusals import REFUSALS, as_console_error
from llmops.base.requests import actor_of
from llmops.core.errors import InvalidRequest, NotFound, PermissionDenied
from llmops.dashboards.reader import Reader
from llmops.providers import services as providers
from llmops.providers.models import Provider, Route
from llmops.serving import services as serving
from llmops.serving.selectors import organisation_switches
from llmops.serving.switches import SWITCHES
from llmops.tools import services as tools
from llmops.tools.models import Tool

PAUSED, DEGRADED = "paused", "degraded"
#: Most objects of a kind that are offered to be paused.
CHOICES = 500


@dataclass(frozen=True, slots=True)
class On:
    """One switch that is on. ``value`` names it in the form; ``may``: whoever looks may throw it."""

    kind: str
    name: str
    state: str
    reason: str
    since: datetime
    who: str
    href: str
    value: str
    may: bool


@dataclass(frozen=True, slots=True)
class Whole:
    """A switch of the whole organisation, on or off."""

    name: str
    title: str
    does: str
    on: On | None


@dataclass(frozen=True, slots=True)
class Offer:
    """Objects of one kind that can be paused."""

    title: str
    options: tuple[tuple[str, str], ...]


def whole(request: HttpRequest) -> list[Whole]:
    on = {row.name: row for row in organisation_switches()}
    allowed = may(request, "route.manage")
    return [
        Whole(
            name,
            switch.title,
            switch.does,
            On(
                "Organisation",
                switch.title,
                "on",
                on[name].reason,
                on[name].since,
                on[name].by,
                "",
                f"organisation:{name}",
                allowed,
            )
            if name in on
            else None,
        )
        for name, switch in SWITCHES.items()
    ]


def on_now(reader: Reader) -> list[On]:
    """Routes, providers and keys that are paused or degraded and that the reader may see; the longest first."""
    found = list(_rows(reader))
    events = _who({str(row.pk) for _, row, *_ in found})
    lines = [
        On(
            kind,
            str(getattr(row, "slug", None) or row),
            state,
            reason,
            since,
            events.get((str(row.pk), state), ""),
            reader.link(row._meta.label_lower, row.pk),
            f"{row._meta.model_name}-{state}:{row.pk}",
            allowed,
        )
        for kind, row, state, reason, since, allowed in found
    ]
    return sorted(lines, key=lambda line: line.since)


def _rows(reader: Reader) -> Iterator[tuple[str, Any, str, str, datetime, bool]]:
    request = reader.request
    if may_anywhere(request, "provider.view"):
        allowed = may(request, "provider.manage")
        for provider in Provider.objects.filter(paused_at__isnull=False, archived_at=None):
            yield "Provider", provider, PAUSED, provider.pause_reason, provider.paused_at, allowed  # type: ignore[misc]
    if may_anywhere(request, "route.view"):
        allowed = may(request, "route.manage")
        for route in Route.objects.filter(archived_at=None).exclude(paused_at=None, degraded_at=None):
            if route.paused_at:
                yield "Route", route, PAUSED, route.pause_reason, route.paused_at, allowed
            if route.degraded_at:
                yield "Route", route, DEGRADED, route.degrade_reason, route.degraded_at, allowed
    for tool in _tools(request).filter(paused_at__isnull=False):
        allowed = may(request, "tool.manage", tool.project)
        yield "Tool", tool, PAUSED, tool.pause_reason, tool.paused_at, allowed
    for key in _keys(request).filter(paused_at__isnull=False):
        allowed = may(request, "service_key.manage", key.project)
        yield "Service key", key, PAUSED, key.pause_reason, key.paused_at, allowed


def _keys(request: HttpRequest) -> Any:
    keys = ServiceKey.objects.filter(revoked_at=None).select_related("project")
    return visible(keys, request, "service_key.view").order_by("project__slug", "name")


def _tools(request: HttpRequest) -> Any:
    tools = Tool.objects.filter(archived_at=None).select_related("project")
    return visible(tools, request, "tool.view").order_by("project__slug", "slug")


def _who(ids: set[str]) -> dict[tuple[str, str], str]:
    """Who threw each switch last, by object and state."""
    actions = {
        "route.paused": PAUSED,
        "provider.paused": PAUSED,
        "service_key.paused": PAUSED,
        "tool.paused": PAUSED,
        "route.degraded": DEGRADED,
    }
    rows = Event.objects.filter(object_id__in=ids, action__in=actions).order_by("sequence")
    return {
        (object_id, actions[action]): name
        for object_id, action, name in rows.values_list("object_id", "action", "actor_name")
    }


def offers(request: HttpRequest) -> list[Offer]:
    """What whoever asks may pause."""
    found = []
    if may(request, "route.manage"):
        routes = Route.objects.filter(archived_at=None).order_by("slug")
        usual = [(f"route-paused:{row.pk}", row.slug) for row in routes.filter(paused_at=None)[:CHOICES]]
        found.append(Offer("Pause a route", tuple(usual)))
        lesser = [(f"route-degraded:{row.pk}", row.slug) for row in routes.filter(degraded_at=None)[:CHOICES]]
        found.append(Offer("Degrade a route to its fallbacks", tuple(lesser)))
    if may(request, "provider.manage"):
        rows = Provider.objects.filter(archived_at=None, paused_at=None).order_by("slug")
        found.append(
            Offer(
                "Pause a provider", tuple((f"provider-paused:{row.pk}", row.slug) for row in rows[:CHOICES])
            )
        )
    idle = visible(_tools(request).filter(paused_at=None), request, "tool.manage")
    found.append(
        Offer(
            "Pause a tool",
            tuple((f"tool-paused:{row.pk}", f"{row.project.slug} / {row.slug}") for row in idle[:CHOICES]),
        )
    )
    keys = visible(_keys(request).filter(paused_at=None), request, "service_key.manage")
    named = tuple((f"servicekey-paused:{row.pk}", f"{row.project.slug} / {row}") for row in keys[:CHOICES])
    found.append(Offer("Pause a service key", named))
    return [offer for offer in found if offer.options]


_Throw = Callable[..., Any]
#: what the form names -> the permission, and how it is thrown on and off
_SWITCHES: dict[str, tuple[str, type[Any], str, _Throw, _Throw]] = {
    "route-paused": ("route.manage", Route, "route", providers.pause_route, providers.resume_route),
    "route-degraded": ("route.manage", Route, "route", providers.degrade_route, providers.recover_route),
    "provider-paused": (
        "provider.manage", Provider, "provider", providers.pause_provider, providers.resume_provider,
    ),
    "tool-paused": ("tool.manage", Tool, "tool", tools.pause_tool, tools.resume_tool),
    "servicekey-paused": (
        "service_key.manage", ServiceKey, "key", access.pause_service_key, access.resume_service_key,
    ),
}  # fmt: skip


def throw(request: HttpRequest, *, value: str, on: bool, reason: str) -> str:
    """Throw the switch that ``value`` names; what to say about it. Raises what the services raise, ``PermissionDenied``, and
    ``NotFound`` for what is not there or may not be seen."""
    actor = actor_of(request)
    what, _, name = value.partition(":")
    if what == "organisation":
        if not may(request, "route.manage"):
            raise PermissionDenied("You may not do this for the whole organisation.")
        if on:
            serving.switch_on(actor, name=name, reason=reason)
        else:
            serving.switch_off(actor, name=name, reason=reason)
        return f"{SWITCHES[name].title} is {'on' if on else 'off'}."
    if what not in _SWITCHES:
        raise InvalidRequest("Choose what to pause.", param="what")
    permission, model, argument, begin, end = _SWITCHES[what]
    row = _found(request, model, name)
    if not may(request, permission, getattr(row, "project", None)):
        raise PermissionDenied("You may not do this.")
    (begin if on else end)(actor, **{argument: row}, reason=reason)
    state = what.partition("-")[2]
    return f"{getattr(row, 'slug', row)} is {state if on else 'as usual again'}."


def _found(request: HttpRequest, model: type[Any], name: str) -> Any:
    try:
        pk = UUID(name)
    except ValueError:
        raise NotFound("There is no such thing.") from None
    own = {ServiceKey: _keys, Tool: _tools}
    rows = own[model](request) if model in own else model.objects.all()
    row = rows.filter(pk=pk).first()
    if row is None:
        raise NotFound("It is not there any more.")
    return row


@require_http_methods(["GET", "POST"])
@never_cache
@login_required
def switches(request: HttpRequest) -> HttpResponse:
    if not may_anywhere(request, "route.view"):
        raise Denied
    problem = ""
    if request.method == "POST":
        given = request.POST
        try:
            said = throw(
                request,
                value=given.get("what", ""),
                on=given.get("to") != "off",
                reason=given.get("reason", ""),
            )
        except PermissionDenied:
            raise Denied from None
        except REFUSALS as refused:
            error = as_console_error(refused)
            if error is None:
                raise
            problem = error.message
        else:
            messages.success(request, said)
            return HttpResponseRedirect(reverse("dashboards:switches"))
    context = {
        "whole": whole(request),
        "may_whole": may(request, "route.manage"),
        "on": on_now(Reader.of(request)),
        "offers": offers(request),
        "problem": problem,
    }
    return render(request, "dashboards/switches/page.html", context, status=400 if problem else 200)
