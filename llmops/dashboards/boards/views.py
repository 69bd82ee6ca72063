"""Pages of dashboards, and one panel of one alone: as a table, or as a file."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from llmops.access.models import ServiceKey
from llmops.access.selectors import may_anywhere, projects_for
from llmops.dashboards import ranges
from llmops.dashboards.boards import drawing
from llmops.dashboards.boards.making import KINDS, Asked, made
from llmops.dashboards.boards.saved import views_of
from llmops.dashboards.boards.scope import Scope
from llmops.dashboards.boards.shapes import Board, Cell, Chart, Table
from llmops.dashboards.filters import CUSTOM, Filters, parse, stamp
from llmops.providers.models import Model, Route
from llmops.usage.exports.cells import lines, text

CHOICES = 200
_NARROWING = ("project", "key", "route", "model", "feature")


def asked_of(request: HttpRequest, kind: str) -> Asked:
    """Raises ``PermissionDenied`` for whoever may see no calls at all."""
    if not may_anywhere(request, "usage.view"):
        raise PermissionDenied
    filters = parse(request.GET.dict(), now=timezone.now())
    # What else narrows lists of calls narrows no figure here.
    filters = Filters(
        period=filters.period,
        **{name: getattr(filters, name) for name in _NARROWING},
        problems=filters.problems,
    )
    return Asked(kind, Scope.of(request), filters, request.GET.get("compare") != "none")


@require_GET
@never_cache
@login_required
def page(request: HttpRequest, kind: str) -> HttpResponse:
    asked = asked_of(request, kind)
    # Who reloads for good is not shown what was made for somebody else a moment ago.
    found = made(asked, fresh_s=0) if request.headers.get("Cache-Control") == "no-cache" else made(asked)
    filters, title = asked.filters, KINDS[kind][1]
    here = address(asked)
    context = {
        "title": title,
        "kind": kind,
        "board": found.board,
        "parts": found.parts,
        "drawing": found.drawing,
        "filters": filters,
        "here": here,
        "panel_url": reverse(f"dashboards:{kind}_panel") + here,
        "live_url": "" if filters.period.name == CUSTOM else reverse(f"dashboards:{kind}_live") + here,
        "marker": found.marker,
        "no_project": asked.scope.nothing,
        "chosen": [name for name in _NARROWING if getattr(filters, name)],
        "compare_url": address(asked, compare="none" if asked.compare else None) or "?",
        "compare": asked.compare,
        "views": views_of(request.user),
        "unfiltered": address(asked, **dict.fromkeys(_NARROWING)) or "?",
        **_choices(request, filters),
        **ranges.context(filters, kept={} if asked.compare else {"compare": "none"}),
    }
    return render(request, "dashboards/boards/page.html", context)


def address(asked: Asked, **changes: object) -> str:
    """The query that shows the same again, with ``changes``."""
    kept = {} if asked.compare else {"compare": "none"}
    return asked.filters.query(**{**kept, **changes})


@require_GET
@never_cache
@login_required
def panel(request: HttpRequest, kind: str) -> HttpResponse:
    """One panel's figures: as a page with a table, ``?as=csv`` as a file. Times in files are UTC."""
    asked = asked_of(request, kind)
    found = made(asked)
    one = found.board.panel(request.GET.get("panel", ""))
    if one is None:
        raise Http404("This dashboard has no such panel.")
    if request.GET.get("as") == "csv":
        return _file(found.board, one, f"{kind}-{one.name}-{found.board.start:%Y%m%dT%H%MZ}.csv")
    context = {
        "kind": kind,
        "panel": one,
        "rows": chart_rows(found.board, one) if isinstance(one, Chart) else (),
        "table": one if isinstance(one, Table) else None,
        "back": reverse(f"dashboards:{kind}") + address(asked),
        "title": KINDS[kind][1],
        "csv_url": "?" + urlencode({**request.GET.dict(), "as": "csv"}),
        "words": asked.filters.period.words,
        "style": "day" if found.board.granularity >= 86_400 else "minute",
    }
    return render(request, "dashboards/boards/panel.html", context)


def chart_rows(board: Board, chart: Chart) -> list[dict[str, Any]]:
    """Newest first; buckets in which nothing was are left out."""
    joiner = "&" if "?" in board.calls_url else "?"
    rows = []
    for place in range(len(board.times) - 1, -1, -1):
        values = [one.values[place] for one in chart.series]
        if not any(values):
            continue
        at = board.times[place]
        end = board.times[place + 1] if place + 1 < len(board.times) else board.end
        href = f"{_without_time(board.calls_url)}{joiner}from={stamp(at)}&to={stamp(end)}"
        cells = [
            (
                drawing.shown(value, chart.unit),
                f"{href}&{one.narrowed}" if one.narrowed and value and not one.before else "",
            )
            for one, value in zip(chart.series, values, strict=True)
        ]
        rows.append({"at": at, "href": href, "cells": cells})
    return rows


def _without_time(url: str) -> str:
    path, _, query = url.partition("?")
    kept = [part for part in query.split("&") if part and part.split("=")[0] not in ("range", "from", "to")]
    return f"{path}?{'&'.join(kept)}"


_UNITS = {"duration": "_us", "share": "_percent", "count": "", "level": ""}


def _file(board: Board, one: Chart | Table, name: str) -> HttpResponse:
    rows: list[list[Any]]
    if isinstance(one, Chart):
        rows = [["from_utc", "to_utc", *(text(line.label + _UNITS[one.unit]) for line in one.series)]]
        for place, at in enumerate(board.times):
            end = board.times[place + 1] if place + 1 < len(board.times) else board.end
            values = [line.values[place] for line in one.series]
            rows.append([stamp(at), stamp(end), *("" if value is None else value for value in values)])
    else:
        rows = [[column.label for column in one.columns]]
        rows += [[_plain(item) for item in row] for row in one.rows]
    answer = HttpResponse(lines(rows), content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def _plain(item: Cell) -> Any:
    value = item.text if item.number is None else item.number
    return text(value) if isinstance(value, str) else value


def _choices(request: HttpRequest, filters: Filters) -> dict[str, Any]:
    keys = ServiceKey.objects.filter(project__in=projects_for(request, "usage.view")).select_related(
        "project"
    )
    if filters.project:
        keys = keys.filter(project_id=filters.project)
    return {
        "projects": list(projects_for(request, "usage.view").filter(archived_at=None).order_by("slug")),
        "keys": keys.order_by("project__slug", "name")[:CHOICES],
        "routes": Route.objects.order_by("slug").values_list("slug", flat=True)[:CHOICES],
        "models": Model.objects.order_by("slug").values_list("slug", flat=True)[:CHOICES],
    }
