"""Calls as CSV, oldest first.

A million lines are made in a minute because the database joins what is written down as it stands: a call comes as ten values
and not as thirty. What of that needs care (quotes, commas, what a spreadsheet would take for a formula) is found in whole
chunks, and cared for in the rows that have it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import CharField, F, Func, Q, QuerySet, Value
from django.db.models.functions import Cast

from llmops.access.models import Project, ServiceKey
from llmops.usage.exports import cells
from llmops.usage.exports.cells import usd
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


#: Stands before each of the joined texts of a call.
_BEFORE = "\x1f"
#: What of joined texts is not to be copied as it is: see ``cells.cell``.
_CARE = re.compile(f'[",\r\n\0]|{_BEFORE}[{re.escape("".join(sorted(cells.FORMULA)))}]')


def rows(span: Span, filters: SpendFilters) -> Iterator[bytes]:
    """Chunks of lines; memory and the time of a query are those of one chunk."""
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
    whose, tags = _Whose(), _Tags()
    start = span.start
    while start < span.end:
        # A day at a time: on PostgreSQL that is one table, and no other is so much as planned for.
        end = min(start.replace(hour=0) + timedelta(days=1), span.end)
        at, last = start, UUID(int=0)
        while True:
            page = chosen.filter(started_at__gte=at, started_at__lt=end)
            page = page.exclude(Q(started_at=at) & Q(id__lte=last)).order_by("started_at", "id")[:CHUNK]
            found = _read(page)
            if found:
                yield _lines(found, whose, tags)
            if len(found) < CHUNK:
                break
            at, last = datetime.fromisoformat(found[-1][0]), UUID(found[-1][1])
        start = end


class _Whose(dict[tuple[str, str], str]):
    """(project, service key), as the database gives their ids -> the cells that name them; made once for each pair."""

    def __init__(self) -> None:
        projects = Project.objects.values_list("pk", "slug", "cost_center")
        self._projects = {pk: (slug, centre) for pk, slug, centre in projects}
        self._keys = dict(ServiceKey.objects.values_list("pk", "name"))

    def __missing__(self, ids: tuple[str, str]) -> str:
        project, key = map(UUID, ids)
        slug, centre = self._projects.get(project, (str(project), ""))
        self[ids] = found = ",".join(map(cells.cell, (slug, centre, self._keys.get(key, str(key)))))
        return found


class _Tags(dict[str, str]):
    """Lists of tags as the database keeps them -> one cell. Forgets them all when they are too many."""

    MOST = 20_000

    def __missing__(self, value: str) -> str:
        if len(self) >= self.MOST:
            self.clear()
        self[value] = found = cells.cell(" ".join(json.loads(value)))
        return found


def _read(page: QuerySet[Call]) -> list[tuple[Any, ...]]:
    """When a call began, its id, its project's and its key's, its tags, texts, numbers, and the three amounts: texts but for these.

    As the driver gives them: most of the time of a million lines would go into making objects of columns.
    """
    columns = _POSTGRESQL if connection.vendor == "postgresql" else _SQLITE
    sql, parameters = page.values_list(*columns, *_AMOUNTS).query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())


def _joined(*expressions: Any, function: str) -> Func:
    return Func(*expressions, function=function, output_field=CharField())


def _sliced(column: str, *lengths: int) -> list[Func]:
    starts = [1 + sum(lengths[:number]) for number in range(len(lengths))]
    return [
        _joined(F(column), Value(start), Value(length), function="substr")
        for start, length in zip(starts, lengths, strict=True)
    ]


_POSTGRESQL = (
    _joined(
        _joined(
            Func(Value("UTC"), F("started_at"), function="timezone"),
            Value('YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            function="to_char",
        ),
        Value(".000000"),
        Value(""),
        function="replace",
    ),
    *(Cast(name, CharField()) for name in ("id", "project_id", "key_id", "tags")),
    _joined(Value(_BEFORE), Value(""), *map(F, _TEXTS), function="concat_ws"),
    _joined(Value(","), *map(F, _NUMBERS), function="concat_ws"),
)
#: SQLite keeps UTC without saying so, and ids without hyphens.
_SQLITE = (
    _joined(
        Value("%sT%sZ"),
        _joined(F("started_at"), Value(1), Value(10), function="substr"),
        _joined(F("started_at"), Value(12), function="substr"),
        function="printf",
    ),
    _joined(Value("%s-%s-%s-%s-%s"), *_sliced("id", 8, 4, 4, 4, 12), function="printf"),
    *(_joined(Value("%s"), F(name), function="printf") for name in ("project_id", "key_id", "tags")),
    _joined(Value(f"{_BEFORE}%s" * len(_TEXTS)), *map(F, _TEXTS), function="printf"),
    _joined(Value(",".join(["%d"] * len(_NUMBERS))), *map(F, _NUMBERS), function="printf"),
)


def _lines(found: list[tuple[Any, ...]], whose: _Whose, tags: _Tags) -> bytes:
    every = "".join([one[5] for one in found])
    careful = every.count(_BEFORE) != len(found) * len(_TEXTS) or _CARE.search(every) is not None
    made = []
    for when, call, project, key, tagged, texts, numbers, cost, overrun, saved in found:
        cared = _cared_for(texts, call) if careful else texts.replace(_BEFORE, ",")
        made.append(
            f"{when},{call},{whose[project, key]},{tags[tagged]}{cared},{numbers},"
            f"{usd(cost)},{usd(overrun)},{usd(saved)}\r\n"
        )
    return "".join(made).encode()


def _cared_for(texts: str, call: str) -> str:
    if texts.count(_BEFORE) != len(_TEXTS):
        # One of them holds what they are joined with: ask for each by itself.
        each = Call.objects.filter(pk=call).values_list(*_TEXTS).get()
    elif _CARE.search(texts) is None:
        return texts.replace(_BEFORE, ",")
    else:
        each = texts.split(_BEFORE)[1:]
    return "".join([f",{cells.cell(value)}" for value in each])
