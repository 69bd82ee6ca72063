"""What if something fails: a page, and the same as CSV."""

from __future__ import annotations

import time
from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from llmops.access.selectors import may_anywhere
from llmops.dashboards.reader import Reader
from llmops.dashboards.routes.foreseen import View, compare, traffic_of
from llmops.dashboards.routes.question import DAYS, DRAFT, LIVE, Question, parse
from llmops.providers.models import Route
from llmops.serving.selectors import live_document, live_revision
from llmops.serving.whatif.drafts import draft_document
from llmops.serving.whatif.shapes import FAILURES, NOTHING
from llmops.usage.exports import cells


@require_GET
@never_cache
@login_required
def whatif(request: HttpRequest) -> HttpResponse:
    reader, question = _asked(request)
    began = time.monotonic()
    live, draft = live_document(live_revision()), draft_document()
    view = _compared(reader, question, live, draft)
    models = {model.slug: model.provider for document in (live, draft) for model in document.models}
    context: dict[str, Any] = {
        "question": question,
        "view": view,
        "took": time.monotonic() - began,
        "problems": question.problems,
        "days_offered": DAYS,
        "failures": FAILURES,
        "asked": question.scenario.failure != NOTHING or question.by != LIVE,
        "projects": reader.projects,
        "routes": Route.objects.filter(archived_at=None).order_by("slug").values_list("slug", flat=True),
        "whats": [
            ("Models", [(f"model:{slug}", slug) for slug in sorted(models)]),
            ("Whole providers", [(f"provider:{slug}", slug) for slug in sorted(set(models.values()))]),
        ],
        "csv_url": reverse("dashboards:whatif_csv") + question.query(),
        "words": _words(question),
    }
    return render(request, "dashboards/routes/whatif.html", context, status=400 if question.problems else 200)


@require_GET
@never_cache
@login_required
def whatif_csv(request: HttpRequest) -> HttpResponse:
    reader, question = _asked(request)
    view = _compared(reader, question, live_document(live_revision()), draft_document())
    rows: list[list[object]] = [
        [
            "name",
            "model",
            "calls_live",
            "calls_then",
            "cost_live_usd",
            "cost_then_usd",
            "change_usd",
            "attempts_live",
            "attempts_then",
            "failed_then",
            "why",
        ]
    ]
    for one in view.names:
        name = cells.text(one.name)
        for line in one.lines:
            rows.append(
                [
                    name,
                    cells.text(line.model),
                    f"{line.before:.2f}",
                    f"{line.after:.2f}",
                    cells.usd(line.before_nano),
                    cells.usd(line.after_nano),
                    cells.usd(line.after_nano - line.before_nano),
                    "",
                    "",
                    "",
                    "",
                ]
            )
        for why, calls in one.after.failed.items():
            rows.append([name, "", "", "", "", "", "", "", "", f"{calls:.2f}", cells.text(why)])
        rows.append(
            [
                name,
                "(all)",
                f"{one.before.calls:.2f}",
                f"{one.after.calls - one.after.failures:.2f}",
                cells.usd(one.before.cost_nano),
                cells.usd(one.after.cost_nano),
                cells.usd(one.change_nano),
                f"{one.before.attempts:.2f}",
                f"{one.after.attempts:.2f}",
                f"{one.after.failures:.2f}",
                "",
            ]
        )
    answer = HttpResponse(cells.lines(rows), content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = 'attachment; filename="what-if.csv"'
    return answer


def _asked(request: HttpRequest) -> tuple[Reader, Question]:
    if not (may_anywhere(request, "route.view") and may_anywhere(request, "usage.view")):
        raise PermissionDenied
    return Reader.of(request), parse(request.GET.dict())


def _compared(reader: Reader, question: Question, live: Any, draft: Any) -> View:
    found = traffic_of(reader, days=question.days, project=question.project, route=question.route)
    return compare(
        found,
        before=live,
        after=draft if question.by == DRAFT else live,
        scenario=question.scenario,
        everything=bool(question.route),
    )


def _words(question: Question) -> str:
    scenario = question.scenario
    name = scenario.name
    happens = {
        "down": f"{name} cannot be reached",
        "rate_limit": f"{name} refuses {scenario.percent} % of attempts (429)",
        "errors": f"{name} fails {scenario.percent} % of attempts (503)",
        "slow": f"{name} takes {scenario.factor:g} times as long",
    }.get(scenario.failure, "nothing fails")
    way = "by the routes as they are drafted" if question.by == DRAFT else "by the routes as they are live"
    return f"If {happens}, {way}"
