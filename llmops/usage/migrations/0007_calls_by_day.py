"""On PostgreSQL ``usage_call`` becomes a table of days, so that retention drops whole days; SQLite keeps one table.

Django does not know of partitions, so the state stays as it is. What is there becomes one partition of the past, in place:
its rows are not copied. The long steps (an index, a check that all rows lie in the past) let calls be booked meanwhile; the
last one, which swaps the tables, takes a moment. Run again after an interruption, it goes on where it was.
"""

from datetime import UTC, datetime, timedelta

from django.db import migrations, transaction

_DAY = timedelta(days=1)
_AHEAD = 8


def _midnight(moment):
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _fetch(cursor, query, *arguments):
    cursor.execute(query, arguments)
    return cursor.fetchall()


def _kind(cursor):
    return _fetch(cursor, "SELECT relkind::text FROM pg_class WHERE oid = 'usage_call'::regclass")[0][0]


def split(apps, schema_editor):
    connection = schema_editor.connection
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        if _kind(cursor) == "p":
            return
        now = datetime.now(tz=UTC)
        if not _fetch(cursor, "SELECT 1 FROM usage_call LIMIT 1"):
            with transaction.atomic(using=connection.alias):
                cursor.execute("LOCK TABLE usage_call IN ACCESS EXCLUSIVE MODE")
                if not _fetch(cursor, "SELECT 1 FROM usage_call LIMIT 1"):
                    _swap(cursor, None, _midnight(now) - _DAY)
                    return
        last = _fetch(cursor, "SELECT max(started_at) FROM usage_call")[0][0] or now
        until = max(_midnight(now) + 2 * _DAY, _midnight(last) + _DAY)
        _prepare(cursor, until)
        with transaction.atomic(using=connection.alias):
            cursor.execute("LOCK TABLE usage_call IN ACCESS EXCLUSIVE MODE")
            _swap(cursor, until, until)


def _prepare(cursor, until):
    """What takes long, while others read and write the table."""
    half_made = (
        "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('usage_call_id_started') AND NOT indisvalid"
    )
    if _fetch(cursor, half_made):
        cursor.execute("DROP INDEX CONCURRENTLY usage_call_id_started")
    cursor.execute(
        "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS usage_call_id_started ON usage_call (id, started_at)"
    )
    cursor.execute("ALTER TABLE usage_call DROP CONSTRAINT IF EXISTS usage_call_past")
    cursor.execute(
        "ALTER TABLE usage_call ADD CONSTRAINT usage_call_past "
        f"CHECK (started_at IS NOT NULL AND started_at < '{until.isoformat()}') NOT VALID"
    )
    cursor.execute("ALTER TABLE usage_call VALIDATE CONSTRAINT usage_call_past")


def _swap(cursor, until, first_day):
    """``usage_call`` anew, by day, over the table that was there (``until`` None: it was empty, and goes)."""
    indexes = _fetch(
        cursor,
        "SELECT c.relname, pg_get_indexdef(c.oid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = 'usage_call'::regclass AND NOT i.indisprimary AND c.relname <> 'usage_call_id_started'",
    )
    primary = _fetch(
        cursor, "SELECT conname FROM pg_constraint WHERE conrelid = 'usage_call'::regclass AND contype = 'p'"
    )[0][0]
    past = f"usage_call_before_{until:%Y%m%d}" if until else "usage_call_empty"
    cursor.execute(f'ALTER TABLE usage_call DROP CONSTRAINT "{primary}"')
    for number, (name, _) in enumerate(indexes):
        cursor.execute(f'ALTER INDEX "{name}" RENAME TO {past}_{number}')
    cursor.execute(f"ALTER TABLE usage_call RENAME TO {past}")
    cursor.execute(
        f"CREATE TABLE usage_call (LIKE {past} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS) "
        "PARTITION BY RANGE (started_at)"
    )
    cursor.execute("ALTER TABLE usage_call DROP CONSTRAINT IF EXISTS usage_call_past")
    # Whose id it is stays unique within a moment, which is all that a key of a partitioned table can say; that a record
    # is booked once is ensured by the position of its journal.
    cursor.execute("ALTER TABLE usage_call ADD CONSTRAINT usage_call_pkey PRIMARY KEY (id, started_at)")
    for _, definition in indexes:
        cursor.execute(definition)
    if until is None:
        cursor.execute(f"DROP TABLE {past}")
    else:
        cursor.execute(
            f"ALTER TABLE {past} ADD CONSTRAINT {past}_pkey PRIMARY KEY USING INDEX usage_call_id_started"
        )
        cursor.execute(
            f"ALTER TABLE usage_call ATTACH PARTITION {past} FOR VALUES FROM (MINVALUE) TO ('{until.isoformat()}')"
        )
        cursor.execute(f"ALTER TABLE {past} DROP CONSTRAINT usage_call_past")
    cursor.execute("CREATE TABLE usage_call_rest PARTITION OF usage_call DEFAULT")
    for day in (first_day + number * _DAY for number in range(_AHEAD)):
        cursor.execute(
            f"CREATE TABLE usage_call_d{day:%Y%m%d} PARTITION OF usage_call "
            f"FOR VALUES FROM ('{day.isoformat()}') TO ('{(day + _DAY).isoformat()}')"
        )


def join(apps, schema_editor):
    """One table again. Copies every row."""
    connection = schema_editor.connection
    if connection.vendor != "postgresql":
        return
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        if _kind(cursor) != "p":
            return
        indexes = _fetch(
            cursor,
            "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'usage_call'::regclass "
            "AND NOT indisprimary",
        )
        cursor.execute("LOCK TABLE usage_call IN ACCESS EXCLUSIVE MODE")
        cursor.execute(
            "CREATE TABLE usage_call_whole "
            "(LIKE usage_call INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS)"
        )
        cursor.execute("INSERT INTO usage_call_whole SELECT * FROM usage_call")
        cursor.execute("DROP TABLE usage_call")
        cursor.execute("ALTER TABLE usage_call_whole RENAME TO usage_call")
        cursor.execute("ALTER TABLE usage_call ADD CONSTRAINT usage_call_pkey PRIMARY KEY (id)")
        for (definition,) in indexes:
            cursor.execute(definition.replace(" ON ONLY ", " ON "))


class Migration(migrations.Migration):
    # Indexes are built without stopping the ingester, which no transaction can do.
    atomic = False

    dependencies = [
        ("usage", "0006_tools_that_were_called"),
    ]

    operations = [migrations.RunPython(split, join, elidable=False)]
