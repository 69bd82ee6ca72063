"""The SQL of the ingester: many rows a statement, and sums that are added to, not replaced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import connection, models

from llmops.usage import summaries
from llmops.usage.ingest.batch import Attributions, Latencies, Prompts, Rollups
from llmops.usage.ingest.rows import COLUMNS, KEPT_COLUMNS, CallRow, KeptRow
from llmops.usage.models import (
    AttributionRollup,
    Call,
    KeptAnswer,
    KeptItem,
    KeptObject,
    KeptText,
    LatencyRollup,
    OutcomeRollup,
    PromptRollup,
    Rollup,
)

LATENCY_DIMENSIONS = ("granularity", "bucket", "project_id", "route", "model", "metric", "log_bucket")


def insert_calls(rows: Sequence[CallRow]) -> None:
    if not rows:
        return
    table, columns = Call._meta.db_table, ", ".join(COLUMNS)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with (
                connection.wrap_database_errors,
                cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy,
            ):
                for row in rows:
                    copy.write_row(row.values)
            return
        marks = ", ".join(["%s"] * len(COLUMNS))
        cursor.executemany(
            f"INSERT INTO {table} ({columns}) VALUES ({marks})",  # noqa: S608 - names of our own
            [_sqlite_call(row.values) for row in rows],
        )


def _sqlite_call(values: tuple[Any, ...]) -> tuple[Any, ...]:
    call, started, *ids = values[:5]
    # Ids without hyphens, UTC without saying so.
    return (call.replace("-", ""), started[:-6], *(one.replace("-", "") for one in ids), *values[5:])


def add_rollups(rollups: Rollups) -> None:
    """Add sums to the rollups, whose summaries are behind from then on.

    Rows are touched in one order everywhere, so that two writers cannot deadlock.
    """
    moments = _moments(key[1] for key in rollups)
    summaries.mark(
        [summaries.Bucket(length, moments[at]) for length, at in sorted({key[:2] for key in rollups})]
    )
    rows = [
        (key[0], moments[key[1]], *key[2:], *sums)
        for key, sums in sorted(rollups.items(), key=lambda item: item[0])
    ]
    _add(Rollup, Rollup.DIMENSIONS, Rollup.SUMS, rows)


def add_latencies(latencies: Latencies) -> None:
    moments = _moments(key[1] for key in latencies)
    rows = [(key[0], moments[key[1]], *key[2:], calls) for key, calls in sorted(latencies.items())]
    _add(LatencyRollup, LATENCY_DIMENSIONS, ("calls",), rows)


def add_attributions(attributions: Attributions) -> None:
    moments = _moments(key[1] for key in attributions)
    rows = [(key[0], moments[key[1]], *key[2:], *sums) for key, sums in sorted(attributions.items())]
    _add(AttributionRollup, AttributionRollup.DIMENSIONS, AttributionRollup.SUMS, rows)


def add_prompts(prompts: Prompts) -> None:
    moments = _moments(key[1] for key in prompts)
    rows = [(key[0], moments[key[1]], *key[2:], *sums) for key, sums in sorted(prompts.items())]
    _add(PromptRollup, PromptRollup.DIMENSIONS, PromptRollup.SUMS, rows)


def add_outcomes(sums: Mapping[tuple[Any, ...], Sequence[int]]) -> None:
    """Add to the rollups of outcomes; keys are values of ``OutcomeRollup.DIMENSIONS``, buckets moments."""
    rows = [(*key, *added) for key, added in sorted(sums.items(), key=lambda item: str(item[0]))]
    _add(OutcomeRollup, OutcomeRollup.DIMENSIONS, OutcomeRollup.SUMS, rows)


def _moments(seconds: Iterable[int]) -> dict[int, datetime]:
    return {one: datetime.fromtimestamp(one, tz=UTC) for one in set(seconds)}


def _add(
    model: type[models.Model], dimensions: Sequence[str], sums: Sequence[str], rows: list[tuple[Any, ...]]
) -> None:
    if not rows:
        return
    table, columns = model._meta.db_table, (*dimensions, *sums)
    adding = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in sums)
    into = f"INSERT INTO {table} ({', '.join(columns)})"
    conflict = f"ON CONFLICT ({', '.join(dimensions)}) DO UPDATE SET {adding}"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            types = [model._meta.get_field(name).db_type(connection) for name in columns]
            arrays = ", ".join(f"%s::{kind}[]" for kind in types)
            cursor.execute(
                f"{into} SELECT * FROM unnest({arrays}) {conflict}",  # noqa: S608 - names of our own
                [_array(column) for column in zip(*rows, strict=True)],
            )
            return
        marks = ", ".join(["%s"] * len(columns))
        columns_of_rows = [_sqlite_column(column) for column in zip(*rows, strict=True)]
        cursor.executemany(f"{into} VALUES ({marks}) {conflict}", list(zip(*columns_of_rows, strict=True)))


def keep_objects(rows: Mapping[tuple[str, str], KeptRow]) -> None:
    """Insert objects, by (id, provider). One that is known stays whose it is, unless it was deleted: then it is made anew."""
    if not rows:
        return
    table = KeptObject._meta.db_table
    changing = ", ".join(f"{name} = excluded.{name}" for name in KEPT_COLUMNS)
    marks = ", ".join(["%s"] * len(KEPT_COLUMNS))
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {table} ({', '.join(KEPT_COLUMNS)}, claimed_by, looks) VALUES ({marks}, '', 0) "  # noqa: S608 - names of our own
            f"ON CONFLICT (object_id, provider) DO UPDATE SET {changing}, "
            f"claimed_by = '', claimed_until = NULL, looks = 0, metered_at = NULL "
            f"WHERE {table}.gone_at IS NOT NULL",
            [[_plain(value) for value in rows[key].columns()] for key in sorted(rows)],
        )


def keep_texts(rows: Sequence[tuple[UUID, UUID, str, datetime, str, bool]]) -> None:
    if rows:
        columns = ("call_id", "project_id", "route", "started_at", "sealed", "readable")
        KeptText.objects.bulk_create(
            [KeptText(**dict(zip(columns, row, strict=True))) for row in rows], ignore_conflicts=True
        )


def keep_answers(rows: Sequence[tuple[UUID, UUID, datetime, str]]) -> None:
    if rows:
        columns = ("call_id", "project_id", "started_at", "sealed")
        KeptAnswer.objects.bulk_create(
            [KeptAnswer(**dict(zip(columns, row, strict=True))) for row in rows], ignore_conflicts=True
        )


def keep_items(items: Mapping[tuple[str, str, UUID], Iterable[int]]) -> None:
    """Note what objects, by (id, provider, project), hold; nothing where the object is not that project's."""
    rows = [(digest, *whose) for whose, digests in sorted(items.items()) for digest in sorted(digests)]
    if not rows:
        return
    kept, table = KeptObject._meta.db_table, KeptItem._meta.db_table
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                f"INSERT INTO {table} (digest, kept_id) SELECT new.digest, kept.id "  # noqa: S608 - names of our own
                "FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::uuid[]) AS new (digest, object, provider, project) "
                f"JOIN {kept} kept ON kept.object_id = new.object AND kept.provider = new.provider "
                "AND kept.project_id = new.project ON CONFLICT DO NOTHING",
                [list(column) for column in zip(*rows, strict=True)],
            )
            return
        cursor.executemany(
            f"INSERT INTO {table} (digest, kept_id) SELECT %s, id FROM {kept} "  # noqa: S608 - names of our own
            "WHERE object_id = %s AND provider = %s AND project_id = %s ON CONFLICT DO NOTHING",
            [[_sqlite(value) for value in row] for row in rows],
        )


