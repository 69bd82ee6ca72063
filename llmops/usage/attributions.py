"""A day's figures by end user, by tag and by outcome, recomputed from its calls, and those of its month from the month's days.

By SQL over one day of calls: they are many values, so nothing finer than days is kept of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Count, Exists, OuterRef, QuerySet, Sum

from llmops.usage.ingest import write
from llmops.usage.models import AttributionRollup, Call, CallOutcome, OutcomeRollup

_BY = ("kind", "project_id", "value")
_NAMES = ["bucket", *_BY]
_DAY = timedelta(days=1)
_SUMMED = """COUNT(*), SUM(CASE WHEN status = 'refused' THEN 1 ELSE 0 END), SUM(input_tokens), SUM(output_tokens),
    SUM(cost_nano), SUM(saved_nano)"""
_COLUMNS = "c.id, c.project_id, c.status, c.input_tokens, c.output_tokens, c.cost_nano, c.saved_nano"
_WHEN = "c.started_at >= %s AND c.started_at < %s"

Key = tuple[Any, ...]
Table = dict[Key, tuple[int, ...]]


def recompute(midnight: datetime, found: dict[str, Any], *, replace: Callable[..., Table]) -> None:
    """The figures of the day from ``midnight`` (UTC) on, in the caller's transaction; notes in ``found`` what differed.

    ``replace`` deletes stored rows that are not as computed and answers the computed ones that now are missing.
    """
    month = midnight.replace(day=1)
    days = AttributionRollup.objects.filter(granularity=AttributionRollup.DAY)
    months = AttributionRollup.objects.filter(granularity=AttributionRollup.MONTH, bucket=month)
    today = days.filter(bucket=midnight)
    before = set(today.values_list(*_BY))
    _correct(AttributionRollup.DAY, today, _of_calls(midnight), found, replace)
    whole = days.filter(bucket__gte=month, bucket__lt=_following(month))
    # The month is the sum of its days for every value that this day names, or named until now.
    named = Exists(today.filter(**{name: OuterRef(name) for name in _BY}))
    computed = _summed(whole.filter(named), month)
    gone = before - {key[1:] for key in computed}
    stored = months.filter(named)
    if gone:
        values = {value for _, _, value in gone}
        computed |= {
            key: sums
            for key, sums in _summed(whole.filter(value__in=values), month).items()
            if key[1:] in gone
        }
        keys = [
            pk for pk, *key in months.filter(value__in=values).values_list("pk", *_BY) if tuple(key) in gone
        ]
        stored = months.filter(pk__in=[*keys, *stored.values_list("pk", flat=True)])
    _correct(AttributionRollup.MONTH, stored, computed, found, replace)


def recompute_outcomes(midnight: datetime, found: dict[str, Any]) -> None:
    """The rollups of outcomes of a day's calls, recounted from what services told; replaces only what differs."""
    stored = OutcomeRollup.objects.filter(bucket=midnight)
    told = CallOutcome.objects.filter(call_started_at__gte=midnight, call_started_at__lt=midnight + _DAY)
    names = OutcomeRollup.DIMENSIONS[1:]
    counted: Any = told.order_by().values_list(*names).annotate(Count("pk"), Sum("value_nano"))
    missing = {row[: len(names)]: tuple(row[len(names) :]) for row in counted}
    wrong = set()
    for pk, *values in stored.values_list("pk", *names, *OutcomeRollup.SUMS):
        key, have = tuple(values[: len(names)]), tuple(values[len(names) :])
        if missing.get(key) == have:
            del missing[key]
        else:
            wrong.add(pk)
    stored.filter(pk__in=wrong).delete()
    write.add_outcomes({(midnight, *key): sums for key, sums in missing.items()})
    found["rows"] += max(len(wrong), len(missing))
    if wrong or missing:
        found["differences"].append(f"{midnight:%Y-%m-%d}: outcomes of calls were counted anew")


