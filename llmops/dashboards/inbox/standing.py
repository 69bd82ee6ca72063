"""``/inbox/stand-ins/``: who decides for whom while they are away."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib import messages
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from llmops.access.selectors import may_anywhere, projects_for
from llmops.approvals import standing_in
from llmops.approvals.models import StandIn
from llmops.base.refusals import REFUSALS, as_console_error
from llmops.base.requests import actor_of
from llmops.core.errors import InvalidRequest

_LISTED = 200


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def stand_ins(request: HttpRequest) -> HttpResponse:
    """``what`` is ``name`` (``person``, ``stand_in``, ``starts_at``, ``ends_at`` in UTC, ``reason``) or ``end`` (``row``)."""
    if not may_anywhere(request, "approval.decide"):
        raise PermissionDenied
    if request.method != "POST":
        return _page(request)
    try:
        said = _ended(request) if request.POST.get("what") == "end" else _named(request)
    except REFUSALS as raised:
        error = as_console_error(raised)
        if error is None:
            raise
        told = error.message.removeprefix(f"{error.param}: ")
        return _page(request, problem=told[:1].upper() + told[1:], status=error.status)
    messages.success(request, said)
    return HttpResponseRedirect(reverse("dashboards:stand_ins"))


def _named(request: HttpRequest) -> str:
    given = request.POST
    row = standing_in.name_stand_in(
        actor_of(request),
        person=given.get("person", "").strip() or request.user.get_username(),
        stand_in=given.get("stand_in", "").strip(),
        starts_at=_moment(given.get("starts_at", ""), "starts_at", needed=False),
        ends_at=_moment(given.get("ends_at", ""), "ends_at", needed=True) or timezone.now(),
        reason=given.get("reason", ""),
    )
    return f"{row.stand_in.get_username()} stands in for {row.person.get_username()}."


def _ended(request: HttpRequest) -> str:
    actor = actor_of(request)
    try:
        row = standing_in.find(request.POST.get("row", ""), actor)
    except (ValueError, *REFUSALS):
        raise Http404 from None
    standing_in.end_stand_in(actor, row=row)
    return f"{row.stand_in.get_username()} no longer stands in for {row.person.get_username()}."


def _moment(text: str, name: str, *, needed: bool) -> datetime | None:
    if not text and not needed:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"{name}: a date and a time are needed.", param=name) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _page(request: HttpRequest, *, problem: str = "", status: int = 200) -> HttpResponse:
    actor, now = actor_of(request), timezone.now()
    context: dict[str, Any] = {
        "rows": [(row, row.starts_at <= now) for row in standing_in.shown_rows(actor, now)[:_LISTED]],
        "for_others": standing_in.may_name_for_others(actor),
        "colleagues": _colleagues(request),
        "problem": problem,
        "typed": request.POST if problem else {},
        "me": request.user.get_username(),
    }
    return render(request, "dashboards/inbox/stand_ins.html", context, status=status)


def _colleagues(request: HttpRequest) -> list[str]:
    """Who could stand in: those who have a part in a project of the reader's, or in all."""
    here = Q(memberships__project=None) | Q(memberships__project__in=projects_for(request, "approval.view"))
    rows = (
        get_user_model()
        .objects.filter(here, is_active=True, memberships__isnull=False)
        .exclude(pk=request.user.pk or 0)
    )
    return list(rows.order_by("username").values_list("username", flat=True).distinct()[:_LISTED])


def notices(request: HttpRequest) -> list[str]:
    """What the inbox says about it: for whom the reader stands in, and who for them."""
    actor, now = actor_of(request), timezone.now()
    if actor.kind != "user":
        return []
    mine = Q(person_id=actor.identifier) | Q(stand_in_id=actor.identifier)
    rows = standing_in.not_over(now).filter(mine, starts_at__lte=now).select_related("person", "stand_in")
    return [_told(row, actor.identifier) for row in rows.order_by("ends_at")[:10]]


def _told(row: StandIn, me: str) -> str:
    until = f"until {row.ends_at:%Y-%m-%d %H:%M} UTC"
    if str(row.person_id) == me:
        return f"{row.stand_in.get_username()} stands in for you {until}."
    return f"You stand in for {row.person.get_username()} {until}: what waits for them is here too."