def lose_objects(rows: Mapping[tuple[str, str], tuple[UUID, datetime]]) -> None:
    """Note objects, by (id, provider), that are deleted at their provider; ``rows`` holds their project and the moment."""
    for (object_id, provider), (project, at) in sorted(rows.items()):
        KeptObject.objects.filter(
            object_id=object_id, provider=provider, project_id=project, gone_at=None
        ).update(gone_at=at)


def meter_object(name: tuple[str, str], at: datetime) -> bool:
    """Whether the cost of this object is booked now, and was not before."""
    object_id, provider = name
    open_one = KeptObject.objects.filter(object_id=object_id, provider=provider, metered_at=None)
    return open_one.update(metered_at=at, due_at=None, claimed_by="", claimed_until=None) == 1


def note_use(model: type[models.Model], times: Iterable[tuple[UUID, datetime]]) -> None:
    """Move ``last_used_at`` forward; rows that are gone are passed over."""
    for pk, at in sorted(times):
        earlier = models.Q(last_used_at=None) | models.Q(last_used_at__lt=at)
        model._base_manager.filter(earlier, pk=pk).update(last_used_at=at)


def _array(column: Sequence[Any]) -> str:
    """PostgreSQL's text form of an array; the driver takes several times as long to make it from a list."""
    if isinstance(column[0], str):
        joined = '","'.join(column)
        if "\\" in joined or joined.count('"') > 2 * (len(column) - 1):
            joined = '","'.join([value.replace("\\", r"\\").replace('"', r"\"") for value in column])
        return f'{{"{joined}"}}'
    if isinstance(column[0], datetime | UUID):
        texts = {value: f'"{value}"' for value in set(column)}
        column = [texts[value] for value in column]
    return "{" + ",".join(map(str, column)) + "}"


def _sqlite_column(column: Sequence[Any]) -> Sequence[Any]:
    if not isinstance(column[0], datetime | UUID):
        return column
    stored = {value: _sqlite(value) for value in set(column)}
    return [stored[value] for value in column]


def _plain(value: Any) -> Any:
    return value if connection.vendor == "postgresql" else _sqlite(value)


def _sqlite(value: Any) -> Any:
    """As Django stores it on SQLite."""
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return value
