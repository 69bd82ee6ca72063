"""Which rows a list of the inbox holds: few of many, however long the console has been in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Q, QuerySet
from django.http import HttpRequest

from llmops.access.selectors import visible
from llmops.approvals.models import Request
from llmops.approvals.selectors import shown_to
from llmops.tools.models import Action, Tool
from llmops.tools.rules import RISKS

WAITING, DECIDED, UNKNOWN = "waiting", "decided", "unknown"
SHOWS = (WAITING, UNKNOWN, DECIDED)
PAGE = 50
#: So many that ended last are looked through by the index of their ends, and then so many, before a reader's projects are asked for theirs.
#: Most readers find a page among the first of them, and what lies before costs nothing.
_LOOKED_THROUGH = (200, 2_000)


@dataclass(frozen=True, slots=True)
class Filters:
    show: str = WAITING
    risk: str = ""
    tool: str = ""
    project: str = ""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Filters:
        show, risk = given.get("show", ""), given.get("risk", "")
        return cls(
            show if show in SHOWS else WAITING,
            risk if risk in RISKS else "",
            given.get("tool", "")[:63],
            given.get("project", "")[:63],
        )

    def query(self, **changed: str) -> str:
        values = {
            "show": self.show if self.show != WAITING else "",
            "risk": self.risk,
            "tool": self.tool,
            "project": self.project,
            **changed,
        }
        kept = {name: value for name, value in values.items() if value}
        return f"?{urlencode(kept)}" if kept else "?"

    @property
    def narrowed(self) -> bool:
        return bool(self.risk or self.tool or self.project)


def requests_for(request: HttpRequest) -> QuerySet[Request]:
    return shown_to(_whole(), request)


def _whole() -> QuerySet[Request]:
    return Request.objects.select_related("project", "action__tool", "action__version")


def unknown_for(request: HttpRequest) -> QuerySet[Action]:
    rows = Action.objects.select_related("project", "tool", "version", "request")
    return visible(rows, request, "action.view").filter(state=Action.UNKNOWN)


def waiting_for(request: HttpRequest, now: datetime) -> QuerySet[Request]:
    return requests_for(request).filter(state=Request.OPEN, expires_at__gt=now)


def waiting_page(request: HttpRequest, filters: Filters, now: datetime) -> tuple[list[Request], bool]:
    """What waits, that which runs out first at the top; and whether there is more."""
    rows = narrowed(waiting_for(request, now), filters, "action__")
    found = _read(rows, ("expires_at", "pk"), PAGE + 1)
    return found[:PAGE], len(found) > PAGE


def decided_page(
    request: HttpRequest, filters: Filters, before: str, now: datetime
) -> tuple[list[Request], bool]:
    """What is over, the last that ended first, from after the request ``before`` on; and whether there is more.

    What ran out and was not closed yet leads the first page.
    """
    rows = narrowed(requests_for(request), filters, "action__")
    over, order = rows.filter(closed_at__isnull=False), ("-closed_at", "-pk")
    place = _uuid(before)
    mark = Request.objects.filter(pk=place, closed_at__isnull=False).first() if place is not None else None
    lapsed: list[Request] = []
    if mark is None:
        lapsed = _read(rows.filter(state=Request.OPEN, expires_at__lte=now), ("-expires_at", "-pk"), PAGE)
        ended = Request.objects.filter(closed_at__lte=now)
    else:
        ended = Request.objects.filter(closed_at__lte=mark.closed_at).filter(
            Q(closed_at__lt=mark.closed_at) | Q(pk__lt=mark.pk)
        )
        over = over.filter(Q(closed_at__lt=mark.closed_at) | Q(closed_at=mark.closed_at, pk__lt=mark.pk))
    wanted = PAGE + 1 - len(lapsed)
    found: list[Request] = []
    for most in (*_LOOKED_THROUGH, None):
        last = ended.order_by(*order).values("pk")[:most] if most is not None else None
        found = _read(over, order, wanted, among=last)
        if len(found) == wanted:
            break
    found = lapsed + found
    return found[:PAGE], len(found) > PAGE


def narrowed(rows: QuerySet[Any], filters: Filters, path: str) -> QuerySet[Any]:
    """``path`` leads from the rows to the action."""
    if filters.risk:
        rows = rows.filter(**{f"{path}risk": filters.risk})
    if filters.tool:
        # By id, so that a database may begin at the tool's actions.
        tools = list(Tool.objects.filter(slug=filters.tool).values_list("pk", flat=True))
        rows = rows.filter(**{f"{path}tool__in": tools})
    if filters.project:
        rows = rows.filter(project__slug=filters.project)
    return rows


def _read(
    rows: QuerySet[Request], order: tuple[str, ...], most: int, *, among: QuerySet[Any] | None = None
) -> list[Request]:
    """Ids first: what is sorted is then no row of five tables. The rows are read by their ids and nothing else: SQLite would begin with all
    of the reader's projects again."""
    looked_at = rows if among is None else rows.filter(pk__in=among)
    ids = list(looked_at.order_by(*order).values_list("pk", flat=True)[:most])
    return list(_whole().filter(pk__in=ids).order_by(*order).prefetch_related("decisions")) if ids else []


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
