"""Runs: the list, one run's story, and cancelling it."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from llmops.access.selectors import may_anywhere, projects_for
from llmops.base.requests import actor_of
from llmops.core.errors import ConsoleError
from llmops.dashboards.runs import reading
from llmops.dashboards.runs.reading import Filters
from llmops.runs import services
from llmops.runs.models import Run


@require_GET
@never_cache
@login_required
def runs(request: HttpRequest) -> HttpResponse:
    _refuse_strangers(request)
    filters = Filters.of(request.GET.dict())
    before = request.GET.get("before", "")
    view = reading.listed(request, filters, before=before)
    live = "" if before else reverse("dashboards:runs_live") + filters.query()
    context = {"view": view, "filters": filters, "live_url": live, "states": Run.STATES}
    return render(request, "dashboards/runs/page.html", context)


@login_required
@require_POST
@never_cache
def renew_key(request: HttpRequest) -> HttpResponse:
    """Issue another key in place of the revoked one with which runs of a project call models."""
    _refuse_strangers(request)
    try:
        wanted = UUID(request.POST.get("project", ""))
    except ValueError:
        raise Http404 from None
    project = projects_for(request, "run.view").filter(pk=wanted).first()
    if project is None:
        raise Http404
    try:
        services.renew_key(actor_of(request), project=project)
    except ConsoleError as refused:
        view, filters = reading.listed(request, Filters()), Filters()
        context = {"view": view, "filters": filters, "states": Run.STATES, "problem": refused.message}
        return render(request, "dashboards/runs/page.html", context, status=refused.status)
    messages.success(request, f"Runs of {project} can call models again, with another key.")
    return HttpResponseRedirect(reverse("dashboards:runs"))


@require_GET
@never_cache
def runs_live(request: HttpRequest) -> HttpResponse:
    if not request.user.is_authenticated:
        return JsonResponse({"signed_out": True}, status=401)
    _refuse_strangers(request)
    view = reading.listed(request, Filters.of(request.GET.dict()))
    if request.GET.get("marker") == view.marker:
        return HttpResponse(status=204)
    context = {"view": view, "filters": view.filters}
    part = render_to_string("dashboards/runs/list.html", context, request)
    return JsonResponse({"marker": view.marker, "parts": {"runs": part}})


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def run(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """The story. POST cancels it."""
    found = reading.story(request, run_id)
    if found is None:
        raise Http404
    problem = ""
    if request.method == "POST":
        try:
            services.cancel_run(actor_of(request), run=found.run, reason=request.POST.get("reason", "")[:500])
        except ConsoleError as refused:
            problem, status = refused.message, refused.status
        else:
            messages.success(request, "It is being cancelled. What a tool has begun with is not undone.")
            return HttpResponseRedirect(reverse("dashboards:run", args=[run_id]))
    else:
        status = 200
    context = {
        "story": found,
        "row": found.row,
        "problem": problem,
        "live_url": "" if found.run.over else reverse("dashboards:run_live", args=[run_id]),
    }
    return render(request, "dashboards/runs/run.html", context, status=status)


@require_GET
@never_cache
def run_live(request: HttpRequest, run_id: UUID) -> HttpResponse:
    if not request.user.is_authenticated:
        return JsonResponse({"signed_out": True}, status=401)
    found = reading.story(request, run_id)
    if found is None:
        raise Http404
    if request.GET.get("marker") == found.marker:
        return HttpResponse(status=204)
    context = {"story": found, "row": found.row}
    part = render_to_string("dashboards/runs/story.html", context, request)
    return JsonResponse(
        {
            "marker": found.marker,
            "parts": {"story": part},
            "said": f"{found.row.state}." if found.run.over else "",
            "done": found.run.over,
        }
    )


def _refuse_strangers(request: HttpRequest) -> None:
    if not may_anywhere(request, "run.view"):
        raise PermissionDenied
