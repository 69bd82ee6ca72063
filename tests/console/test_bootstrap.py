"""The first filling: after it nothing is missing for any process, and doing it again changes nothing."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests import launcher
from tests.templates import Template

#: Every sort of process: the web server and commands with all apps, background processes with fewer.
PROCESSES = ({}, {"CONSOLE_BACKGROUND": "1"})
APPS = """
from django.apps import apps
for model in apps.get_models():
    if model._meta.managed:
        print(model._meta.app_label + "." + model._meta.db_table)
"""
UNAPPLIED = """
from django.apps import apps
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
executor = MigrationExecutor(connection)
applied = set(MigrationRecorder(connection).applied_migrations())
tables = set(connection.introspection.table_names())
print([str(node) for node in executor.loader.graph.nodes if node not in applied])
print([model._meta.label for model in apps.get_models() if model._meta.managed and model._meta.db_table not in tables])
call_command("migrate", check=True, verbosity=0)
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    left_out = ("CONSOLE_", "DATABASE_", "REDIS_", "PYTEST_", "OPENAI_")
    found = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return found | {
        "CONSOLE_DATA_DIR": str(tmp_path / "var"),
        "CONSOLE_SECRET_KEY": "x" * 50,
        "CONSOLE_MASTER_KEYS": "k:" + "QUFB" * 10 + "QUE=",
        "DJANGO_SETTINGS_MODULE": "console.settings",
        # The history has tests of its own (test_demo_history.py), and takes time.
        "CONSOLE_DEMO": "no",
    }


def manage(env: dict[str, str], *words: str) -> str:
    done = launcher.run([sys.executable, "manage.py", *words], env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def nothing_is_left_unmigrated(env: dict[str, str]) -> None:
    for process in PROCESSES:
        assert manage(env | process, "shell", "--no-imports", "-c", UNAPPLIED).split() == ["[]", "[]"]


def test_no_app_of_any_process_is_left_unmigrated_whoever_begins(
    env: dict[str, str], tmp_path: Path, installation_template: Template
) -> None:
    """Here a process that has not all apps itself, and just what those need is missing; below one that has.

    A first start, where all is missing, is that of e2e/test_embedded.py.
    """
    (tmp_path / "var").mkdir()
    installation_template.fill(str(tmp_path / "var" / "console.sqlite3"))
    of_all, of_some = (
        set(manage(env | process, "shell", "--no-imports", "-c", APPS).split()) for process in PROCESSES
    )
    left_out = sorted(of_all - of_some)
    assert left_out == ["admin.django_admin_log"]
    with closing(sqlite3.connect(tmp_path / "var" / "console.sqlite3")) as database, database:
        for app, table in (one.split(".") for one in left_out):
            database.execute(f"DROP TABLE {table}")
            assert database.execute("DELETE FROM django_migrations WHERE app = ?", [app]).rowcount
    manage(env | PROCESSES[1], "bootstrap")
    nothing_is_left_unmigrated(env)
    first = json.loads((tmp_path / "var" / "first-run.json").read_text())
    with closing(sqlite3.connect(tmp_path / "var" / "console.sqlite3")) as database:
        events = database.execute("SELECT COUNT(*) FROM audit_event").fetchone()
        manage(env, "bootstrap")
        assert database.execute("SELECT COUNT(*) FROM audit_event").fetchone() == events
    assert json.loads((tmp_path / "var" / "first-run.json").read_text()) == first


def test_an_installation_that_is_begun_empty_stays_empty(
    env: dict[str, str], tmp_path: Path, installation_template: Template
) -> None:
    """Whoever migrated it, a process that has all apps, had nothing else to do with it."""
    (tmp_path / "var").mkdir()
    installation_template.fill(str(tmp_path / "var" / "console.sqlite3"))
    nothing_is_left_unmigrated(env)
    manage(env | {"CONSOLE_DEMO": "empty", "OPENAI_API_KEY": "sk-not-asked-for"}, "bootstrap")
    nothing_is_left_unmigrated(env)
    # The next start says nothing of it.
    manage(env, "bootstrap")
    first = json.loads((tmp_path / "var" / "first-run.json").read_text())
    assert set(first) == {"console_url", "gateway_url", "username", "password", "empty"}
    counts = {}
    with closing(sqlite3.connect(tmp_path / "var" / "console.sqlite3")) as database:
        for table in (
            "auth_user",
            "access_project",
            "access_service_key",
            "providers_provider",
            "usage_call",
        ):
            counts[table] = database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
    assert counts.pop("auth_user") == 1
    assert set(counts.values()) == {0}, counts
