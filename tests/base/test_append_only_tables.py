"""Triggers refuse UPDATE and DELETE on every table that is declared append-only, and can be taken off again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.apps import apps
from django.db import DatabaseError, connection, transaction
from django.db.migrations.loader import MigrationLoader

from llmops.base.append_only import AppendOnly, statements

DECLARED = sorted(
    operation.table
    for migration in MigrationLoader(None).disk_migrations.values()
    for operation in migration.operations
    if isinstance(operation, AppendOnly)
)


def test_the_tables_that_must_be_are_declared():
    assert {"audit_event", "serving_revision"} <= set(DECLARED)


@pytest.mark.django_db
@pytest.mark.parametrize("table", DECLARED)
def test_each_declared_table_has_its_triggers(table):
    assert table in {model._meta.db_table for model in apps.get_models()}
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = %s", [table])
            expected = {f"{table}_no_update", f"{table}_no_delete"}
        else:
            cursor.execute(
                "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal", [table]
            )
            expected = {f"{table}_no_update", f"{table}_no_delete", f"{table}_no_truncate"}
        assert {name for (name,) in cursor.fetchall()} == expected


@pytest.fixture
def scratch(db):
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE scratch (id integer PRIMARY KEY, word text)")
        cursor.execute("INSERT INTO scratch VALUES (1, 'first')")
        for statement in statements(connection.vendor, "scratch"):
            cursor.execute(statement)
        yield cursor


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE scratch SET word = 'other'",
        "UPDATE scratch SET word = word WHERE id = 1",
        "DELETE FROM scratch WHERE id = 1",
        "INSERT INTO scratch VALUES (1, 'other') ON CONFLICT (id) DO UPDATE SET word = 'other'",
    ],
)
def test_a_change_is_refused_with_a_sentence(scratch, statement):
    with pytest.raises(DatabaseError, match="rows of scratch are append-only"), transaction.atomic():
        scratch.execute(statement)
    scratch.execute("SELECT word FROM scratch")
    assert scratch.fetchall() == [("first",)]


def test_replacing_a_row_is_refused_too(scratch):
    """SQLite's REPLACE deletes before it inserts, and fires delete triggers only where recursive_triggers is on."""
    if connection.vendor == "postgresql":
        statement = "TRUNCATE scratch"
    else:
        statement = "INSERT OR REPLACE INTO scratch VALUES (1, 'other')"
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        scratch.execute(statement)
    scratch.execute("SELECT word FROM scratch")
    assert scratch.fetchall() == [("first",)]


def test_rows_are_still_added(scratch):
    scratch.execute("INSERT INTO scratch VALUES (2, 'second')")
    scratch.execute("SELECT count(*) FROM scratch")
    assert scratch.fetchone() == (2,)


def test_going_back_takes_the_triggers_off(scratch):
    editor = SimpleNamespace(connection=connection, execute=lambda sql, params: scratch.execute(sql, params))
    AppendOnly("scratch").database_backwards("base", editor, None, None)
    scratch.execute("UPDATE scratch SET word = 'changed'")


def test_another_database_is_refused():
    with pytest.raises(ValueError, match="mysql"):
        statements("mysql", "scratch")
