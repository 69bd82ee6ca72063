"""Tables whose rows never change: triggers in the database refuse UPDATE and DELETE (and TRUNCATE on PostgreSQL).

Used as the last operation of a migration: ``AppendOnly("audit_event")``. A migration that alters such a table has
``StillAppendOnly`` before and after what it alters: SQLite alters by making the table anew, without its triggers.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation

_POSTGRES_FUNCTION = """
CREATE OR REPLACE FUNCTION llmops_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'rows of % are append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$
"""


class AppendOnly(Operation):
    """Install (and, backwards, remove) the triggers on ``table``; changes no model state."""

    reduces_to_sql = True
    reversible = True

    def __init__(self, table: str) -> None:
        self.table = table

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return (self.__class__.__name__, [self.table], {})

    def state_forwards(self, app_label: str, state: Any) -> None:
        return None

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        for statement in statements(schema_editor.connection.vendor, self.table):
            schema_editor.execute(statement, params=None)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        self.remove(schema_editor)

    def remove(self, schema_editor: BaseDatabaseSchemaEditor) -> None:
        suffix = f" ON {self.table}" if schema_editor.connection.vendor == "postgresql" else ""
        for kind in ("update", "delete", "truncate"):
            schema_editor.execute(f"DROP TRIGGER IF EXISTS {self.table}_no_{kind}{suffix}", params=None)

    def describe(self) -> str:
        return f"Refuse UPDATE and DELETE on {self.table}"

    @property
    def migration_name_fragment(self) -> str:
        return f"append_only_{self.table}"


class StillAppendOnly(AppendOnly):
    """Install the triggers on ``table`` again, forwards and backwards, whether they are there or not."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        self.remove(schema_editor)
        super().database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        self.database_forwards(app_label, schema_editor, from_state, to_state)

    def describe(self) -> str:
        return f"Still refuse UPDATE and DELETE on {self.table}"


def statements(vendor: str, table: str) -> list[str]:
    """The SQL that makes ``table`` append-only on ``vendor`` (``sqlite`` or ``postgresql``)."""
    if vendor == "sqlite":
        return [
            f"CREATE TRIGGER {table}_no_{kind} BEFORE {kind.upper()} ON {table} BEGIN "
            f"SELECT RAISE(ABORT, 'rows of {table} are append-only: {kind.upper()} is refused'); END"
            for kind in ("update", "delete")
        ]
    if vendor == "postgresql":
        row_level = [
            f"CREATE TRIGGER {table}_no_{kind} BEFORE {kind.upper()} ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION llmops_refuse_change()"
            for kind in ("update", "delete")
        ]
        return [
            _POSTGRES_FUNCTION,
            *row_level,
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION llmops_refuse_change()",
        ]
    raise ValueError(f"append-only tables are not supported on {vendor}; use SQLite or PostgreSQL")
