"""Calls as CSV, oldest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db.models import Q

from llmops.access.models import Project, ServiceKey
from llmops.usage.exports.cells import text, usd
from llmops.usage.models import Call
from llmops.usage.selectors import Span, SpendFilters

CHUNK = 4_000
_TEXTS = (
    "endpoint",
    "route",
    "model",
    "provider",
    "upstream_model",
    "status",
    "error_code",
    "finish_reason",
    "service_tier",
    "feature",
    "user_digest",
    "session",
    "cache",
    "request_id",
    "provider_request_id",
)
_NUMBERS = (
    "http_status",
    "attempt_count",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "total_us",
)
_AMOUNTS = ("cost_nano", "overrun_nano", "saved_nano")
_READ = ("started_at", "id", "project_id", "key_id", "tags", *_TEXTS, *_NUMBERS, *_AMOUNTS)
COLUMNS = (
    "started_at_utc",
    "call_id",
    "project",
    "cost_centre",
    "service_key",
    "tags",
    *_TEXTS,
    *_NUMBERS,
    "cost_usd",
    "overrun_usd",
    "saved_usd",
)


def rows(span: Span, filters: SpendFilters) -> Iterator[Sequence[Sequence[Any]]]:
    """Chunks of rows; memory and the time of a query are those of one chunk."""
    projects = {
        pk: (text(slug), text(centre))
        for pk, slug, centre in Project.objects.values_list("pk", "slug", "cost_center")
    }
    keys = {pk: text(name) for pk, name in ServiceKey.objects.values_list("pk", "name")}
    chosen = Call.objects.filter(started_at__lt=span.end)
    if filters.project_ids is not None:
        chosen = chosen.filter(project_id__in=list(filters.project_ids))
    exact = {
        "key_id": filters.key_id,
        "route": filters.route,
        "model": filters.model,
        "feature": filters.feature,
    }
    chosen = chosen.filter(**{name: value for name, value in exact.items() if value})
    chosen = chosen.filter(**dict.fromkeys(filters.nameless, ""))
    at, last = span.start, UUID(int=0)
    while True:
        # Bounded from below by the moment alone, so that PostgreSQL passes over the days that are done.
        page = chosen.filter(started_at__gte=at).exclude(Q(started_at=at) & Q(id__lte=last))
        found = list(page.order_by("started_at", "id").values_list(*_READ)[:CHUNK])
        if found:
            yield [_row(one, projects, keys) for one in found]
        if len(found) < CHUNK:
            return
        at, last = found[-1][0], found[-1][1]


_FIRST_TEXT, _FIRST_NUMBER = 5, 5 + len(_TEXTS)
_FIRST_AMOUNT = _FIRST_NUMBER + len(_NUMBERS)


def _row(one: Sequence[Any], projects: dict[UUID, tuple[str, str]], keys: dict[UUID, str]) -> list[Any]:
    started: datetime = one[0]
    project, centre = projects.get(one[2]) or (str(one[2]), "")
    return [
        started.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z",
        one[1],
        project,
        centre,
        keys.get(one[3]) or one[3],
        text(" ".join(one[4])) if one[4] else "",
        *[text(value) if value else "" for value in one[_FIRST_TEXT:_FIRST_NUMBER]],
        *one[_FIRST_NUMBER:_FIRST_AMOUNT],
        *[usd(value) for value in one[_FIRST_AMOUNT:]],
    ]
