"""The page that sets two calls side by side. Its address names them; reading what they said is asked for, and on the record."""

from __future__ import annotations

from urllib.parse import urlencode
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from llmops.access.selectors import may, may_anywhere
from llmops.base.requests import actor_of
from llmops.core.errors import NotFound
from llmops.dashboards.comparing import sides
from llmops.dashboards.reader import Reader
from llmops.dashboards.story import Story, story
from llmops.usage import texts
from llmops.usage.models import Call
from llmops.usage.selectors import CallFilters, calls_page

_LONGEST = 120


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def compare(request: HttpRequest) -> HttpResponse:
    """``?call=&call=``: ids of calls, or request ids, theirs or the provider's."""
    if not may_anywhere(request, "usage.view"):
        raise PermissionDenied
    reader = Reader.of(request)
    named = request.GET.getlist("call") or request.POST.getlist("call")
    given = [text.strip()[:_LONGEST] for text in named]
    given = [text for text in given if text]
    found, problem = _found(reader, given)
    if problem or len(found) != 2:
        asked = {"problem": problem, "given": [*given, "", ""][:2]}
        return render(request, "dashboards/comparing/choose.html", asked, status=404 if problem else 200)
    a, b = found
    allowed = [one for one in found if may(request, texts.PERMISSION, one.told.call.project_id)]
    standing = [
        texts.standing_of(one.told.call) if one in allowed else texts.Standing(texts.CLOSED) for one in found
    ]
    read: dict[UUID, texts.Texts] = {}
    if request.method == "POST":
        if not allowed:
            raise PermissionDenied
        try:
            read = texts.read_texts(
                actor_of(request), calls=[one.told.call for one in allowed], why="compared"
            )
        except NotFound as gone:
            problem = gone.message
    first, second = (read.get(one.told.call.pk) for one in found)
    sections = sides.sections_of(a, b)
    if read and (parameters := sides.parameters_of(first, second)) is not None:
        sections.insert(1, parameters)
    context = {
        "sides": [_side(which, one) for which, one in zip("AB", found, strict=True)],
        "sections": sections,
        "apart": sum(section.apart for section in sections),
        "same_call": a.told.call.pk == b.told.call.pk,
        "texts": sides.texts_of(first, second) if read else None,
        "may_read": bool(allowed),
        "readable": any(one.there for one in standing),
        "standing": standing,
        "problem": problem,
        "swapped": address(b.told.call, a.told.call),
        "here": address(a.told.call, b.told.call),
    }
    return render(request, "dashboards/comparing/page.html", context, status=404 if problem else 200)


def address(a: Call, b: Call) -> str:
    return f"{reverse('dashboards:compare')}?{urlencode([('call', a.pk), ('call', b.pk)])}"


def _side(which: str, one: Story) -> dict[str, object]:
    call = one.told.call
    return {
        "which": which,
        "call": call,
        "href": reverse("dashboards:call", args=[call.pk]),
        "headline": one.headline,
        "status_word": one.status_word,
        "simulated": one.simulated,
    }


def _found(reader: Reader, given: list[str]) -> tuple[list[Story], str]:
    """The stories of what is named; and what is wrong, in words."""
    if len(given) > 2:
        return [], f"Two calls are compared at a time, and {len(given)} were chosen."
    found = []
    for text in given:
        pk = call_named(reader, text)
        if pk is None:
            return (
                [],
                f"There is no call {text!r} that you may see. It may have been removed after its retention.",
            )
        try:
            found.append(story(reader, pk))
        except NotFound as missing:
            return [], missing.message
    return found, ""


def call_named(reader: Reader, text: str) -> UUID | None:
    """The id of the call that is meant by its own id, its request's, or the provider's; the newest of several."""
    project_ids = reader.project_ids()
    try:
        pk = UUID(text)
    except ValueError:
        pass
    else:
        rows = Call.objects.filter(pk=pk)
        if project_ids is not None:
            rows = rows.filter(project_id__in=project_ids)
        if rows.exists():
            return pk
    page = calls_page(filters=CallFilters(project_ids=project_ids, any_id=text), page_size=1)
    return page.calls[0].pk if page.calls else None
