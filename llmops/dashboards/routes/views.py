"""The route editor: shows a route, says what is wrong as one types, and saves through the service of every other door."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    JsonResponse,
)
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from llmops.access.selectors import may, may_anywhere
from llmops.base.refusals import REFUSALS, as_console_error
from llmops.base.requests import actor_of
from llmops.dashboards.reader import Reader
from llmops.dashboards.routes import foreseen
from llmops.dashboards.routes.picture import Step, picture, share_of
from llmops.dashboards.routes.typed import CLASSES, Meant, Typed, of_form, of_route
from llmops.policies.selectors import policy_names
from llmops.providers.models import Model, Route
from llmops.providers.rules import CONTEXT_STRATEGIES, FAILURE_CLASSES, LAST_RESORTS
from llmops.providers.services import create_route, update_route
from llmops.serving.snapshot import RouteEntry
from llmops.serving.validation import ERROR, Problem
from llmops.serving.whatif.drafts import draft_document, problems_of

#: How long back an estimate of a change looks, in days.
ESTIMATE_DAYS = 7


@dataclass(frozen=True, slots=True)
class Number:
    """A field that is a number, with what is said around it."""

    name: str
    label: str
    unit: str
    hint: str = ""


ATTEMPTS = (
    Number("attempts", "Attempts in all", "attempts", "Over targets and fallbacks, the first one included."),
    Number(
        "total_timeout_ms",
        "Time for all of them",
        "seconds",
        "Nothing is begun after it; the call then fails.",
    ),
)
BREAKER = (
    Number("breaker_failure_percent", "Leave a target alone when", "% of its calls fail"),
    Number("breaker_min_calls", "among at least", "calls"),
    Number("breaker_window_s", "within", "seconds"),
    Number("breaker_cooldown_s", "and try it again after", "seconds", "With one call, as a probe."),
)
CACHE = (
    Number(
        "cache_ttl_s",
        "Give the same answer again for",
        "seconds",
        "To the same request of the same project. 0: never, each call is made.",
    ),
)
LOAD = (
    Number(
        "max_concurrency",
        "Calls at once to a target",
        "calls",
        "From one data plane. 0: as many as the provider shows that it can take.",
    ),
    Number("queue_size", "Calls that may wait for a place", "calls", "The next one gets 429 at once."),
    Number("queue_timeout_ms", "They wait at most", "seconds"),
    Number(
        "keep_alive_s",
        "Comment on a silent stream every",
        "seconds",
        "Keeps proxies from closing it while the model thinks. 0: never.",
    ),
)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def editor(request: HttpRequest, slug: str = "") -> HttpResponse:
    """A stored route by its name; without one a new route."""
    if not may_anywhere(request, "route.view"):
        raise PermissionDenied
    route = Route.objects.filter(slug=slug).first() if slug else Route()
    if route is None:
        raise Http404
    editable = may(request, "route.manage") and route.archived_at is None
    if not slug and not editable:
        raise PermissionDenied
    typed, problems = of_route(route), dict[str, str]()
    loaded = route.updated_at.isoformat() if slug else ""
    if request.method == "POST":
        if not may(request, "route.manage"):
            raise PermissionDenied
        typed = of_form(request.POST, slug=slug)
        loaded = request.POST.get("loaded", "")[:40]
        saved, problems = _save(request, route if slug else None, typed, loaded)
        if saved is not None:
            messages.success(request, f"{saved.slug} is saved as a draft. It is served once it is published.")
            return HttpResponseRedirect(reverse("dashboards:route_editor", args=[saved.slug]))
    context = {
        "route": route if slug else None,
        "typed": typed,
        "loaded": loaded,
        "editable": editable,
        "problems": problems,
        "history_url": Reader.of(request).link("providers.route", route.pk) if slug else "",
        "revisions_url": Reader.of(request).link("serving.revision"),
        **_form(typed, problems),
        **_told(Meant(typed).entry(), Meant(typed).problems),
    }
    return render(request, "dashboards/routes/editor.html", context, status=400 if problems else 200)


@never_cache
def check(request: HttpRequest) -> HttpResponse:
    """What stands in the editor, looked at: the picture, what is wrong, and with ``cost`` what it would have cost. Changes
    nothing."""
    if not request.user.is_authenticated:
        return JsonResponse({"signed_out": True}, status=401)
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    if not may(request, "route.manage"):
        raise PermissionDenied
    typed = of_form(request.POST)
    meant = Meant(typed)
    entry = meant.entry()
    told = _told(entry, meant.problems)
    parts = {
        "picture": render_to_string("dashboards/routes/picture.html", told, request),
        "problems": render_to_string("dashboards/routes/problems.html", told, request),
    }
    state = said = told["said"]
    if request.POST.get("cost") and may_anywhere(request, "usage.view"):
        estimate = foreseen.of_change(Reader.of(request), entry, days=ESTIMATE_DAYS)
        parts["cost"] = render_to_string("dashboards/routes/estimate.html", {"estimate": estimate}, request)
        said = estimate.words
    return JsonResponse({"parts": parts, "state": state, "said": said})


def _save(
    request: HttpRequest, route: Route | None, typed: Typed, loaded: str
) -> tuple[Route | None, dict[str, str]]:
    """The saved route, or what is wrong by field (empty: of the whole)."""
    meant = Meant(typed)
    try:
        changes, chains, actor = meant.changes(), meant.chains(), actor_of(request)
        if route is None:
            return create_route(actor, slug=typed.slug, fields=changes, **chains), {}
        # Empty is no moment of any route, and so refused as well.
        return update_route(actor, route=route, changes=changes, as_of=loaded or "never", **chains), {}
    except REFUSALS as raised:
        refused = as_console_error(raised)
        if refused is None:
            raise
        found = refused.data.get("problems")
        if not isinstance(found, dict):
            found = {refused.param or "": refused.message}
        return None, {name: str(text).removeprefix(f"{name}: ") for name, text in found.items()}


def _told(entry: RouteEntry, typed_problems: dict[str, str]) -> dict[str, Any]:
    """The picture of what was typed and what is wrong with it."""
    document = draft_document()
    steps: list[Step] = picture(entry, {model.slug: model for model in document.models})
    found: list[Problem] = problems_of(entry, now=timezone.now())
    errors = [one for one in found if one.level == ERROR]
    warnings = [one for one in found if one.level != ERROR]
    wrong, warned = len(errors) + len(typed_problems), len(warnings)
    if wrong or warned:
        counts = [
            f"{number} {word}{'' if number == 1 else 's'}"
            for number, word in ((wrong, "problem"), (warned, "warning"))
            if number
        ]
        said = f"{' and '.join(counts)}."
    else:
        said = "Nothing is wrong."
    return {
        "steps": steps,
        "typed_problems": typed_problems,
        "errors": errors,
        "warnings": warnings,
        "said": said,
    }


def _form(typed: Typed, problems: dict[str, str]) -> dict[str, Any]:
    """What the fields of the form are made of."""
    models = list(Model.objects.order_by("slug").values_list("slug", "archived_at"))
    # Archived ones are offered where they are chosen already, so that saving does not drop them unseen.
    chosen = {slug for slug, _ in typed.targets} | {*typed.fallbacks, *chain(*typed.by_class.values())}
    chosen |= {typed.texts.get("larger_model", ""), typed.texts.get("summary_model", "")}
    known = {slug for slug, _ in models}
    offered = [
        (slug, slug if archived is None else f"{slug} (archived)")
        for slug, archived in models
        if archived is None or slug in chosen
    ]
    offered += [(slug, f"{slug} (unknown)") for slug in sorted(chosen - known) if slug]
    names = policy_names()
    total = sum(int(weight) for _, weight in typed.targets if weight.isdecimal())

    def numbers(group: tuple[Number, ...]) -> list[dict[str, Any]]:
        return [
            {
                "name": one.name,
                "label": one.label,
                "unit": one.unit,
                "hint": one.hint,
                "value": typed.texts.get(one.name, ""),
                "problem": problems.get(one.name, ""),
                "decimal": one.name.endswith("_ms"),
            }
            for one in group
        ]

    return {
        "models": offered,
        "policy_names": [*names, *(name for name in typed.policies if name not in names)],
        "targets": [
            {
                "model": slug,
                "weight": weight,
                "share": share_of(int(weight), total) if weight.isdecimal() else "",
                "width": round(1_000 * int(weight) / total) if total and weight.isdecimal() else 0,
            }
            for slug, weight in typed.targets or [("", "100")]
        ],
        "classes": [
            {
                "name": name,
                "field": f"after-{name}",
                "label": label,
                "models": typed.by_class.get(name, []),
                "problem": problems.get(f"after-{name}", ""),
            }
            for name, label in FAILURE_CLASSES
            if name in CLASSES
        ],
        "by_class": bool(typed.by_class),
        "strategies": CONTEXT_STRATEGIES,
        "last_resorts": LAST_RESORTS,
        "attempts_numbers": numbers(ATTEMPTS),
        "breaker_numbers": numbers(BREAKER),
        "cache_numbers": numbers(CACHE),
        "load_numbers": numbers(LOAD),
        "general_problem": problems.get("", "") or problems.get("request", ""),
        "days": ESTIMATE_DAYS,
    }
