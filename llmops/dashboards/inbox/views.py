"""The reviewers' inbox. Every decision goes through one address, and names what was shown."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
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

from llmops.access.selectors import may_anywhere
from llmops.approvals.kinds import kind_named
from llmops.approvals.models import Request
from llmops.approvals.services import cancel, decide
from llmops.base.refusals import REFUSALS, as_console_error
from llmops.base.requests import actor_of
from llmops.core.errors import ConsoleError, InvalidRequest
from llmops.dashboards.inbox import reading, standing
from llmops.dashboards.inbox.listing import DECIDED, PAGE, UNKNOWN, WAITING, Filters, requests_for
from llmops.tools.models import Action
from llmops.tools.rules import RISKS
from llmops.tools.services import resolve

#: Decided together at most.
MOST_TOGETHER = PAGE
_MANY, _LONGEST_PAUSE_S = threading.Lock(), 0.05


@require_GET
@never_cache
@login_required
def inbox(request: HttpRequest) -> HttpResponse:
    _refuse_strangers(request)
    return _list_page(request, Filters.of(request.GET.dict()))


def _list_page(
    request: HttpRequest,
    filters: Filters,
    problem: str = "",
    *,
    status: int = 200,
    reason: str = "",
    chosen: Sequence[UUID] = (),
) -> HttpResponse:
    """``reason`` and ``chosen`` are what was sent and has to be sent again."""
    view = reading.inbox(request, filters, before=request.GET.get("before", ""))
    live = (
        ""
        if view.together or request.GET.get("before")
        else reverse("dashboards:inbox_live") + filters.query()
    )
    context = {
        "view": view, "filters": filters, "live_url": live, "problem": problem, "reason": reason, "chosen": chosen, "risks": RISKS, **_tabs(view),
        "notices": standing.notices(request), "may_stand_in": may_anywhere(request, "approval.decide"),
    }  # fmt: skip
    return render(request, "dashboards/inbox/page.html", context, status=status)


def _tabs(view: reading.Inbox) -> dict[str, Any]:
    filters = view.filters
    named = (
        (WAITING, "Waiting", view.waiting),
        (UNKNOWN, "Unknown outcome", view.unknown),
        (DECIDED, "Decided", ""),
    )
    return {
        "tabs": [
            (title, count, filters.query(show=name if name != WAITING else ""), name == filters.show)
            for name, title, count in named
        ]
    }


@require_GET
@never_cache
def inbox_live(request: HttpRequest) -> HttpResponse:
    if not request.user.is_authenticated:
        return JsonResponse({"signed_out": True}, status=401)
    _refuse_strangers(request)
    view = reading.inbox(request, Filters.of(request.GET.dict()))
    if request.GET.get("marker") == view.marker:
        return HttpResponse(status=204)
    context = {"view": view, "filters": view.filters, **_tabs(view)}
    return JsonResponse(
        {
            "marker": view.marker,
            "parts": {
                "tabs": render_to_string("dashboards/inbox/tabs.html", context, request),
                "inbox": render_to_string("dashboards/inbox/list.html", context, request),
            },
            "said": f"{view.waiting} waiting.",
        }
    )


@require_GET
@never_cache
@login_required
def item(request: HttpRequest, request_id: UUID) -> HttpResponse:
    return _item_page(request, request_id)


def _item_page(
    request: HttpRequest,
    request_id: UUID,
    *,
    typed: dict[str, str] | None = None,
    problem: str = "",
    status: int = 200,
) -> HttpResponse:
    found = reading.item(request, request_id)
    if found is None:
        raise Http404
    context = {
        "item": found,
        "row": found.row,
        "typed": typed or {},
        "problem": problem,
        # What is wrong with the reason is said beside it, and not at the other end of a phone's page.
        "problem_at_hand": status == InvalidRequest.status
        and found.may_decide
        and (typed or {}).get("what") == "reject",
        "live_url": reverse("dashboards:inbox_item_live", args=[request_id]),
    }
    return render(request, "dashboards/inbox/item.html", context, status=status)


@require_GET
@never_cache
def item_live(request: HttpRequest, request_id: UUID) -> HttpResponse:
    if not request.user.is_authenticated:
        return JsonResponse({"signed_out": True}, status=401)
    found = reading.item(request, request_id)
    if found is None:
        raise Http404
    if request.GET.get("marker") == found.marker:
        return HttpResponse(status=204)
    context = {"item": found, "row": found.row}
    standing = render_to_string("dashboards/inbox/standing.html", context, request)
    over = found.request.state != Request.OPEN
    return JsonResponse(
        {"marker": found.marker, "parts": {"standing": standing}, "said": found.row.state if over else ""}
    )


@require_GET
@never_cache
@login_required
def unknown(request: HttpRequest, action_id: UUID) -> HttpResponse:
    return _unknown_page(request, action_id)


def _unknown_page(
    request: HttpRequest, action_id: UUID, *, problem: str = "", reason: str = "", status: int = 200
) -> Any:
    action = reading.unknown_item(request, action_id)
    if action is None:
        raise Http404
    context = {
        "action": action,
        "title": reading.exact(action.says),
        "arguments": reading.arguments_of(action.given),
        "may_resolve": reading.may_resolve(request, action.project) and action.state == Action.UNKNOWN,
        "problem": problem,
        "reason": reason,
    }
    return render(request, "dashboards/inbox/unknown.html", context, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def decision(request: HttpRequest) -> HttpResponse:
    """``what`` (approve, reject, edit, take_back, happened, did_not) of ``request`` (several: together) or ``action``.

    ``seen_<id>`` is the digest of what the page showed.
    """
    _refuse_strangers(request)
    if request.method != "POST":
        return HttpResponseRedirect(reverse("dashboards:inbox"))
    what, reason = request.POST.get("what", ""), request.POST.get("reason", "")
    if what in ("happened", "did_not"):
        return _resolved(request, what == "happened", reason)
    chosen = [_id(text) for text in request.POST.getlist("request")]
    if request.POST.get("together"):
        return _together(request, chosen, what, reason)
    if len(chosen) != 1:
        raise Http404
    return _decided(request, chosen[0], what, reason)


def _decided(request: HttpRequest, pk: UUID, what: str, reason: str) -> HttpResponse:
    row = _visible(request, pk)
    typed = {"reason": reason, "arguments": request.POST.get("arguments", ""), "what": what}
    try:
        follows = _do(request, row, what, reason)
    except REFUSALS as raised:
        error = as_console_error(raised)
        if error is None:
            raise
        return _item_page(request, pk, typed=typed, problem=_said(error), status=error.status)
    return HttpResponseRedirect(follows)


def _do(request: HttpRequest, row: Request, what: str, reason: str) -> str:
    actor, here = actor_of(request), reverse("dashboards:inbox_item", args=[row.pk])
    if what in ("approve", "reject"):
        seen = request.POST.get(f"seen_{row.pk}", "")
        done = decide(actor, request_id=row.pk, approves=what == "approve", seen=seen, reason=reason)
        if what == "reject":
            messages.success(request, f"Rejected: {row.title}")
        elif done.state == Request.EXECUTED:
            messages.success(request, f"Approved: {row.title}")
        elif done.state == Request.VOID:
            messages.warning(request, f"Nothing was done: {(done.result or {}).get('why', '')}")
        else:
            messages.success(request, f"Your approval counts. {row.required} people must agree.")
        return here
    if what == "take_back":
        cancel(actor, request_id=row.pk, reason=reason)
        messages.success(request, f"Taken back: {row.title}")
        return here
    if what == "edit":
        revise = kind_named(row.kind).revise
        if revise is None:
            raise InvalidRequest("This cannot be edited. Reject it and ask for something else.")
        made = revise(actor, row.content, _arguments(request.POST.get("arguments", "")), reason)
        if made is None:
            messages.success(request, "Replaced. Nobody need agree to what it is now; it is carried out.")
            return here
        messages.success(request, "Replaced by this one, which you ask for: another person must decide.")
        return reverse("dashboards:inbox_item", args=[made.pk])
    raise InvalidRequest("Choose what is to be done: approve, reject, edit or take back.")


def _together(request: HttpRequest, chosen: list[UUID], what: str, reason: str) -> HttpResponse:
    """Each is decided by itself, in its own transaction. Only calls of one tool, of one class, in one project."""
    filters = Filters.of({name: request.POST.get(name, "") for name in ("risk", "tool", "project")})
    again = partial(_list_page, request, filters, reason=reason, chosen=chosen)
    if not chosen or len(set(chosen)) > MOST_TOGETHER or what not in ("approve", "reject"):
        return again("Choose some, and whether to approve or reject them.", status=400)
    if what == "reject" and not reason.strip():
        return again("Say why you reject them; whoever asked wants to know.", status=400)
    rows = [_visible(request, pk) for pk in dict.fromkeys(chosen)]
    alike = {(row.action.tool_id, row.action.risk) if hasattr(row, "action") else row.pk for row in rows}
    if len(alike) > 1 or not all(hasattr(row, "action") for row in rows):
        problem = "Only calls of the same tool and of the same class are decided together. Filter by both."
        return again(problem, status=400)
    done, refused = 0, list[str]()
    for row in rows:
        try:
            seen = request.POST.get(f"seen_{row.pk}", "")
            with _giving_way():
                decide(
                    actor_of(request), request_id=row.pk, approves=what == "approve", seen=seen, reason=reason
                )
            done += 1
        except REFUSALS as raised:
            error = as_console_error(raised)
            if error is None:
                raise
            refused.append(f"{row.title}: {error.message}")
    if done:
        messages.success(
            request, f"{'Approved' if what == 'approve' else 'Rejected'}: {done} of {len(rows)}."
        )
    if refused:
        return again(" ".join(refused[:5]), status=409)
    return HttpResponseRedirect(reverse("dashboards:inbox") + filters.query())


@contextmanager
def _giving_way() -> Iterator[None]:
    """For one of many: they take half of the time at most, one after the other in this process, and leave the rest of it, and of the
    database, to whoever decides about a single one, and to workers that begin with what was decided."""
    with _MANY:
        began = time.monotonic()
        try:
            yield
        finally:
            time.sleep(min(time.monotonic() - began, _LONGEST_PAUSE_S))


def _resolved(request: HttpRequest, happened: bool, reason: str) -> HttpResponse:
    action_id = _id(request.POST.get("action", ""))
    action = reading.unknown_item(request, action_id)
    if action is None:
        raise Http404
    try:
        resolve(actor_of(request), action=action, happened=happened, reason=reason)
    except ConsoleError as refused:
        return _unknown_page(
            request, action_id, problem=refused.message, reason=reason, status=refused.status
        )
    messages.success(request, "On record. Nothing was run again.")
    return HttpResponseRedirect(reverse("dashboards:inbox") + "?show=unknown")


def _said(error: ConsoleError) -> str:
    """Beside its field the name would be said twice."""
    told = error.message
    # Where a member of the arguments is meant, its name is needed.
    if error.param and "." not in error.param:
        told = told.removeprefix(f"{error.param}: ")
    return told[:1].upper() + told[1:]


def _refuse_strangers(request: HttpRequest) -> None:
    if not may_anywhere(request, "approval.view"):
        raise PermissionDenied


def _visible(request: HttpRequest, pk: UUID) -> Request:
    row = requests_for(request).filter(pk=pk).first()
    if row is None:
        raise Http404
    return row


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Http404 from None


def _arguments(text: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a member is given twice")
        return found

    try:
        found = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as wrong:
        raise InvalidRequest(f"arguments: this is not JSON: {wrong}.", param="arguments") from None
    if not isinstance(found, dict):
        raise InvalidRequest("arguments: an object is needed.", param="arguments")
    return found
