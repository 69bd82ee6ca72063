"""The pages of alerts: what is wrong now, one incident, objectives, and what to do. A view reads, asks and renders."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from llmops.access.selectors import may, may_anywhere, visible
from llmops.alerts import postmortem as texts
from llmops.alerts import runbooks as books
from llmops.alerts import selectors, services, showing
from llmops.alerts.behind import Behind, behind, carrying
from llmops.alerts.figures import Figures
from llmops.alerts.models import Incident, Notification, Slo
from llmops.base.clock import database_now
from llmops.base.refusals import REFUSALS, as_console_error
from llmops.base.requests import actor_of
from llmops.core.digests import sha256_hex
from llmops.core.errors import InvalidRequest
from llmops.providers.models import Route

VIEW, RESPOND, MANAGE = "alert.view", "alert.respond", "alert.manage"
MOST_OPEN, MOST_RESOLVED = 100, 30
#: Rules are looked at every ten seconds; after so many without that something is wrong with the workers.
STANDS_STILL_S = 60
#: Minutes, and how they are offered.
SILENCES = ((30, "30 minutes"), (120, "2 hours"), (480, "8 hours"), (1440, "a day"), (10_080, "a week"))


def _refuse_others(request: HttpRequest) -> None:
    if not may_anywhere(request, VIEW):
        raise PermissionDenied


@require_GET
@never_cache
@login_required
def alerts(request: HttpRequest) -> HttpResponse:
    _refuse_others(request)
    context = _now(request)
    return render(request, "alerts/page.html", context)


@require_GET
@never_cache
def alerts_live(request: HttpRequest) -> HttpResponse:
    """204 while nothing moved since ``marker``; else the parts of the page."""
    if not request.user.is_authenticated:
        return JsonResponse({"signed_out": True}, status=401)
    _refuse_others(request)
    context = _now(request)
    if request.GET.get("marker") == context["marker"]:
        return HttpResponse(status=204)
    return JsonResponse(
        {
            "marker": context["marker"],
            "parts": {"alerts": render_to_string("alerts/list.html", context, request)},
            "said": context["summary"],
        }
    )


def _now(request: HttpRequest) -> dict[str, Any]:
    now = database_now()
    unresolved = list(selectors.unresolved(request)[:MOST_OPEN])
    silences = selectors.silenced_among(unresolved, now)
    # Whoever sees one project alone must not learn from others' calls what carries the load.
    carried = (
        carrying([str(one.facts.get("route", "")) for one in unresolved if one.facts.get("route")], None, now)
        if may(request, "usage.view")
        else {}
    )  # fmt: skip
    loud = [one for one in unresolved if one.pk not in silences]
    evaluation = selectors.last_evaluation()
    looked_at = evaluation.ended_at if evaluation else None
    seen = [(str(one.pk), one.state, one.severity, one.says, one.clear_since) for one in unresolved]
    return {
        "rows": showing.rows_of(loud, carried=carried),
        "silenced": showing.rows_of([one for one in unresolved if one.pk in silences], silences),
        "over": showing.rows_of(selectors.resolved(request)[:MOST_RESOLVED]),
        "looked_at": looked_at,
        "stands_still": looked_at is None or (now - looked_at).total_seconds() > STANDS_STILL_S,
        "problems": evaluation.problems if evaluation and may(request, VIEW) else [],
        "nobody_told": not selectors.told_to_anybody(),
        "channel_add": reverse("admin:alerts_channel_add") if may_anywhere(request, MANAGE) else "",
        "rules_href": reverse("admin:alerts_rule_changelist"),
        "channels_href": reverse("admin:alerts_channel_changelist"),
        "summary": _summary(loud, len(silences)),
        "live_url": reverse("alerts:live"),
        "marker": sha256_hex(repr((seen, sorted(map(str, silences)), _minute(looked_at))).encode())[:20],
    }


def _minute(at: datetime | None) -> int:
    return int(at.timestamp()) // 60 if at else 0


def _summary(loud: list[Incident], silenced: int) -> str:
    beside = f" {silenced} silenced." if silenced else ""
    if not loud:
        return f"Nothing is wrong.{beside}"
    open_ones = [one for one in loud if one.state == Incident.OPEN]
    counted = {
        name: sum(one.severity == name for one in open_ones) for name in ("critical", "warning", "info")
    }
    told = ", ".join(f"{number} {name}" for name, number in counted.items() if number)
    looked_after = len(loud) - len(open_ones)
    said = f"{told} open." if told else "Everything that is open is looked after."
    return said + (f" {looked_after} acknowledged." if looked_after else "") + beside


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def incident(request: HttpRequest, incident_id: UUID) -> HttpResponse:
    row = _incident(request, incident_id)
    allowed = may(request, RESPOND, row.project)
    problem = ""
    if request.method == "POST":
        if not allowed:
            raise PermissionDenied
        try:
            said = _act(request, row)
        except REFUSALS as refused:
            error = as_console_error(refused)
            if error is None:
                raise
            problem = error.message
            row = _incident(request, incident_id)
        else:
            messages.success(request, said)
            return HttpResponseRedirect(request.path)
    context = {**_story(request, row), "problem": problem}
    return render(request, "alerts/incident.html", context, status=400 if problem else 200)


@require_GET
@never_cache
def incident_live(request: HttpRequest, incident_id: UUID) -> HttpResponse:
    """204 while nothing moved since ``marker``; else the parts of the page, of which what is typed into is touched only where
    there is something else to do than before."""
    if not request.user.is_authenticated:
        return JsonResponse({"signed_out": True}, status=401)
    row = _incident(request, incident_id)
    context = _story(request, row)
    given = request.GET.get("marker", "")
    if given == context["marker"]:
        return HttpResponse(status=204)
    names = ["now", "lines"] + ([] if given.startswith(context["stands"]) else ["do"])
    parts = {name: render_to_string(f"alerts/incident_{name}.html", context, request) for name in names}
    said = "" if given.startswith(context["stands"]) else f"{row.title}: {row.get_state_display()}"
    done = row.state == Incident.RESOLVED
    return JsonResponse({"marker": context["marker"], "parts": parts, "said": said, "done": done})


def _story(request: HttpRequest, row: Incident) -> dict[str, Any]:
    """All that the page of an incident shows."""
    now = database_now()
    silence = selectors.silence_of(row, now)
    load = behind(row, now, lately=True) if may(request, "usage.view", row.project) else None
    (shown,) = showing.rows_of([row], {row.pk: silence} if silence else {})
    together = selectors.unresolved(request).exclude(pk=row.pk)
    allowed, route = may(request, RESPOND, row.project), str(row.facts.get("route", ""))
    known = Route.objects.filter(slug=route).values_list("pk", flat=True).first() if route else None
    entries = [(one, showing.entry_words(one.kind)) for one in row.entries.order_by("at", "id")[:500]]
    notifications = list(Notification.objects.filter(incident=row).select_related("channel")[:100])
    # What can be done about it follows from these alone.
    stands = sha256_hex(repr((row.state, row.clear_since is None, silence and silence.pk)).encode())[:10]
    told = [(one.state, one.tries) for one in notifications]
    seen = sha256_hex(repr((row.severity, row.says, row.clear_since, len(entries), told, load)).encode())[:20]
    return {
        "row": shown,
        "incident": row,
        "entries": entries,
        "notifications": notifications,
        "place": showing.place_of(row),
        "load": showing.load_of(row, load),
        "together": showing.rows_of(together[:8]) if row.state != Incident.RESOLVED else [],
        "book": books.rendered(row.rule.runbook) if row.rule.runbook else None,
        "may_act": allowed and row.state != Incident.RESOLVED,
        "may_note": allowed,
        "silences": SILENCES,
        "rule_href": reverse("admin:alerts_rule_change", args=[row.rule_id])
        if may(request, VIEW, row.rule.project)
        else "",
        "route_href": reverse("admin:providers_route_change", args=[known])
        if known and may(request, "route.view")
        else "",
        "live_url": reverse("alerts:incident_live", args=[row.pk]),
        "stands": stands,
        "marker": f"{stands}.{seen}",
    }


def _incident(request: HttpRequest, incident_id: UUID) -> Incident:
    rows = visible(Incident.objects.select_related("rule__project", "project"), request, VIEW)
    row = rows.filter(pk=incident_id).first()
    if row is None:
        raise Http404
    return row


def _act(request: HttpRequest, row: Incident) -> str:
    """What the form asks for; what to say about it. Raises what the services raise."""
    actor, given = actor_of(request), request.POST
    what = given.get("what", "")
    if what == "acknowledge":
        services.acknowledge(actor, incident=row, note=given.get("text", ""))
        return "You look after it now. Nobody else is told."
    if what == "resolve":
        services.resolve(actor, incident=row, note=given.get("text", ""))
        return "It is resolved."
    if what == "silence":
        services.silence(
            actor,
            incident=row,
            minutes=_minutes(given.get("minutes", "")),
            reason=given.get("text", ""),
            whole_rule=given.get("whole") == "1",
        )
        return "It is silenced."
    if what == "unsilence":
        services.end_silence(actor, incident=row)
        return "It is not silenced any more."
    if what == "note":
        services.note(actor, incident=row, text=given.get("text", ""))
        return "It is in the timeline."
    raise InvalidRequest("what: choose what to do.", param="what")


def _minutes(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 7:
        return int(text)
    raise InvalidRequest("minutes: choose for how long.", param="minutes")


@require_GET
@never_cache
@login_required
def postmortem(request: HttpRequest, incident_id: UUID) -> HttpResponse:
    row = _incident(request, incident_id)
    name = f"postmortem-{row.opened_at:%Y-%m-%d}-{row.rule.slug}.md"
    return HttpResponse(
        texts.written(row, _whole(request, row)),
        content_type="text/markdown; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _whole(request: HttpRequest, row: Incident) -> Behind | None:
    return behind(row, database_now()) if may(request, "usage.view", row.project) else None


@require_GET
@never_cache
@login_required
def slos(request: HttpRequest) -> HttpResponse:
    _refuse_others(request)
    figures = Figures(database_now())
    rows = visible(Slo.objects.filter(archived_at=None).select_related("project"), request, VIEW)
    shown = [
        showing.slo_row(one, href=reverse("admin:alerts_slo_change", args=[one.slo.pk]))
        for one in selectors.standings(list(rows[:100]), figures)
    ]
    context = {
        "rows": sorted(shown, key=lambda one: (one.standing.left, one.name)),
        "add_href": reverse("admin:alerts_slo_add") if may_anywhere(request, MANAGE) else "",
    }
    return render(request, "alerts/slos.html", context)


@require_GET
@login_required
def runbooks(request: HttpRequest) -> HttpResponse:
    _refuse_others(request)
    rows = sorted((books.title_of(name), reverse("alerts:runbook", args=[name])) for name in books.names())
    return render(request, "alerts/runbooks.html", {"rows": rows})


@require_GET
@login_required
def runbook(request: HttpRequest, name: str) -> HttpResponse:
    _refuse_others(request)
    text = books.rendered(name)
    if text is None:
        raise Http404
    return render(request, "alerts/runbook.html", {"title": books.title_of(name), "text": text})
