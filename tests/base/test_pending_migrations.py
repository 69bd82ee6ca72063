"""Whether all migrations were applied is told from their files, and is what Django would tell from the migrations themselves."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from llmops.base import pending_migrations as asked
from llmops.base.pending_migrations import pending_migrations


def planned() -> list[tuple[str, str]]:
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [(migration.app_label, migration.name) for migration, _ in plan]


def test_files_are_all_that_django_finds() -> None:
    assert asked._by_their_files() == set(MigrationLoader(None).disk_migrations)


def test_what_was_not_applied_is_told_in_its_order(db: None) -> None:
    assert pending_migrations() == planned() == []
    recorder = MigrationRecorder(connection)
    last = max(name for app, name in asked._by_their_files() if app == "usage")
    recorder.record_unapplied("usage", last)
    recorder.record_unapplied("sessions", "0001_initial")
    assert pending_migrations() == planned()
    assert set(pending_migrations()) == {("usage", last), ("sessions", "0001_initial")}
    recorder.migration_qs.all().delete()
    assert pending_migrations() == planned()
    assert len(pending_migrations()) == len(asked._by_their_files())


def test_migrations_are_not_loaded_while_all_are_there(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(*_: object) -> None:
        raise AssertionError("they were loaded")

    monkeypatch.setattr(MigrationLoader, "build_graph", loaded)
    assert pending_migrations() == []


def test_a_new_file_is_noticed(db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "9999_new.py").write_text("")
    (tmp_path / "_no_migration.py").write_text("")
    known = asked._by_their_files()
    package = find_spec("llmops.usage.migrations")
    assert package is not None and package.submodule_search_locations is not None
    places = [*package.submodule_search_locations, str(tmp_path)]
    monkeypatch.setattr(package, "submodule_search_locations", places)
    assert asked._by_their_files() - known == {("usage", "9999_new")}