def add_cost(call: Call, cost_nano: int) -> None:
    """Add to what a call counts for by end user and by tag, when it turns out to have cost more (or less) than booked."""
    midnight = call.started_at.replace(hour=0, minute=0, second=0, microsecond=0)
    sums = [cost_nano if name == "cost_nano" else 0 for name in AttributionRollup.SUMS]
    named = {
        (AttributionRollup.USER, value) for value in ({call.user_digest, ""} if call.user_digest else ())
    }
    tags = {tag for tag in call.tags if tag}
    named |= {(AttributionRollup.TAG, value) for value in ({*tags, ""} if tags else ())}
    write.add_attributions(
        {
            (granularity, int(bucket.timestamp()), kind, call.project_id, value): list(sums)
            for granularity, bucket in (
                (AttributionRollup.DAY, midnight),
                (AttributionRollup.MONTH, midnight.replace(day=1)),
            )
            for kind, value in named
        }
    )


def _correct(
    granularity: int,
    stored: QuerySet[AttributionRollup],
    computed: Table,
    found: dict[str, Any],
    replace: Callable[..., Table],
) -> None:
    what = "day" if granularity == AttributionRollup.DAY else "month"

    def words(bucket: datetime, before: tuple[int, ...], after: tuple[int, ...]) -> str:
        return f"{bucket:%Y-%m-%d} ({what}): figures by end user and tag of {before[0]:,} calls became those of {after[0]:,}"

    rows = stored.order_by().values_list("pk", *_NAMES, *AttributionRollup.SUMS)
    add = replace(AttributionRollup, rows, AttributionRollup.SUMS, computed, found, words)
    write.add_attributions(
        {(granularity, int(key[0].timestamp()), *key[1:]): list(sums) for key, sums in add.items()}
    )


def _summed(rows: QuerySet[AttributionRollup], bucket: datetime) -> Table:
    sums = {f"sum_{name}": Sum(name) for name in AttributionRollup.SUMS}
    grouped: Any = rows.order_by().values(*_BY).annotate(**sums)
    return {
        (bucket, *(row[name] for name in _BY)): tuple(row[f"sum_{name}"] for name in AttributionRollup.SUMS)
        for row in grouped.iterator(chunk_size=2000)
    }


def _of_calls(midnight: datetime) -> Table:
    table = Call._meta.db_table
    if connection.vendor == "postgresql":
        each, tag = "CROSS JOIN LATERAL jsonb_array_elements_text(c.tags) AS j(tag)", "j.tag"
    else:
        each, tag = "JOIN json_each(c.tags) AS j", "j.value"
    users = f"SELECT {_COLUMNS}, c.user_digest AS named FROM {table} c WHERE {_WHEN} AND c.user_digest <> ''"  # noqa: S608 - names of our own
    # A tag that a call gives twice counts once.
    tags = f"SELECT DISTINCT {_COLUMNS}, {tag} AS named FROM {table} c {each} WHERE {_WHEN} AND {tag} <> ''"  # noqa: S608 - names of our own
    tagged = f"SELECT DISTINCT {_COLUMNS} FROM {table} c {each} WHERE {_WHEN} AND {tag} <> ''"  # noqa: S608 - names of our own
    computed: Table = {}
    for kind, value, rows in (
        (AttributionRollup.USER, "named", users),
        (AttributionRollup.USER, "''", users),
        (AttributionRollup.TAG, "named", tags),
        (AttributionRollup.TAG, "''", tagged),
    ):
        group = "project_id" if value == "''" else "project_id, named"
        sql = f"SELECT project_id, {value}, {_SUMMED} FROM ({rows}) AS found GROUP BY {group}"  # noqa: S608 - names of our own
        for project, name, *sums in _read(sql, midnight):
            computed[midnight, kind, project, name] = tuple(map(int, sums))
    return computed


def _read(sql: str, midnight: datetime) -> Iterable[Any]:
    convert = AttributionRollup._meta.get_field("project_id").to_python
    with connection.cursor() as cursor:
        cursor.execute(
            sql, [connection.ops.adapt_datetimefield_value(at) for at in (midnight, midnight + _DAY)]
        )
        for project, *rest in cursor.fetchall():
            yield convert(project), *rest


def _following(month: datetime) -> datetime:
    return (month + timedelta(days=32)).replace(day=1)
