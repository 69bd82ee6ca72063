"""The console's own pages. A view reads its filters, asks one builder, and renders."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from llmops.access.models import ServiceKey
from llmops.access.selectors import may, may_anywhere, projects_for
from llmops.base.refusals import REFUSALS, as_console_error
from llmops.base.requests import actor_of
from llmops.core.errors import InvalidRequest, NotFound
from llmops.dashboards import calls as call_pages
from llmops.dashboards import jobs as job_pages
from llmops.dashboards import overview as overview_page
from llmops.dashboards import ranges, words
from llmops.dashboards.filters import ANY_FAILURE, CUSTOM, STATUSES, Filters, parse
from llmops.dashboards.overview.first_steps import first_steps
from llmops.dashboards.reader import Reader
from llmops.dashboards.simulated import simulated_providers
from llmops.dashboards.story import story as story_of
from llmops.providers.models import Model, Route
from llmops.usage import services, texts
from llmops.usage.models import Call
from llmops.usage.selectors import calls_page
from llmops.usage.selectors.replays import original_of, replays_of

#: Parts of the Overview that a live page puts in place one by one: name -> template.
PARTS = {
    "simulated": "dashboards/overview/simulated.html",
    "verdict": "dashboards/overview/verdict.html",
    "tiles": "dashboards/overview/tiles.html",
    "errors": "dashboards/overview/errors.html",
    "gauges": "dashboards/overview/gauges.html",
}
#: Most entries offered in a list to choose from.
CHOICES = 200


@require_GET
@never_cache
@login_required
def overview(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    reader, filters = Reader.of(request), parse(request.GET.dict(), now=now)
    standing = overview_page.standings(reader, filters, now)
    # Taken first: what changes while the figures are read shows as a change at the next question.
    mark = overview_page.marker(reader, filters, standing, now=now)
    view = overview_page.build(reader, filters, standing)
    context = {
        "view": view,
        "filters": filters,
        "projects": reader.projects,
        "board_query": Filters(period=filters.period, project=filters.project).query(),
        "calls_url": reverse("dashboards:calls")
        + Filters(period=filters.period, project=filters.project).query(),
        "live_url": ""
        if filters.period.name == CUSTOM
        else reverse("dashboards:overview_live") + filters.query(),
        "marker": f"{mark}:{int(view.nothing_yet)}",
        **ranges.context(filters),
        **_gauge_context(reader),
        **_call_context(filters),
        **(_empty_context(request, reader) if view.nothing_yet else {}),
    }
    return render(request, "dashboards/overview/page.html", context)


@require_GET
@never_cache
def overview_live(request: HttpRequest) -> HttpResponse:
    """204 while nothing moved since ``marker``; else the parts of the page, and the figures of its charts."""
    if not request.user.is_authenticated:
        return JsonResponse({"signed_out": True}, status=401)
    now = timezone.now()
    reader, filters = Reader.of(request), parse(request.GET.dict(), now=now)
    standing = overview_page.standings(reader, filters, now)
    mark = overview_page.marker(reader, filters, standing, now=now)
    before, _, was_empty = request.GET.get("marker", "").partition(":")
    if before == mark:
        return HttpResponse(status=204)
    view = overview_page.build(reader, filters, standing)
    if was_empty == "1" and not view.nothing_yet:
        return JsonResponse({"marker": mark, "reload": True})
    context = {"view": view, "filters": filters, **_gauge_context(reader), **_call_context(filters)}
    parts = {name: render_to_string(template, context, request) for name, template in PARTS.items()}
    parts["routes"] = render_to_string(
        "dashboards/overview/groups.html", {**context, "groups": view.routes, "what": "Route"}, request
    )
    parts["models"] = render_to_string(
        "dashboards/overview/groups.html", {**context, "groups": view.models, "what": "Model"}, request
    )
    parts["recent"] = render_to_string(
        "dashboards/calls/table.html", {**context, "calls": view.recent}, request
    )
    for chart in view.charts:
        parts[f"table-{chart.name}"] = render_to_string(
            "dashboards/overview/chart_table.html", {**context, "chart": chart}, request
        )
    return JsonResponse(
        {
            "marker": f"{mark}:{int(view.nothing_yet)}",
            "parts": parts,
            "charts": view.chart_data,
            "spoken": {chart.name: chart.spoken for chart in view.charts},
        }
    )


@require_GET
@never_cache
@login_required
def calls(request: HttpRequest) -> HttpResponse:
    if not may_anywhere(request, "usage.view"):
        raise PermissionDenied
    reader, filters = Reader.of(request), parse(request.GET.dict(), now=timezone.now())
    if filters.q and (found := _call_of(reader, filters.q)):
        return HttpResponseRedirect(reverse("dashboards:call", args=[found]))
    problems = list(filters.problems)
    cursor = request.GET.get("after") or None
    wanted = call_pages.call_filters(reader, filters)
    try:
        page = calls_page(filters=wanted, cursor=cursor)
    except InvalidRequest as refused:
        problems.append(refused.message)
        cursor = None
        page = calls_page(filters=wanted)
    keys = ServiceKey.objects.filter(project__in=projects_for(request, "usage.view")).select_related(
        "project"
    )
    if filters.project:
        keys = keys.filter(project_id=filters.project)
    context = {
        "filters": filters,
        "problems": problems,
        "projects": reader.projects,
        "keys": keys.order_by("project__slug", "name")[:CHOICES],
        "routes": Route.objects.order_by("slug").values_list("slug", flat=True)[:CHOICES],
        "models": Model.objects.order_by("slug").values_list("slug", flat=True)[:CHOICES],
        "errors": sorted(words.ERRORS),
        "statuses": [
            (ANY_FAILURE, "Any failure"),
            *((status, words.status_word(status)) for status in STATUSES),
        ],
        "rows": call_pages.rows_of(page, simulated=simulated_providers()),
        "newer": reverse("dashboards:calls") + filters.query() if cursor else "",
        "older": reverse("dashboards:calls") + filters.query(after=page.next_cursor)
        if page.next_cursor
        else "",
        "narrowed": filters.chosen(),
        "unfiltered": reverse("dashboards:calls") + Filters(period=filters.period).query(),
        "may_search": may_anywhere(request, texts.PERMISSION),
        **ranges.context(filters),
        **_call_context(filters),
    }
    return render(request, "dashboards/calls/page.html", context)


def _call_of(reader: Reader, text: str) -> UUID | None:
    """The call whose own id was typed into the search, if the reader may see it."""
    try:
        call_id = UUID(text)
    except ValueError:
        return None
    found = Call.objects.filter(pk=call_id)
    project_ids = reader.project_ids()
    if project_ids is not None:
        found = found.filter(project_id__in=project_ids)
    return found.values_list("pk", flat=True).first()


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def call(request: HttpRequest, call_id: UUID) -> HttpResponse:
    """A POST asks to read what was said, which is on the record."""
    try:
        story = story_of(Reader.of(request), call_id)
    except NotFound as missing:
        raise Http404 from missing
    found = story.told.call
    may_read = may(request, texts.PERMISSION, found.project_id)
    read, problem = None, ""
    if request.method == "POST":
        if not may_read:
            raise PermissionDenied
        try:
            read = texts.read_texts(actor_of(request), calls=[found], why="read")[found.pk]
        except NotFound as gone:
            problem = gone.message
    context = {
        "story": story,
        "call": found,
        "may_read": may_read,
        "standing": texts.standing_of(found) if may_read else None,
        "read": read,
        "problem": problem,
        "replays": replays_of(found.pk),
        "original": original_of(found),
        "may_keep": may_read and may(request, "dataset.manage", found.project_id),
        "may_replay": may_read
        and found.endpoint in texts.REPLAYABLE
        and may(request, "playground.use", found.project_id),
    }
    return render(request, "dashboards/calls/story.html", context, status=404 if problem else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def jobs(request: HttpRequest) -> HttpResponse:
    if not may_anywhere(request, "usage.view"):
        raise PermissionDenied
    problem, given = "", ""
    if request.method == "POST":
        given = request.POST.get("day", "").strip()[:20]
        problem = _ask_for_rebuild(request, given)
        if not problem:
            return HttpResponseRedirect(reverse("dashboards:jobs"))
    today = datetime.now(UTC).date()
    rows = job_pages.recent(whole=may(request, "usage.view"))
    context = {
        "rows": rows,
        "moving": any(row.moving for row in rows),
        "may_rebuild": may(request, "usage.rebuild"),
        "problem": problem,
        "day": given or (today - timedelta(days=1)).isoformat(),
        "latest": today.isoformat(),
        "earliest": (today - timedelta(days=settings.CALL_RETENTION_DAYS)).isoformat(),
        "live_url": reverse("dashboards:jobs_live"),
        "marker": job_pages.marker(rows),
    }
    return render(request, "dashboards/jobs/page.html", context, status=400 if problem else 200)


def _ask_for_rebuild(request: HttpRequest, given: str) -> str:
    """Asks for the job; answers what is wrong, or nothing."""
    if not may(request, "usage.rebuild"):
        raise PermissionDenied
    try:
        day = date.fromisoformat(given)
    except ValueError:
        return f"day: {given!r} is not a date such as 2026-11-20." if given else "day: choose a day."
    try:
        services.request_rebuild(actor_of(request), day)
    except REFUSALS as raised:
        refused = as_console_error(raised)
        if refused is None:
            raise
        return refused.message
    messages.success(
        request, f"Asked for {day:%-d %B %Y} to be recomputed. It begins as soon as a worker is free."
    )
    return ""


@require_GET
@never_cache
def jobs_live(request: HttpRequest) -> HttpResponse:
    if not request.user.is_authenticated:
        return JsonResponse({"signed_out": True}, status=401)
    if not may_anywhere(request, "usage.view"):
        raise PermissionDenied
    rows = job_pages.recent(whole=may(request, "usage.view"))
    mark = job_pages.marker(rows)
    if request.GET.get("marker") == mark:
        return HttpResponse(status=204)
    finished = next((row for row in rows if not row.moving), None)
    return JsonResponse(
        {
            "marker": mark,
            "parts": {"jobs": render_to_string("dashboards/jobs/list.html", {"rows": rows}, request)},
            "said": f"{finished.title}: {finished.state_word}."
            if finished and not any(r.moving for r in rows)
            else "",
        }
    )


# --- what pages share ------------------------------------------------------------------------------------------------


def _gauge_context(reader: Reader) -> dict[str, Any]:
    return {
        "budgets_url": reader.link("budgets.budget"),
        "new_budget_url": reader.link("budgets.budget", action="add"),
    }


def _call_context(filters: Filters) -> dict[str, Any]:
    """Calls of today need no date beside their time."""
    return {"call_time_style": "second" if filters.period.length <= timedelta(hours=2) else "stamp"}


def _empty_context(request: HttpRequest, reader: Reader) -> dict[str, Any]:
    route = Route.objects.filter(archived_at=None).order_by("slug").values_list("slug", flat=True)
    preferred = "chat" if route.filter(slug="chat").exists() else route.first()
    return {
        "gateway_url": settings.PUBLIC_GATEWAY_URL or request.build_absolute_uri("/v1"),
        "example_model": preferred or "chat",
        "steps": (steps := first_steps(reader)),
        "steps_done": sum(step.done for step in steps),
        "next_step": next((step for step in steps if not step.done), None),
        "service_keys_url": reader.link("access.servicekey"),
    }
