"""The Readiness page: what is met, what is lacking and where it is mended, and the score from day to day."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from llmops.access.selectors import may
from llmops.dashboards.reader import Reader
from llmops.dashboards.settings_told import settings_told
from llmops.readiness.addresses import address
from llmops.readiness.finding import CATEGORIES, LACKING, MET, NOTHING, UNKNOWN
from llmops.readiness.models import DayScore
from llmops.readiness.scoring import OF_A_CATEGORY, POINTS
from llmops.readiness.selectors import Assessment, Looked, assess, history

#: What is to be done comes first.
_ORDER = (LACKING, UNKNOWN, MET, NOTHING)
_WORDS = {MET: "met", LACKING: "to do", UNKNOWN: "not known", NOTHING: "nothing to judge"}
#: Width and height of the line of scores.
_WIDTH, _HEIGHT = 300, 40


@dataclass(frozen=True, slots=True)
class Row:
    id: str
    title: str
    state: str
    word: str
    evidence: str
    fix: str
    href: str


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    title: str
    points: str
    met: int
    judged: int
    #: thousandths of the width of its bar
    width: int
    rows: list[Row]


@require_GET
@never_cache
@login_required
def readiness(request: HttpRequest) -> HttpResponse:
    if not may(request, "provider.view"):
        raise PermissionDenied("This page is about the whole organisation.")
    found, days = assess(), history(today=timezone.now().date())
    context = {
        "groups": groups(Reader.of(request), found),
        "whole": found.whole,
        "of": POINTS,
        "each": OF_A_CATEGORY,
        "days": [{"day": one.day, "points": f"{one.tenths / 10:g}"} for one in reversed(days)],
        "line": line(days),
        "box": f"0 0 {_WIDTH} {_HEIGHT}",
    }
    return render(request, "dashboards/readiness/page.html", context)


@require_GET
@login_required
def told_settings(request: HttpRequest) -> HttpResponse:
    """What each setting means. Not what it is: that is the environment's alone."""
    if not may(request, "provider.view"):
        raise PermissionDenied("This page is about the whole organisation.")
    return render(request, "dashboards/readiness/settings.html", {"rows": settings_told()})


def groups(reader: Reader, found: Assessment) -> list[Group]:
    return [
        Group(
            name,
            title,
            found.scores[name].points,
            found.scores[name].met,
            found.scores[name].judged,
            1000 * found.scores[name].tenths // (10 * OF_A_CATEGORY),
            [
                _row(reader, one)
                for one in sorted(found.of(name), key=lambda one: _ORDER.index(one.finding.state))
            ],
        )
        for name, title in CATEGORIES.items()
    ]


def _row(reader: Reader, one: Looked) -> Row:
    check, finding = one.check, one.finding
    mended = finding.state == LACKING
    of_admin = "." in check.link
    href = "" if not mended or (of_admin and not reader.link(check.link)) else address(check)
    return Row(
        check.id,
        check.title,
        finding.state,
        _WORDS[finding.state],
        finding.evidence,
        check.fix if mended else "",
        href,
    )


def line(days: list[DayScore]) -> str:
    """Points of the line of scores, oldest first; empty with fewer than two."""
    if len(days) < 2:
        return ""
    first, span = days[0].day, max(1, (days[-1].day - days[0].day).days)
    return " ".join(
        f"{_WIDTH * (one.day - first).days // span},{_HEIGHT - _HEIGHT * one.tenths // (10 * POINTS)}"
        for one in days
    )
