"""Calls as CSV, oldest first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Q

from llmops.access.models import Project, ServiceKey
from llmops.usage.exports.cells import Texts, text, usd
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
    named = _Names()
    chosen = Call.objects.all()
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
    start = span.start
    while start < span.end:
        # A day at a time: on PostgreSQL that is one table, and no other is so much as planned for.
        end = min(start.replace(hour=0) + timedelta(days=1), span.end)
        at, last = start, UUID(int=0)
        while True:
            page = chosen.filter(started_at__gte=at, started_at__lt=end)
            page = page.exclude(Q(started_at=at) & Q(id__lte=last))
            found = _read(page.order_by("started_at", "id").values_list(*_READ)[:CHUNK])
            if found:
                yield [_row(one, named) for one in found]
            if len(found) < CHUNK:
                break
            at, last = _moment(found[-1][0]), _identifier(found[-1][1])
        start = end


class _Names(dict[Any, str]):
    """Names of projects and keys, and cost centres, by ids as the database gives them; made once for each id.

    ``texts`` and ``tags`` are cells that were made before.
    """

    def __init__(self) -> None:
        projects = Project.objects.values_list("pk", "slug", "cost_center")
        self._projects = {pk: (slug, centre) for pk, slug, centre in projects}
        self._keys = dict(ServiceKey.objects.values_list("pk", "name"))
        self.texts, self.tags = Texts(), _Tags()

    def __missing__(self, known: tuple[str, Any]) -> str:
        what, raw = known
        pk = _identifier(raw)
        slug, centre = self._projects.get(pk, (str(pk), ""))
        name = {"key": self._keys.get(pk, str(pk)), "project": slug, "centre": centre}[what]
        self[known] = found = text(name)
        return found


class _Tags(Texts):
    """Lists of tags as the database keeps them -> one cell."""

    def __missing__(self, value: str) -> str:
        if len(self) >= self.MOST:
            self.clear()
        self[value] = found = text(" ".join(json.loads(value)))
        return found


_FIRST_TEXT, _FIRST_NUMBER = 5, 5 + len(_TEXTS)
_FIRST_AMOUNT = _FIRST_NUMBER + len(_NUMBERS)


def _read(page: Any) -> list[Any]:
    """Rows as the driver gives them: most of the time of a million lines would go into making objects of columns."""
    sql, parameters = page.query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())


def _moment(raw: datetime) -> datetime:
    return raw if raw.tzinfo is not None else raw.replace(tzinfo=UTC)


def _identifier(raw: Any) -> UUID:
    return raw if isinstance(raw, UUID) else UUID(raw)


def _row(one: Sequence[Any], named: _Names) -> list[Any]:
    started, call, project, key, tags = one[:5]
    seen = named.texts
    if started.tzinfo is None:
        # SQLite keeps UTC without saying so, and ids without hyphens.
        when = started.isoformat() + "Z"
        call = f"{call[:8]}-{call[8:12]}-{call[12:16]}-{call[16:20]}-{call[20:]}"
    else:
        when = started.astimezone(UTC).isoformat()[:-6] + "Z"
    return [
        when,
        call,
        named["project", project],
        named["centre", project],
        named["key", key],
        named.tags[tags] if isinstance(tags, str) else text(" ".join(tags)),
        *[seen[value] for value in one[_FIRST_TEXT:_FIRST_NUMBER]],
        *one[_FIRST_NUMBER:_FIRST_AMOUNT],
        *[usd(value) for value in one[_FIRST_AMOUNT:]],
    ]
