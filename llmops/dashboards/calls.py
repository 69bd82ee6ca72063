"""Rows of lists of calls, as text and numbers ready for the template."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.urls import reverse

from llmops.dashboards import words
from llmops.dashboards.filters import NONE_GIVEN, Filters
from llmops.dashboards.reader import Reader
from llmops.usage.selectors import CallFilters, CallPage
from llmops.usage.selectors.spend import projects_of_cost_centre


@dataclass(frozen=True, slots=True)
class CallRow:
    id: UUID
    href: str
    started_at: datetime
    status: str
    status_word: str
    error_code: str
    endpoint: str
    route: str
    model: str
    simulated: bool
    project: str
    key: str
    attempts: int
    fallback: bool
    input_tokens: int
    output_tokens: int
    ttft_us: int | None
    total_us: int
    cost_nano: int


def rows_of(page: CallPage, *, simulated: Collection[str]) -> list[CallRow]:
    return [
        CallRow(
            id=call.pk,
            href=reverse("dashboards:call", args=[call.pk]),
            started_at=call.started_at,
            status=call.status,
            status_word=words.status_word(call.status),
            error_code=call.error_code,
            endpoint=call.endpoint,
            route=call.route,
            model=call.model,
            simulated=call.provider in simulated,
            project=page.projects.get(call.project_id, "deleted project"),
            key=page.keys.get(call.key_id, "deleted key"),
            attempts=call.attempt_count,
            fallback=call.fallback_count > 0,
            input_tokens=call.input_tokens,
            output_tokens=call.output_tokens,
            ttft_us=call.ttft_us,
            total_us=call.total_us,
            cost_nano=call.cost_nano,
        )
        for call in page.calls
    ]


def call_filters(reader: Reader, filters: Filters) -> CallFilters:
    """What the list of calls is narrowed to; ``q`` is a request id here, ours or the provider's (a call's own id leads to its story)."""
    project_ids = reader.project_ids(filters.project)
    if filters.cost_centre:
        name = "" if filters.cost_centre == NONE_GIVEN else filters.cost_centre
        project_ids = projects_of_cost_centre(name, project_ids)
    return CallFilters(
        project_ids=project_ids,
        feature=filters.feature,
        user=filters.user,
        tag=filters.tag,
        brought=filters.brought,
        prompt=filters.prompt,
        version=int(filters.version) if filters.version else None,
        signal=filters.signal,
        key_id=filters.key,
        route=filters.route,
        model=filters.model,
        status=filters.statuses(),
        error_code=filters.error,
        fallback=filters.fallback,
        any_id=filters.q,
        # An id is looked for in all time.
        start=None if filters.q else filters.period.start,
        end=None if filters.q else filters.period.end,
    )
