"""Columns that never change, and columns that are set once: triggers in the database refuse any other UPDATE.

Used as an operation of a migration: ``Frozen("tools_action", never=("digest",), once=("claimed_at",))``. SQLite alters a table
by making it anew, without its triggers: a migration that does so ends with the operation again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation

_POSTGRES_FUNCTION = """
CREATE OR REPLACE FUNCTION llmops_refuse_frozen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'rows of % keep what they say: this UPDATE is refused', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$
"""


class Frozen(Operation):
    """``never`` names columns that keep their value, ``once`` those that keep it once it is not NULL. Rows are never deleted."""

    reduces_to_sql = True
    reversible = True

    def __init__(self, table: str, never: Sequence[str] = (), once: Sequence[str] = ()) -> None:
        self.table, self.never, self.once = table, tuple(never), tuple(once)

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return (self.__class__.__name__, [self.table], {"never": self.never, "once": self.once})

    def state_forwards(self, app_label: str, state: Any) -> None:
        return None

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        self._remove(schema_editor)
        for statement in self.statements(schema_editor.connection.vendor):
            schema_editor.execute(statement, params=None)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        self._remove(schema_editor)

    def _remove(self, schema_editor: BaseDatabaseSchemaEditor) -> None:
        suffix = f" ON {self.table}" if schema_editor.connection.vendor == "postgresql" else ""
        for kind in ("frozen", "no_delete"):
            schema_editor.execute(f"DROP TRIGGER IF EXISTS {self.table}_{kind}{suffix}", params=None)

    def statements(self, vendor: str) -> list[str]:
        differs = "IS DISTINCT FROM" if vendor == "postgresql" else "IS NOT"
        changed = [_text(vendor, "OLD", name, differs, "NEW") for name in self.never]
        changed += [
            f'(OLD."{name}" IS NOT NULL AND {_text(vendor, "OLD", name, differs, "NEW")})'
            for name in self.once
        ]
        when = " OR ".join(changed)
        if vendor == "sqlite":
            said = (
                f"SELECT RAISE(ABORT, 'rows of {self.table} keep what they say: this change is refused'); END"
            )
            return [
                f"CREATE TRIGGER {self.table}_frozen BEFORE UPDATE ON {self.table} WHEN {when} BEGIN {said}",
                f"CREATE TRIGGER {self.table}_no_delete BEFORE DELETE ON {self.table} BEGIN {said}",
            ]
        if vendor == "postgresql":
            runs = "EXECUTE FUNCTION llmops_refuse_frozen()"
            return [
                _POSTGRES_FUNCTION,
                f"CREATE TRIGGER {self.table}_frozen BEFORE UPDATE ON {self.table} FOR EACH ROW WHEN ({when}) {runs}",
                f"CREATE TRIGGER {self.table}_no_delete BEFORE DELETE ON {self.table} FOR EACH ROW {runs}",
            ]
        raise ValueError(f"frozen columns are not supported on {vendor}; use SQLite or PostgreSQL")

    def describe(self) -> str:
        return f"Refuse to change what rows of {self.table} say"

    @property
    def migration_name_fragment(self) -> str:
        return f"frozen_{self.table}"


def _text(vendor: str, old: str, name: str, differs: str, new: str) -> str:
    return f'{old}."{name}" {differs} {new}."{name}"'
