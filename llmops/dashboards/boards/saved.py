"""Views that people save: a name for an address."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from llmops.access.selectors import may_anywhere
from llmops.audit.services import record_about
from llmops.base.requests import actor_of
from llmops.core.actors import Actor
from llmops.core.errors import InvalidRequest, NotFound
from llmops.dashboards.boards.making import KINDS
from llmops.dashboards.filters import Filters, parse
from llmops.dashboards.models import SavedView

MOST = 50
_NAME = 60


@transaction.atomic
def save_view(actor: Actor, *, owner: int, page: str, name: str, query: str) -> SavedView:
    """A view of the same page and name is replaced. Raises ``InvalidRequest``."""
    name = name.strip()
    if page not in KINDS:
        raise InvalidRequest(f"page: choose one of {', '.join(KINDS)}.", param="page")
    if not 1 <= len(name) <= _NAME or not name.isprintable():
        raise InvalidRequest(f"name: between one and {_NAME} plain characters.", param="name")
    mine = SavedView.objects.filter(owner_id=owner)
    known = mine.filter(page=page, name=name).first()
    if known is None and mine.count() >= MOST:
        raise InvalidRequest(f"name: at most {MOST} views are kept. Remove one first.", param="name")
    kept = _understood(query)
    row = known or SavedView(owner_id=owner, page=page, name=name)
    before = {"query": row.query} if known else None
    row.query = kept
    row.save()
    record_about(actor, row, action="view.saved", before=before, after={"query": kept})
    return row


@transaction.atomic
def remove_view(actor: Actor, *, owner: int, view: UUID) -> None:
    """Raises ``NotFound`` for one of somebody else."""
    row = SavedView.objects.select_for_update().filter(owner_id=owner, pk=view).first()
    if row is None:
        raise NotFound("You have no such view.")
    record_about(actor, row, action="view.removed", before={"query": row.query})
    row.delete()


def views_of(owner: Any) -> list[SavedView]:
    return list(SavedView.objects.filter(owner_id=owner.pk).order_by("page", "name"))


def _understood(query: str) -> str:
    """Only what a dashboard's address can say, in its own words."""
    given = dict(parse_qsl(query.removeprefix("?")[:2000]))
    filters: Filters = parse(given, now=timezone.now())
    compare = {"compare": "none"} if given.get("compare") == "none" else {}
    return urlencode({**filters.pairs(), **compare})[:600]


@login_required
@require_POST
def save(request: HttpRequest) -> HttpResponse:
    if not may_anywhere(request, "usage.view"):
        raise PermissionDenied
    given = request.POST
    page = given.get("page", "")
    try:
        row = save_view(
            actor_of(request),
            owner=int(request.user.pk),  # type: ignore[arg-type]
            page=page,
            name=given.get("name", ""),
            query=given.get("query", ""),
        )
    except InvalidRequest as refused:
        messages.error(request, refused.message)
        back = page if page in KINDS else "overview"
        return HttpResponseRedirect(reverse(f"dashboards:{back}"))
    messages.success(request, f"Saved as {row.name}. Its address can be handed on.")
    return HttpResponseRedirect(_address(row))


@login_required
@require_POST
def remove(request: HttpRequest, view_id: UUID) -> HttpResponse:
    row = SavedView.objects.filter(owner_id=request.user.pk, pk=view_id).first()
    if row is None:
        raise Http404("You have no such view.")
    remove_view(actor_of(request), owner=int(request.user.pk), view=view_id)  # type: ignore[arg-type]
    messages.success(request, f"Removed {row.name}.")
    return HttpResponseRedirect(_address(row))


@require_GET
@never_cache
@login_required
def opened(request: HttpRequest, view_id: UUID) -> HttpResponse:
    """Anybody's view, with what the reader may see."""
    if not may_anywhere(request, "usage.view"):
        raise PermissionDenied
    row = SavedView.objects.filter(pk=view_id).first()
    if row is None or row.page not in KINDS:
        raise Http404("There is no such view; its owner may have removed it.")
    return HttpResponseRedirect(_address(row))


def _address(row: SavedView) -> str:
    return reverse(f"dashboards:{row.page}") + (f"?{row.query}" if row.query else "")
