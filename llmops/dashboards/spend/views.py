"""The Spend page. A view reads its address, asks one builder, and renders."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from llmops.access.models import ServiceKey
from llmops.access.selectors import may_anywhere, projects_for
from llmops.dashboards.reader import Reader
from llmops.dashboards.spend.build import build
from llmops.dashboards.spend.export_views import download
from llmops.dashboards.spend.query import (
    BY_MONEY,
    BY_PERCENT,
    COMPARISONS,
    CUSTOM,
    GROUPS,
    RANGES,
    SpendQuery,
    parse,
)
from llmops.providers.models import Model, Route
from llmops.usage.selectors.spend import cost_centres

#: Most entries offered in a list to choose from.
CHOICES = 200


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def spend(request: HttpRequest) -> HttpResponseBase:
    """The page; posted, what it shows as a file."""
    if not may_anywhere(request, "usage.view"):
        raise PermissionDenied
    if request.method == "POST":
        return download(request)
    reader = Reader.of(request)
    query = parse(request.GET.dict(), now=timezone.now())
    view = build(reader, query)
    keys = ServiceKey.objects.filter(project__in=projects_for(request, "usage.view")).select_related(
        "project"
    )
    if query.project:
        keys = keys.filter(project_id=query.project)
    context = {
        "view": view,
        "query": query,
        "filters": query,
        "projects": reader.projects,
        "keys": keys.order_by("project__slug", "name")[:CHOICES],
        "routes": Route.objects.order_by("slug").values_list("slug", flat=True)[:CHOICES],
        "models": Model.objects.order_by("slug").values_list("slug", flat=True)[:CHOICES],
        "centres": cost_centres(reader.project_ids())[:CHOICES],
        "group_word": GROUPS[query.by],
        **_choices(query),
    }
    return render(request, "dashboards/spend/page.html", context)


def _choices(query: SpendQuery) -> dict[str, Any]:
    kept = query.pairs()
    time = {name: value for name, value in kept.items() if name in ("range", "from", "to", "compare")}
    return {
        "ranges": [
            {"label": label, "query": query.query(range=name), "current": name == query.range}
            for name, label in RANGES.items()
        ],
        "custom": query.range == CUSTOM,
        "from_day": query.span.start.date().isoformat(),
        "to_day": min(query.span.end - timedelta(days=1), query.now).date().isoformat(),
        "today": query.now.date().isoformat(),
        "kept_without_time": [
            (name, value) for name, value in kept.items() if name not in ("range", "from", "to", "compare")
        ],
        "kept_without_compare": [(name, value) for name, value in kept.items() if name != "compare"],
        "kept_all": list(kept.items()),
        "kept_time": [*time.items(), *((name, kept[name]) for name in ("by", "movers") if name in kept)],
        "comparisons": [
            (name, words.capitalize(), name == query.compare) for name, words in COMPARISONS.items()
        ],
        "groups": [
            {
                "label": label,
                "query": query.query(by=name) + "#breakdown",
                "current": name == query.by,
            }
            for name, label in GROUPS.items()
        ],
        "mover_orders": [
            {"label": label, "query": query.query(movers=name) + "#movers", "current": name == query.movers}
            for name, label in ((BY_MONEY, "By money"), (BY_PERCENT, "By percent"))
        ],
        "unfiltered": query.query(**dict.fromkeys(query.chosen())),
    }
