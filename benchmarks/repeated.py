"""A ledger on PostgreSQL made longer: days of it repeated on later days, calls and rollups alike, by SQL.

Making calls one by one takes an hour for ten million. What pages and exports take does not depend on whether a call looks like
one of another day: of a repeated day all is as if it had been called again, but for the tails of ids, which repeat.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

DAY = timedelta(days=1)
_HOUR, _A_DAY, _MONTH = 3_600, 86_400, 31 * 86_400


def repeat(source: date, target: date) -> int:
    """Add what was called on ``source`` to ``target`` (days UTC); how many calls that were.

    In one transaction. Without rollups by minute, which are kept for a week; those by month are left to ``months``.
    """
    from django.db import connection, transaction

    from llmops.usage import partitions, summaries
    from llmops.usage.ingest.rows import COLUMNS
    from llmops.usage.models import Rollup

    start, to = (datetime.combine(day, time(), tzinfo=UTC) for day in (source, target))
    shift = to - start
    end = start + DAY
    partitions.make_days({target})
    others = ", ".join(name for name in COLUMNS if name not in ("id", "started_at"))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO usage_call (id, started_at, {others})
            SELECT (lpad(to_hex((extract(epoch FROM started_at + %s) * 1000)::bigint), 12, '0')
                    || substr(replace(id::text, '-', ''), 13))::uuid, started_at + %s, {others}
            FROM usage_call WHERE started_at >= %s AND started_at < %s
            """,
            [shift, shift, start, end],
        )
        calls = cursor.rowcount
        for table, by, sums in _tables():
            columns, added = (
                ", ".join([*by, *sums]),
                ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in sums),
            )
            conflict = f"ON CONFLICT (granularity, bucket, {', '.join(by)}) DO UPDATE SET {added}"
            cursor.execute(
                f"INSERT INTO {table} (granularity, bucket, {columns}) SELECT granularity, bucket + %s, {columns} FROM {table} "
                f"WHERE granularity = {_HOUR} AND bucket >= %s AND bucket < %s {conflict}",
                [shift, start, end],
            )
            summed = ", ".join(f"sum({name})" for name in sums)
            cursor.execute(
                f"INSERT INTO {table} (granularity, bucket, {columns}) SELECT {_A_DAY}, %s, {', '.join(by)}, {summed} FROM {table} "
                f"WHERE granularity = {_HOUR} AND bucket >= %s AND bucket < %s GROUP BY {', '.join(by)} {conflict}",
                [to, start, end],
            )
        by, sums = (
            ("kind", "project_id", "value"),
            ("calls", "refused", "input_tokens", "output_tokens", "cost_nano", "saved_nano"),
        )
        columns, added = (
            ", ".join([*by, *sums]),
            ", ".join(f"{name} = a.{name} + excluded.{name}" for name in sums),
        )
        cursor.execute(
            f"INSERT INTO usage_attribution_rollup AS a (granularity, bucket, {columns}) SELECT granularity, bucket + %s, {columns} "
            f"FROM usage_attribution_rollup WHERE granularity = {_A_DAY} AND bucket = %s "
            f"ON CONFLICT (granularity, bucket, {', '.join(by)}) DO UPDATE SET {added}",
            [shift, start],
        )
        hours = {start + shift + number * timedelta(hours=1) for number in range(24)}
        summaries.mark(
            [summaries.Bucket(Rollup.HOUR, hour) for hour in sorted(hours)]
            + [summaries.Bucket(Rollup.DAY, to)]
        )
    return calls


def months() -> None:
    """Make rollups by end user and tag of each month what its days add up to."""
    from django.db import connection, transaction

    columns = "kind, project_id, value"
    sums = ", ".join(
        f"sum({name})"
        for name in ("calls", "refused", "input_tokens", "output_tokens", "cost_nano", "saved_nano")
    )
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM usage_attribution_rollup WHERE granularity = %s", [_MONTH])
        cursor.execute(
            f"INSERT INTO usage_attribution_rollup (granularity, bucket, {columns}, calls, refused, input_tokens, output_tokens, "
            f"cost_nano, saved_nano) SELECT {_MONTH}, date_trunc('month', bucket, 'UTC'), {columns}, {sums} "
            f"FROM usage_attribution_rollup WHERE granularity = {_A_DAY} GROUP BY 2, {columns}"
        )


def _tables() -> list[tuple[str, list[str], list[str]]]:
    """Rollups that are kept by the hour: (table, what they are by beside time, sums)."""
    from llmops.usage.ingest.write import LATENCY_DIMENSIONS
    from llmops.usage.models import LatencyRollup, PromptRollup, Rollup

    return [
        ("usage_rollup", [*Rollup.DIMENSIONS[2:]], [*Rollup.SUMS]),
        (PromptRollup._meta.db_table, [*PromptRollup.DIMENSIONS[2:]], [*PromptRollup.SUMS]),
        (LatencyRollup._meta.db_table, [*LATENCY_DIMENSIONS[2:]], ["calls"]),
    ]
