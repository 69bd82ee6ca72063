"""Pages on which a call is asked again: what it will cost, then what became of it, beside the first one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from urllib.parse import urlencode
from uuid import UUID, uuid4

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from llmops.access.models import Project
from llmops.access.selectors import may
from llmops.base.refusals import REFUSALS, as_console_error
from llmops.base.requests import actor_of
from llmops.core.errors import InvalidRequest
from llmops.dashboards import formats
from llmops.dashboards.reader import Reader
from llmops.dashboards.story import story
from llmops.playground import services
from llmops.playground.again import estimated, why_not
from llmops.playground.selectors import PERMISSION, Choice, as_uuid, callables, live_document
from llmops.prompts.models import Prompt
from llmops.prompts.selectors import live_of
from llmops.usage import texts
from llmops.usage.models import Call, Replay
from llmops.usage.selectors.replays import LATE, call_made_by


@dataclass(frozen=True, slots=True)
class Offer:
    """A route or model to ask, and what the same tokens would cost there."""

    name: str
    kind: str
    words: str
    simulated: bool
    chosen: bool


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def replay(request: HttpRequest, call_id: UUID) -> HttpResponse:
    """What a call asked, asked again of another model or with another version of its prompt."""
    call, project = _call_to_ask_again(request, call_id)
    standing = texts.standing_of(call)
    problem, status = "", 200
    given = request.POST if request.method == "POST" else request.GET
    if request.method == "POST":
        try:
            made = services.replay_call(
                actor_of(request),
                call=call,
                replay_id=_replay_id(given.get("id", "")),
                model=given.get("model", ""),
                version=_version(given.get("version", "")),
            )
        except REFUSALS as raised:
            refused = as_console_error(raised)
            if refused is None:
                raise
            problem, status = refused.message, refused.status
        else:
            return HttpResponseRedirect(reverse("playground:replay_made", args=[made.pk]))
    found = story(Reader.of(request), call.pk)
    kept = texts.looked_at(call) if standing.there else None
    why = why_not(call.endpoint, kept.request) if kept is not None else ""
    named = kept is not None and kept.request is not None and isinstance(kept.request.get("prompt"), dict)
    context = {
        "call": call,
        "story": found,
        "standing": standing,
        "why_not": why,
        "changed": kept is not None and kept.changed,
        "offers": _offers(call, project, kept, given.get("model") or call.route or call.model)
        if kept is not None and not why
        else [],
        "versions": _versions(call, project) if named else [],
        "version": given.get("version", ""),
        "prompt_unnamed": bool(call.prompt_name) and not named,
        "replay_id": given.get("id") or str(uuid4()),
        "problem": problem,
    }
    return render(request, "playground/replay.html", context, status=status)


def _call_to_ask_again(request: HttpRequest, call_id: UUID) -> tuple[Call, Project]:
    call = Call.objects.filter(pk=call_id).first()
    if call is None or not may(request, "usage.view", call.project_id):
        raise Http404
    if not (may(request, texts.PERMISSION, call.project_id) and may(request, PERMISSION, call.project_id)):
        raise PermissionDenied
    project = Project.objects.filter(pk=call.project_id, archived_at=None).first()
    if project is None:
        raise Http404
    return call, project


def _replay_id(text: str) -> UUID:
    found = as_uuid(text)
    if found is None:
        raise InvalidRequest("id: open the page anew.", param="id")
    return found


def _version(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidRequest("version: choose one of the list.", param="version")
    return int(text)


def _offers(call: Call, project: Project, kept: texts.Texts, chosen: str) -> list[Offer]:
    document, now = live_document(), time.time()
    found = []
    for one in callables(project):
        told = "no price"
        if document is not None:
            cost = estimated(
                document,
                one.name,
                request=kept.request or {},
                input_tokens=call.input_tokens,
                output_tokens=call.output_tokens,
                at=now,
            )
            told = _words(cost.least, cost.most, cost.bound)
        found.append(_offer(one, told, chosen))
    return found


def _offer(one: Choice, told: str, chosen: str) -> Offer:
    return Offer(one.name, one.kind, told, one.simulated, one.name == chosen)


def _words(least: int | None, most: int | None, bound: int | None) -> str:
    if least is None:
        return "no price"
    about = formats.usd(least) if least == most else f"{formats.usd(least)} to {formats.usd(most)}"
    return f"about {about}, at most {formats.usd(bound)}"


def _versions(call: Call, project: Project) -> list[int]:
    """Versions of the call's prompt that data planes serve, newest first."""
    prompts = Prompt.objects.filter(slug=call.prompt_name, archived_at=None)
    prompt = prompts.filter(project=project).first() or prompts.filter(project=None).first()
    live = live_of(prompt) if prompt is not None else None
    return sorted(live.versions, reverse=True) if live is not None else []


@require_GET
@never_cache
@login_required
def made(request: HttpRequest, replay_id: UUID) -> HttpResponse:
    """Under way, then the two calls side by side."""
    row = _made(request, replay_id)
    call = call_made_by(row)
    if call is not None:
        pair = urlencode([("call", row.of_call), ("call", call.pk)])
        return HttpResponseRedirect(f"{reverse('dashboards:compare')}?{pair}")
    late = timezone.now() - row.made_at > LATE
    context = {"replay": row, "late": late, "moving": not (late or row.problem)}
    return render(request, "playground/replay_made.html", context)


@require_GET
@never_cache
def live(request: HttpRequest, replay_id: UUID) -> HttpResponse:
    """204 until there is something to see, then that the page is to be opened anew."""
    if not request.user.is_authenticated:
        return JsonResponse({"signed_out": True}, status=401)
    row = _made(request, replay_id)
    if call_made_by(row) is None and not row.problem and timezone.now() - row.made_at <= LATE:
        return HttpResponse(status=204)
    return JsonResponse({"marker": "over", "reload": True})


def _made(request: HttpRequest, replay_id: UUID) -> Replay:
    row = Replay.objects.filter(pk=replay_id).first()
    if row is None or not may(request, "usage.view", row.project_id):
        raise Http404
    return row
