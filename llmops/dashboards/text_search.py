"""The page that looks for words in what calls said. What is looked for is sent, never part of an address; each search is on the record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from llmops.access.models import Project
from llmops.access.selectors import may_anywhere, projects_for
from llmops.base.refusals import REFUSALS, as_console_error
from llmops.base.requests import actor_of
from llmops.core.errors import InvalidRequest
from llmops.usage import texts
from llmops.usage.models import Call
from llmops.usage.text_search import Found, Hit, search_texts

#: How far back a search goes, in days; empty for all that is kept.
REACHES = {"1": "24 hours", "7": "7 days", "30": "30 days", "": "All that is kept"}
_PARTS = {"text": "Answer", "refusal": "Refusal", "tool": "Call of a tool"}


@dataclass(frozen=True, slots=True)
class HitRow:
    """``call`` is None when it is not in the ledger."""

    hit: Hit
    call: Call | None
    part: str


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def text_search(request: HttpRequest) -> HttpResponse:
    if not may_anywhere(request, texts.PERMISSION):
        raise PermissionDenied
    mine = projects_for(request, texts.PERMISSION).filter(
        archived_at=None, keep_texts_percent__gt=0, keep_texts_readable=True
    )
    found, problem, status, given = None, "", 200, request.POST
    if request.method == "POST":
        try:
            found = _found(request, list(mine))
        except REFUSALS as raised:
            refused = as_console_error(raised)
            if refused is None:
                raise
            problem, status = refused.message, refused.status
    context = {
        "projects": mine.order_by("slug"),
        "reaches": REACHES,
        "given": given,
        "found": found,
        "rows": _rows(found) if found is not None else [],
        "problem": problem,
    }
    return render(request, "dashboards/calls/search.html", context, status=status)


def _found(request: HttpRequest, mine: list[Project]) -> Found:
    given = request.POST
    project = next((one for one in mine if one.slug == given.get("project")), None)
    if project is None:
        raise InvalidRequest(
            "project: choose one of the list: those that keep texts for people, of which you may read them.",
            param="project",
        )
    reach = given.get("reach", "")
    if reach not in REACHES:
        raise InvalidRequest("reach: choose one of the list.", param="reach")
    return search_texts(
        actor_of(request),
        project=project,
        words=given.get("words", ""),
        since=timedelta(days=int(reach)) if reach else None,
        cursor=given.get("after", ""),
    )


def _rows(found: Found) -> list[HitRow]:
    calls = Call.objects.in_bulk([hit.call_id for hit in found.hits])
    return [
        HitRow(
            hit,
            calls.get(hit.call_id),
            _PARTS.get(hit.part, hit.part) if hit.answered else hit.part.capitalize(),
        )
        for hit in found.hits
    ]
