"""Pages of datasets. A view decodes, calls one function and renders."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.text import slugify
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from llmops.access.models import Project
from llmops.access.selectors import may, may_anywhere, projects_for
from llmops.base.refusals import REFUSALS, as_console_error
from llmops.base.requests import actor_of
from llmops.base.stepwise import stepwise
from llmops.core.errors import InvalidRequest, NotFound
from llmops.evals import services
from llmops.evals.models import Dataset
from llmops.evals.selectors import MANAGE, VIEW, cases_of, dataset_of, datasets_of
from llmops.usage import texts
from llmops.usage.models import Call


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def datasets(request: HttpRequest) -> HttpResponse:
    if not may_anywhere(request, VIEW):
        raise PermissionDenied
    problem, given = "", request.POST
    mine = projects_for(request, MANAGE).filter(archived_at=None).order_by("slug")
    if request.method == "POST":
        if not may_anywhere(request, MANAGE):
            raise PermissionDenied
        try:
            project = mine.filter(slug=given.get("project", "")).first()
            if project is None:
                raise InvalidRequest("project: choose one of yours.", param="project")
            made = services.create_dataset(
                actor_of(request),
                project=project,
                name=given.get("name", ""),
                description=given.get("description", ""),
            )
        except REFUSALS as raised:
            problem = _words(raised)
        else:
            return HttpResponseRedirect(reverse("evals:dataset", args=[made.pk]))
    context = {"rows": datasets_of(request), "projects": mine, "given": given, "problem": problem}
    return render(request, "datasets/list.html", context, status=400 if problem else 200)


def _words(raised: Exception) -> str:
    refused = as_console_error(raised)
    if refused is None:
        raise raised
    return refused.message


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def dataset(request: HttpRequest, dataset_id: UUID) -> HttpResponseBase:
    """A POST takes the cases out as a file."""
    try:
        found = dataset_of(request, dataset_id)
    except NotFound as missing:
        raise Http404 from missing
    may_read = may(request, texts.PERMISSION, found.project_id)
    if request.method == "POST":
        if not may_read:
            raise PermissionDenied
        lines = services.export_dataset(actor_of(request), dataset=found)
        answer = stepwise(request, (line.encode() for line in lines), "application/x-ndjson")
        answer["Content-Disposition"] = f'attachment; filename="{slugify(found.name) or "dataset"}.jsonl"'
        return answer
    project = found.project
    context = {
        "dataset": found,
        "rows": cases_of(found),
        "may_read": may_read,
        "days": project.keep_texts_days if project in services.keeping() else None,
    }
    return render(request, "datasets/dataset.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def add(request: HttpRequest, call_id: UUID) -> HttpResponse:
    """Put a call into a dataset of its project: one that is there, or a new one."""
    call = Call.objects.filter(pk=call_id).first()
    if call is None or not may(request, "usage.view", call.project_id):
        raise Http404
    if not (may(request, texts.PERMISSION, call.project_id) and may(request, MANAGE, call.project_id)):
        raise PermissionDenied
    project = Project.objects.filter(pk=call.project_id, archived_at=None).first()
    if project is None:
        raise Http404
    problem, status, given = "", 200, request.POST
    if request.method == "POST":
        try:
            into = _chosen(request, given.get("dataset", ""), call)
            case = services.add_case(
                actor_of(request),
                dataset=into,
                call=call,
                expected=given.get("expected", ""),
                note=given.get("note", ""),
            )
        except REFUSALS as raised:
            refused = as_console_error(raised)
            if refused is None:
                raise
            problem, status = refused.message, refused.status
        else:
            messages.success(request, f"Case {case.n} was added to {into}.")
            return HttpResponseRedirect(reverse("evals:dataset", args=[into.pk]))
    context = {
        "call": call,
        "project": project,
        "standing": texts.standing_of(call),
        "datasets": datasets_of(request, MANAGE).filter(project=project),
        "given": given,
        "problem": problem,
    }
    return render(request, "datasets/add.html", context, status=status)


def _chosen(request: HttpRequest, text: str, call: Call) -> Dataset:
    try:
        return dataset_of(request, UUID(text), MANAGE)
    except ValueError:
        raise InvalidRequest("dataset: choose one of the list.", param="dataset") from None
