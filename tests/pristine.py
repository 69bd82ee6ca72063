"""Bringing a test database back to what the migrations left, past triggers that refuse UPDATE and DELETE.

Django's flush would be refused by append-only tables, and would lose the rows that migrations insert. Neither the
triggers nor the application know of this: SQLite gets a copy of the file back, PostgreSQL replays the rows in one
transaction that runs as a replica, for which ordinary triggers do not fire (tests connect as a superuser).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

#: How long a transaction left open elsewhere may hold up the clean-up, in seconds.
PATIENCE = 60
_SCHEMA = "pristine"
_KEPT = "django_migrations"


def remember(alias: str, *, directory: Path) -> Callable[[], None]:
    """Note the rows of the freshly migrated database ``alias``; the answer brings the database back to them."""
    connection = connections[alias]
    if connection.vendor == "sqlite":
        return _remember_file(connection, directory / f"pristine-{alias}.sqlite3")
    return _remember_rows(connection)


def _remember_file(connection: BaseDatabaseWrapper, path: Path) -> Callable[[], None]:
    connection.ensure_connection()
    with closing(sqlite3.connect(path)) as copy:
        connection.connection.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")

    def restore() -> None:
        deadline = time.monotonic() + PATIENCE

        def progress(*_: int) -> None:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{connection.settings_dict['NAME']} is in use by a transaction that the test left open"
                )

        connection.ensure_connection()
        with closing(sqlite3.connect(path)) as copy:
            copy.backup(connection.connection, progress=progress, sleep=0.02)

    return restore


def _remember_rows(connection: BaseDatabaseWrapper) -> Callable[[], None]:
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(_SCHEMA)))
        cursor.execute(
            "SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attgenerated = '') "
            "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
            "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition "
            "AND c.relname <> %s GROUP BY c.relname ORDER BY c.relname",
            [_KEPT],
        )
        tables: list[tuple[str, list[str]]] = cursor.fetchall()
        steps = [
            sql.SQL("SET LOCAL session_replication_role = replica"),
            sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(f"{PATIENCE}s")),
        ]
        steps += [sql.SQL("DELETE FROM {}").format(sql.Identifier("public", table)) for table, _ in tables]
        for table, columns in tables:
            here, there = sql.Identifier("public", table), sql.Identifier(_SCHEMA, table)
            cursor.execute(sql.SQL("SELECT EXISTS (SELECT 1 FROM {})").format(here))
            if not cursor.fetchone()[0]:
                continue
            names = sql.SQL(", ").join(map(sql.Identifier, columns))
            cursor.execute(sql.SQL("CREATE TABLE {} AS SELECT {} FROM {}").format(there, names, here))
            steps.append(
                sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}").format(
                    here, names, names, there
                )
            )
        script = sql.SQL("; ").join(steps).as_string(cursor.connection)

    def restore() -> None:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute(script)

    return restore
