"""Which migrations a database lacks, asked at the start of every process that serves."""

from __future__ import annotations

from importlib.util import find_spec
from pkgutil import iter_modules

from django.apps import apps
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder


def pending_migrations() -> list[tuple[str, str]]:
    """(app, name) of what is to be applied, in its order. Raises what the database raises.

    Migrations are loaded only if one is missing: that takes longer than anything else a start checks.
    """
    if MigrationRecorder(connection).applied_migrations().keys() >= _by_their_files():
        return []
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [(migration.app_label, migration.name) for migration, _ in plan]


def _by_their_files() -> set[tuple[str, str]]:
    """(app, name) of every migration there is, found where Django finds them."""
    found: set[tuple[str, str]] = set()
    for app in apps.get_app_configs():
        module, _ = MigrationLoader.migrations_module(app.label)
        package = find_spec(module) if module is not None else None
        if package is not None and package.submodule_search_locations:
            modules = iter_modules(package.submodule_search_locations)
            found |= {(app.label, one.name) for one in modules if not one.ispkg and one.name[0] not in "_~"}
    return found
