"""The playground's page, and what it asks. A view decodes, calls one function and encodes; refusals are JSON with a field and words."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from llmops.access.selectors import may, may_anywhere
from llmops.base.refusals import REFUSALS, as_console_error
from llmops.base.requests import actor_of
from llmops.core.digests import canonical_json
from llmops.core.errors import ConsoleError, InvalidRequest, NotFound, RateLimited
from llmops.core.errors import PermissionDenied as Denied
from llmops.playground import follow, services
from llmops.playground.models import Run
from llmops.playground.selectors import (
    MOST_PROMPTS,
    PERMISSION,
    callables,
    home_of,
    material_of,
    project_of,
    projects_of,
    prompt_of,
    prompts_of,
    run_of,
    setup_of,
    told_of_content,
    told_of_versions,
)

#: What the page asks, by the names of ``urls.py``.
ADDRESSES = (
    "page",
    "choices",
    "version",
    "run",
    "cancel",
    "events",
    "share",
    "save_version",
    "save_sample",
    "renew_key",
)
View = Callable[[HttpRequest], HttpResponseBase]


def for_members(view: View) -> View:
    """For those who may use the playground somewhere. What a service refuses becomes JSON: ``{"error": {message, param, code}}``."""

    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponseBase:
        if not may_anywhere(request, PERMISSION):
            raise PermissionDenied
        try:
            return view(request)
        except REFUSALS as raised:
            refused = as_console_error(raised)
            if refused is None:
                raise
            return _refusal(refused)

    return never_cache(login_required(guarded))


def _refusal(refused: ConsoleError) -> JsonResponse:
    told = {"message": refused.message, "param": refused.param or "", "code": refused.code}
    answer = JsonResponse({"error": told}, status=refused.status)
    if refused.retry_after is not None:
        answer["retry-after"] = str(int(refused.retry_after))
    return answer


def _asked(request: HttpRequest) -> dict[str, Any]:
    """The field ``asked`` of a form, which holds JSON. Raises ``InvalidRequest``."""
    try:
        found = json.loads(request.POST.get("asked", ""))
        # Numbers that are none, and halves of characters, can be read here and by nobody to whom they are passed on.
        canonical_json(found)
    except (ValueError, RecursionError):
        raise InvalidRequest("asked: give an object as JSON.", param="asked") from None
    if not isinstance(found, dict):
        raise InvalidRequest("asked: give an object as JSON.", param="asked")
    return found


def _me(request: HttpRequest) -> int:
    return int(request.user.pk or 0)


def _text(asked: dict[str, Any], name: str) -> str:
    value = asked.get(name, "")
    if not isinstance(value, str):
        raise InvalidRequest(f"{name}: give text.", param=name)
    return value


def _column(asked: dict[str, Any]) -> dict[str, Any]:
    column = asked.get("column")
    if not isinstance(column, dict):
        raise InvalidRequest("column: say which column is meant.", param="column")
    return column


# The page -----------------------------------------------------------------------------------------------------------


@for_members
@require_GET
def page(request: HttpRequest) -> HttpResponse:
    """``?setup=`` leads to a shared one; ``?project=&prompt=&version=`` begins with that version."""
    projects = list(projects_of(request))
    opening: dict[str, Any] = {}
    problem = ""
    try:
        if request.GET.get("setup"):
            row, kept = setup_of(request, request.GET["setup"])
            opening = {**kept, "project": str(row.project_id), "made_by": row.made_by}
        elif request.GET.get("prompt"):
            opening = {
                name: request.GET[name] for name in ("project", "prompt", "version") if request.GET.get(name)
            }
            if "project" in opening:
                project_of(request, opening["project"])
            else:
                opening["project"] = str(home_of(projects, opening["prompt"]).pk)
    except NotFound as missing:
        problem, opening = missing.message, {}
    context = {
        "projects": projects,
        "problem": problem,
        "start": {
            "opening": opening,
            "projects": [{"id": str(one.pk), "name": str(one), "slug": one.slug} for one in projects],
            "urls": {name: reverse(f"playground:{name}") for name in ADDRESSES}
            | {"preview": reverse("prompt-preview")},
            "who": str(request.user.pk),
        },
        "run_hours": settings.PLAYGROUND_RUN_HOURS,
        "unwatched": settings.PLAYGROUND_UNWATCHED_SECONDS,
    }
    return render(request, "playground/page.html", context, status=404 if problem else 200)


@for_members
@require_GET
def choices(request: HttpRequest) -> HttpResponse:
    """What may be chosen in a project: prompts, routes, models."""
    project = project_of(request, request.GET.get("project", ""))
    prompts = prompts_of(project)[:MOST_PROMPTS]
    return JsonResponse(
        {
            "prompts": [
                {
                    "id": str(one.pk),
                    "slug": one.slug,
                    "shared": one.project_id is None,
                    "newest": one.current.number if one.current else 0,
                    "draft": one.draft is not None,
                }
                for one in prompts
            ],
            "models": [
                {"name": one.name, "kind": one.kind, "note": one.note, "simulated": one.simulated}
                for one in callables(project)
            ],
            "may_make_prompts": may(request, "prompt.manage", project),
        }
    )


@for_members
@require_GET
def version(request: HttpRequest) -> HttpResponse:
    """The versions of a prompt, and what one of them says: the one that is named, else the newest, else the draft."""
    project = project_of(request, request.GET.get("project", ""))
    prompt = prompt_of(project, request.GET.get("prompt", ""))
    told = told_of_versions(prompt, request)
    named = request.GET.get("version") or (str(prompt.current.number) if prompt.current else "draft")
    labels = {name: one["version"] for one in told["versions"] for name in one["labels"]}
    return JsonResponse({**told, "content": told_of_content(material_of(prompt, labels.get(named, named)))})


# Runs ---------------------------------------------------------------------------------------------------------------


@for_members
@require_POST
def run(request: HttpRequest) -> HttpResponse:
    column = _asked(request)
    project = project_of(request, column.get("project", ""))
    made = services.start_run(actor_of(request), user=request.user, project=project, column=column)
    return JsonResponse(
        {"run": str(made.pk), "prompt": made.prompt_name, "version": made.prompt_version}, status=201
    )


@for_members
@require_POST
def cancel(request: HttpRequest) -> HttpResponse:
    found = run_of(request, _me(request), _asked(request).get("run", ""))
    services.cancel_run(actor_of(request), run=found)
    return JsonResponse({"run": str(found.pk)}, status=202)


@for_members
@require_GET
def events(request: HttpRequest) -> HttpResponseBase:
    """A stream about the runs ``?run=&run=``, which goes on after ``Last-Event-ID``."""
    names = request.GET.getlist("run")
    if not 1 <= len(names) <= follow.MOST_RUNS:
        raise InvalidRequest(f"run: name between one and {follow.MOST_RUNS} runs.", param="run")
    runs = [_run_or_none(request, name) for name in names]
    if not any(runs):
        raise NotFound("run: there is no such run of yours; runs are forgotten after a while.", param="run")
    if follow.streams_of(_me(request)) >= follow.MOST_STREAMS:
        raise RateLimited(
            "The playground is open in too many tabs of yours. Close some of them.", retry_after=5
        )
    told = follow.told_so_far(request.headers.get("Last-Event-ID", ""), len(runs))
    answer = StreamingHttpResponse(
        follow.events(follow.Follower(request, runs, told, names)),
        content_type="text/event-stream; charset=utf-8",
    )
    answer["X-Accel-Buffering"] = "no"
    return answer


def _run_or_none(request: HttpRequest, name: str) -> Run | None:
    try:
        return run_of(request, _me(request), name)
    except NotFound:
        return None


# Keeping ------------------------------------------------------------------------------------------------------------


@for_members
@require_POST
def share(request: HttpRequest) -> HttpResponse:
    asked = _asked(request)
    project = project_of(request, asked.get("project", ""))
    row = services.share_setup(actor_of(request), project=project, setup=asked)
    address = request.build_absolute_uri(f"{reverse('playground:page')}?setup={row.pk}")
    return JsonResponse({"url": address, "days": settings.PLAYGROUND_SETUP_DAYS}, status=201)


@for_members
@require_POST
def save_version(request: HttpRequest) -> HttpResponse:
    asked = _asked(request)
    column = _column(asked)
    project = project_of(request, column.get("project", ""))
    named = asked.get("prompt") or ""
    prompt = prompt_of(project, named) if named else None
    _must_manage(request, prompt.project if prompt is not None else project)
    expected = asked.get("expected")
    made = services.save_as_version(
        actor_of(request),
        project=project,
        prompt=prompt,
        column=column,
        note=_text(asked, "note"),
        slug=_text(asked, "slug"),
        expected=expected if isinstance(expected, int) else None,
        replace_draft=asked.get("replace_draft") is True,
    )
    address = reverse("admin:prompts_prompt_change", args=[made.prompt_id])
    told = {
        "prompt": str(made.prompt_id),
        "slug": made.prompt.slug,
        "version": str(made.number),
        "url": address,
    }
    return JsonResponse(told, status=201)


@for_members
@require_POST
def save_sample(request: HttpRequest) -> HttpResponse:
    asked = _asked(request)
    project = project_of(request, asked.get("project", ""))
    prompt = prompt_of(project, asked.get("prompt", ""))
    _must_manage(request, prompt.project)
    variables = asked.get("variables")
    if not isinstance(variables, dict):
        raise InvalidRequest("variables: give an object.", param="variables")
    where = services.save_as_sample(
        actor_of(request), prompt=prompt, name=_text(asked, "name"), variables=variables
    )
    return JsonResponse({"where": where, "prompt": str(prompt.pk)}, status=201)


@for_members
@require_POST
def renew_key(request: HttpRequest) -> HttpResponse:
    project = project_of(request, _asked(request).get("project", ""))
    services.renew_key(actor_of(request), project=project)
    return JsonResponse({"project": str(project.pk)}, status=201)


def _must_manage(request: HttpRequest, owner: Any) -> None:
    if not may(request, "prompt.manage", owner):
        raise Denied(
            "You may not change this prompt: it is "
            + ("shared by the whole organisation." if owner is None else f"one of the project {owner}.")
        )
