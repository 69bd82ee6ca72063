"""Taking spend away: a download now, or an e-mail after each period."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
)
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from llmops.access.models import Project
from llmops.access.selectors import may, may_anywhere, projects_for, visible
from llmops.audit.services import record
from llmops.base.mail import mail_note
from llmops.base.refusals import REFUSALS, as_console_error
from llmops.base.requests import actor_of
from llmops.core.ids import uuid7_text
from llmops.dashboards.reader import Reader
from llmops.dashboards.spend.build import filters_of
from llmops.dashboards.spend.query import GROUPS, SpendQuery, parse
from llmops.dashboards.streamed import streamed
from llmops.usage import services
from llmops.usage.exports import KINDS, Wanted, export
from llmops.usage.models import ExportRun, ExportSchedule

_MOST_RUNS = 60
#: Zones offered to choose from; any of the IANA database is taken.
_ZONES = (
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Los_Angeles",
    "Asia/Tokyo",
    "Australia/Sydney",
)


@dataclass(frozen=True, slots=True)
class RunRow:
    run: ExportRun
    tone: str
    href: str
    may_resend: bool


def download(request: HttpRequest) -> HttpResponseBase:
    """The CSV of what the form names, as it is made; who took what is on record before the first byte."""
    reader = Reader.of(request)
    query = parse(request.POST.dict(), now=timezone.now())
    try:
        if query.problems:
            return _refused(request, query, query.problems[0])
        made = export(
            Wanted(request.POST.get("what", "spend"), query.span, filters_of(reader, query), query.by)
        )
    except REFUSALS as raised:
        refused = as_console_error(raised)
        if refused is None:
            raise
        return _refused(request, query, refused.message)
    _on_record(request, query, made.filename)
    return streamed(request, made.chunks, made.filename, "text/csv; charset=utf-8")


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def schedules(request: HttpRequest) -> HttpResponse:
    if not may_anywhere(request, "usage.view"):
        raise PermissionDenied
    problems: dict[str, str] = {}
    given: dict[str, str] = {}
    if request.method == "POST":
        given = request.POST.dict()
        for name, act in (("stop", _stop), ("now", _now), ("again", _again)):
            if name in given:
                return act(request, given[name])
        problems = _create(request, given)
        if not problems:
            return HttpResponseRedirect(reverse("dashboards:exports"))
    found = visible(
        ExportSchedule.objects.filter(stopped_at=None).select_related("project", "owner"),
        request,
        "usage.view",
    )
    runs = visible(
        ExportRun.objects.select_related("schedule__project"),
        request,
        "usage.view",
        project="schedule__project",
    )
    manageable = projects_for(request, "export.manage").filter(archived_at=None)
    everywhere = may(request, "export.manage")
    context = {
        "schedules": [
            (schedule, _what(schedule), may(request, "export.manage", schedule.project)) for schedule in found
        ],
        "runs": [_row(request, run) for run in runs[:_MOST_RUNS]],
        "may_make": everywhere or manageable.exists(),
        "projects": manageable,
        "everywhere": everywhere,
        "kinds": [(name, kind.title) for name, kind in KINDS.items()],
        "groups": GROUPS.items(),
        "periods": ExportSchedule.PERIODS,
        "zones": _ZONES,
        "problems": problems,
        "mail_note": mail_note(),
        "given": given
        or {
            "what": "spend",
            "period": "month",
            "timezone": "UTC",
            "recipients": getattr(request.user, "email", ""),
        },
    }
    return render(request, "dashboards/spend/exports.html", context, status=400 if problems else 200)


def _stop(request: HttpRequest, given: str) -> HttpResponse:
    seen = visible(ExportSchedule.objects.select_related("project"), request, "usage.view")
    found = seen.filter(pk=_id(given)).first()
    if found is None:
        raise Http404
    if not may(request, "export.manage", found.project):
        raise PermissionDenied
    return _done(request, lambda: services.stop_schedule(actor_of(request), schedule_id=found.pk), "Stopped.")


def _now(request: HttpRequest, given: str) -> HttpResponse:
    seen = visible(ExportSchedule.objects.select_related("project"), request, "usage.view")
    found = seen.filter(pk=_id(given)).first()
    if found is None:
        raise Http404
    if not may(request, "export.manage", found.project):
        raise PermissionDenied
    said = "The last period that is over is sent now; its state stands below."
    return _done(request, lambda: services.send_now(actor_of(request), schedule_id=found.pk), said)


def _again(request: HttpRequest, given: str) -> HttpResponse:
    seen = visible(ExportRun.objects.all(), request, "usage.view", project="schedule__project")
    found = seen.select_related("schedule__project").filter(pk=_id(given)).first()
    if found is None:
        raise Http404
    if not may(request, "export.manage", found.schedule.project):
        raise PermissionDenied
    said = "It is sent with the next look at the list, in a few minutes."
    return _done(request, lambda: services.send_again(actor_of(request), run_id=found.pk), said)


def _id(given: str) -> UUID:
    try:
        return UUID(given)
    except ValueError:
        raise Http404 from None


def _done(request: HttpRequest, work: Any, said: str) -> HttpResponse:
    try:
        work()
    except REFUSALS as raised:
        refused = as_console_error(raised)
        if refused is None:
            raise
        messages.error(request, refused.message)
    else:
        messages.success(request, said)
    return HttpResponseRedirect(reverse("dashboards:exports"))


def _create(request: HttpRequest, given: dict[str, str]) -> dict[str, str]:
    """Makes the schedule; answers what is wrong, by field (``form``: with all of it), or nothing."""
    if not may_anywhere(request, "export.manage"):
        raise PermissionDenied
    project: Project | None = None
    wrong = ""
    if chosen := given.get("project", ""):
        try:
            project = projects_for(request, "export.manage").filter(pk=UUID(chosen)).first()
        except ValueError:
            project = None
        if project is None:
            wrong = "choose one from the list."
    elif not may(request, "export.manage"):
        wrong = "choose a project; only who may see all of them can send all."
    asked: dict[str, Any] = {
        "name": given.get("name", ""),
        "what": given.get("what", ""),
        "group_by": given.get("group_by") or "project",
        "period": given.get("period", ""),
        "timezone": given.get("timezone", "").strip(),
        "recipients": given.get("recipients", "").replace(";", ",").replace("\n", ",").split(","),
    }
    if wrong:
        return {"project": wrong} | services.schedule_problems(**asked)
    try:
        services.create_schedule(actor_of(request), owner=request.user, project=project, **asked)
    except REFUSALS as raised:
        refused = as_console_error(raised)
        if refused is None:
            raise
        return refused.data.get("problems") or {"form": refused.message}
    messages.success(request, "It goes out after each period, the first time after the one under way.")
    return {}


def _what(schedule: ExportSchedule) -> str:
    if schedule.what != "spend":
        return KINDS[schedule.what].title
    return f"Spend by {GROUPS.get(schedule.group_by, schedule.group_by).lower()} and day"


def _row(request: HttpRequest, run: ExportRun) -> RunRow:
    tone = {ExportRun.SENT: "ok", ExportRun.FAILED: "error", ExportRun.UNKNOWN: "unknown"}.get(run.state, "")
    if run.state == ExportRun.WAITING and run.tries:
        tone = "refused"
    schedule = run.schedule
    last = run.ends_at - timedelta(seconds=1)
    project = f"&project={schedule.project_id}" if schedule.project_id else ""
    return RunRow(
        run,
        tone,
        reverse("dashboards:spend")
        + f"?from={run.starts_at:%Y-%m-%d}&to={last:%Y-%m-%d}&by={schedule.group_by}{project}",
        run.state in (ExportRun.FAILED, ExportRun.UNKNOWN)
        and may(request, "export.manage", schedule.project),
    )


def _refused(request: HttpRequest, query: SpendQuery, problem: str) -> HttpResponse:
    messages.error(request, problem)
    return HttpResponseRedirect(reverse("dashboards:spend") + query.query())


def _on_record(request: HttpRequest, query: SpendQuery, filename: str) -> None:
    with transaction.atomic():
        record(
            actor_of(request),
            action="usage.exported",
            object_type="usage.export",
            object_id=uuid7_text(),
            object_name=filename,
            project_id=query.project,
            after={
                "from": query.span.start.isoformat(),
                "to": query.span.end.isoformat(),
                **{name: str(getattr(query, name)) for name in query.chosen()},
            },
        )
