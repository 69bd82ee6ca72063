"""Compiled queries: they answer what the ORM answers, whatever values a run gives, and are put into SQL once."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.db.models import BooleanField, Case, Count, DateTimeField, F, IntegerField, Sum, UUIDField, When
from django.db.models.functions import TruncHour
from django.test.utils import CaptureQueriesContext

from llmops.base.compiled import CompiledQuery, Parameter
from llmops.usage.models import Rollup

MIDNIGHT = datetime(2024, 5, 16, tzinfo=UTC)
PROJECTS = [uuid4(), uuid4()]


def _asked(project: Any, start: Any, end: Any, granularity: Any) -> Any:
    """Of every kind of column that engines store in their own ways, and of what is computed."""
    return (
        Rollup.objects.filter(project_id=project, bucket__gte=start, bucket__lt=end, granularity=granularity)
        .exclude(route="left out")
        .order_by("route")
        .annotate(
            hour=TruncHour("bucket", tzinfo=UTC),
            failed=Case(When(status="error", then=True), default=False, output_field=BooleanField()),
        )
        .values_list("project_id", "hour", "route", "failed")
        .annotate(rows=Count("pk"), sum_calls=Sum("calls"), busy=Sum(F("calls") * 2))
    )


@pytest.fixture
def rollups(db: None) -> None:
    names = ("project_id", "bucket", "granularity", "route", "status", "calls")
    rows = [
        (project, MIDNIGHT + timedelta(minutes=minute), granularity, route, status, minute + 2**40)
        for project in PROJECTS
        for minute in (0, 5, 59, 60, 61)
        for granularity in (60, 3600)
        for route in ("chat", "", "left out")
        for status in ("ok", "error")
    ]
    Rollup.objects.bulk_create(Rollup(key_id=uuid4(), **dict(zip(names, row, strict=True))) for row in rows)


def _compiled(made: list[None]) -> CompiledQuery:
    def make() -> Any:
        made.append(None)
        return _asked(
            Parameter("project", UUIDField()),
            Parameter("start", DateTimeField()),
            Parameter("end", DateTimeField()),
            Parameter("granularity", IntegerField()),
        )

    return CompiledQuery(make)


def test_each_run_answers_what_the_orm_does(rollups: None) -> None:
    made: list[None] = []
    query = _compiled(made)
    seen = 0
    for project in (*PROJECTS, uuid4()):
        for minutes in (1, 60, 120):
            for granularity in (60, 3600):
                given = {
                    "project": project,
                    "start": MIDNIGHT + timedelta(minutes=1),
                    "end": MIDNIGHT + timedelta(minutes=minutes),
                    "granularity": granularity,
                }
                with CaptureQueriesContext(connection) as queries:
                    found = list(query.rows(**given))
                assert len(queries) == 1
                assert found == list(_asked(**given))
                seen += len(found)
    assert seen == 2 * 2 * (4 + 8) and len(made) == 1


def test_another_thread_runs_it_on_a_connection_of_its_own(rollups: None) -> None:
    query = _compiled([])
    given: dict[str, Any] = {
        "project": PROJECTS[0],
        "start": MIDNIGHT,
        "end": MIDNIGHT + timedelta(days=1),
        "granularity": 60,
    }
    here = list(query.rows(**given))
    there: list[Any] = []

    def run() -> None:
        try:
            # None of what this test has not committed is there for others.
            there.append(list(query.rows(**given)))
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert len(here) == 8 and there == [[]]


def test_a_value_that_is_missing_is_named(rollups: None) -> None:
    with pytest.raises(KeyError, match="granularity"):
        _compiled([]).rows(project=PROJECTS[0], start=MIDNIGHT, end=MIDNIGHT)
