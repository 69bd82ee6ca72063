"""Audit: the list, one event, taking the trail away, and having it verified."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    JsonResponse,
)
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from llmops.access.selectors import may, may_anywhere
from llmops.audit import chain, export, searching
from llmops.audit.models import Verification
from llmops.audit.objects import in_words, kind_named
from llmops.audit.verification import start_verification
from llmops.base.refusals import REFUSALS, as_console_error
from llmops.base.requests import actor_of
from llmops.core.digests import sha256_hex
from llmops.dashboards.filters import stamp
from llmops.dashboards.streamed import streamed
from llmops.dashboards.trail import build, files
from llmops.dashboards.trail.query import TrailQuery, parse

RUNS = 20


@require_GET
@never_cache
@login_required
def audit(request: HttpRequest) -> HttpResponse:
    reader, query = _asked(request, request.GET.dict())
    page = searching.page(query.search(reader.project_ids), before=query.before, after=query.after)
    here = reverse("dashboards:audit")
    first, last = (page.events[0].pk, page.events[-1].pk) if page.events else (None, None)
    paged = query.before is not None or query.after is not None
    context = {
        "query": query,
        "rows": [build.row_of(event) for event in page.events],
        "projects": reader.projects,
        "everywhere": reader.everywhere,
        "actions": _actions(),
        "kinds": sorted((kind_named(kind), kind) for kind in searching.object_types()),
        "narrowed": bool(query.pairs()),
        "here": here,
        "newest": here + query.query() if paged else "",
        "newer": here + query.query(after=first) if page.newer and first else "",
        "older": here + query.query(before=last) if page.older and last else "",
        "kept": query.pairs().items(),
        "start": stamp(query.start) if query.start else "",
        "end": stamp(query.end) if query.end else "",
        "start_plain": f"{query.start:%Y-%m-%dT%H:%M}" if query.start else "",
        "end_plain": f"{query.end:%Y-%m-%dT%H:%M}" if query.end else "",
    }
    return render(request, "dashboards/trail/page.html", context)


@require_GET
@never_cache
@login_required
def event(request: HttpRequest, sequence: int) -> HttpResponse:
    story = build.story(_reader(request), sequence)
    if story is None:
        raise Http404
    return render(request, "dashboards/trail/event.html", {"story": story, "event": story.event})


@login_required
@require_POST
def export_trail(request: HttpRequest) -> HttpResponseBase:
    """What was found as CSV, or the chain as evidence; who took what is on record before the first byte."""
    reader, query = _asked(request, request.POST.dict())
    what = "chain" if request.POST.get("what") == "chain" else "csv"
    try:
        if query.problems:
            return _back(request, query, query.problems[0])
        chunks, filename, kind = _file(reader, query, what)
    except REFUSALS as raised:
        refused = as_console_error(raised)
        if refused is None:
            raise
        return _back(request, query, refused.message)
    # The event belongs to a project where only that project's events are taken: to none that the reader does not see.
    seen = {project.pk for project in reader.projects}
    only = next(iter(seen)) if not reader.everywhere and len(seen) == 1 else None
    project = query.project if query.project in seen else only
    export.on_record(actor_of(request), file=what, narrowed=query.pairs(), project_id=project)
    return streamed(request, chunks, filename, kind)


@require_GET
@login_required
def verifier(request: HttpRequest) -> HttpResponse:
    """The program that checks an export: one file, which needs Python and nothing else."""
    _reader(request)
    source = Path(chain.__file__).read_text(encoding="utf-8")
    response = HttpResponse(source, content_type="text/x-python; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="verify_audit.py"'
    return response


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def verify(request: HttpRequest) -> HttpResponse:
    if not may(request, build.PERMISSION):
        raise PermissionDenied
    if request.method == "POST":
        try:
            start_verification(actor_of(request))
            messages.success(request, "The trail is being verified. It begins as soon as a worker is free.")
        except REFUSALS as raised:
            refused = as_console_error(raised)
            if refused is None:
                raise
            messages.error(request, refused.message)
        return HttpResponseRedirect(reverse("dashboards:audit_verify"))
    runs = list(Verification.objects.all()[:RUNS])
    context = {
        "runs": runs,
        "moving": any(run.state == Verification.RUNNING for run in runs),
        "live_url": reverse("dashboards:audit_verify_live"),
        "marker": _marker(runs),
    }
    return render(request, "dashboards/trail/verify.html", context)


@require_GET
@never_cache
def verify_live(request: HttpRequest) -> HttpResponse:
    if not request.user.is_authenticated:
        return JsonResponse({"signed_out": True}, status=401)
    if not may(request, build.PERMISSION):
        raise PermissionDenied
    runs = list(Verification.objects.all()[:RUNS])
    mark = _marker(runs)
    if request.GET.get("marker") == mark:
        return HttpResponse(status=204)
    moving = any(run.state == Verification.RUNNING for run in runs)
    return JsonResponse(
        {
            "marker": mark,
            "parts": {"runs": render_to_string("dashboards/trail/runs.html", {"runs": runs}, request)},
            "said": ""
            if moving or not runs
            else f"Verification of the trail: {runs[0].get_state_display()}.",
        }
    )


def _reader(request: HttpRequest) -> build.Reader:
    if not may_anywhere(request, build.PERMISSION):
        raise PermissionDenied
    return build.Reader.of(request)


def _asked(request: HttpRequest, given: dict[str, Any]) -> tuple[build.Reader, TrailQuery]:
    return _reader(request), parse(given, now=timezone.now())


def _actions() -> list[tuple[str, str]]:
    """What may be chosen: groups of actions, and each one."""
    found = searching.actions()
    groups = sorted({one.partition(".")[0] + "." for one in found})
    return [
        *((one, f"{in_words(one).strip()}: anything") for one in groups),
        *((one, in_words(one)) for one in found),
    ]


def _file(reader: build.Reader, query: TrailQuery, what: str) -> tuple[Iterator[bytes], str, str]:
    now = f"{timezone.now():%Y%m%dT%H%M%SZ}"
    if what != "chain":
        search = query.search(reader.project_ids)
        return files.as_csv(search), f"audit-{now}.csv", "text/csv; charset=utf-8"
    if not reader.everywhere:
        # The chain runs through the events of all projects.
        raise PermissionDenied
    within = searching.bounds(query.start, query.end)
    first, last = within or (None, None)
    lines = export.lines(first=first or 1, last=last)
    return files.in_chunks(lines), f"audit-{now}.jsonl", "application/jsonl"


def _back(request: HttpRequest, query: TrailQuery, problem: str) -> HttpResponse:
    messages.error(request, problem)
    return HttpResponseRedirect(reverse("dashboards:audit") + query.query())


def _marker(runs: list[Verification]) -> str:
    return sha256_hex(repr([(run.pk, run.state, run.sequence) for run in runs]).encode())[:20]
