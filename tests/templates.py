"""The migrated databases that all others are copies of: made once a run, while the tests are still being collected."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests import servers

ROOT = Path(__file__).resolve().parent.parent
#: A directory that all processes of a run have in common, the backend of this process, and its name.
SHARED, BACKEND, WORKER = "CONSOLE_TEST_SHARED", "CONSOLE_TEST_BACKEND", "CONSOLE_TEST_WORKER"
_POSTGRES = "template_console"
# What a migration makes stays to the end, so that looking for garbage takes a sixth of the time and finds none.
_MIGRATE = """
import gc
gc.disable()
import sys
from pathlib import Path
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "migrate", "--verbosity", "0", "--skip-checks"])
Path(sys.argv[1]).touch()
"""
_databases = itertools.count(1)


class Template:
    """A migrated database, and how to copy it; ``fill`` makes the empty database of the tests themselves a copy."""

    def __init__(self, url: str, copy: Callable[[Path], Any], fill: Callable[[str], None]) -> None:
        self.url = url
        self.copy = copy
        self.fill = fill


def begin(backend: str, server: str) -> subprocess.Popen[bytes]:
    """Start to migrate the template of ``backend``, for ``finished`` to wait for.

    ``server`` is the URL of a database of the PostgreSQL server; it matters to PostgreSQL alone.
    """
    # The lock is the new process's, and free when it has ended, however it did.
    lock = os.open(_beside(backend, "lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _migrate(backend, server, lock)
    finally:
        os.close(lock)


def finished() -> Template:
    """The template of this process's backend; migrated now if nobody began to, or did not succeed."""
    backend, server = os.environ[BACKEND], os.environ["DATABASE_URL"]
    with _beside(backend, "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (ready := _beside(backend, "ready")).exists():
            _migrate(backend, server, lock.fileno()).wait()
        if not ready.exists():
            said = servers.log_tail(_beside(backend, "log"))
            pytest.fail(f"the template could not be migrated:\n{said}", pytrace=False)
    return of_file(_file()) if backend == "sqlite" else _of_server(server)


def _beside(backend: str, what: str) -> Path:
    return Path(os.environ[SHARED]) / f"template-{backend}.{what}"


def _file() -> Path:
    return _beside("sqlite", "sqlite3")


def _migrate(backend: str, server: str, lock: int) -> subprocess.Popen[bytes]:
    if backend == "sqlite":
        _file().unlink(missing_ok=True)
        url = f"sqlite:///{_file()}"
    else:
        execute(server, f"DROP DATABASE IF EXISTS {_POSTGRES}", f"CREATE DATABASE {_POSTGRES}")
        url = with_database(server, _POSTGRES)
    data = _beside(backend, "data")
    data.mkdir(mode=0o700, exist_ok=True)
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CONSOLE_TEST_"))
    }
    env |= {"CONSOLE_DATA_DIR": str(data), "DATABASE_URL": url, "PYTHONPATH": str(ROOT)}
    with _beside(backend, "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", _MIGRATE, str(_beside(backend, "ready"))],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
        )


def of_file(path: Path) -> Template:
    """A database of SQLite."""

    def fill(target: str) -> None:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as sink:
            source.backup(sink)

    @contextmanager
    def copy(home: Path) -> Iterator[str]:
        target = home / "database" / "console.sqlite3"
        target.parent.mkdir(parents=True)
        fill(str(target))
        try:
            yield f"sqlite:///{target}"
        finally:
            shutil.rmtree(target.parent)

    return Template(f"sqlite:///{path}", copy, fill)


def _of_server(server: str) -> Template:
    worker = os.environ.get(WORKER, "main")

    def fill(database: str) -> None:
        execute(server, f"CREATE DATABASE {database} TEMPLATE {_POSTGRES} STRATEGY FILE_COPY")

    @contextmanager
    def copy(home: Path) -> Iterator[str]:
        database = f"{_POSTGRES}_{worker}_{next(_databases)}"
        fill(database)
        try:
            yield with_database(server, database)
        finally:
            execute(server, f"DROP DATABASE {database} WITH (FORCE)")

    return Template(with_database(server, _POSTGRES), copy, fill)


def execute(server: str, *statements: str) -> None:
    """On a PostgreSQL server, outside any transaction."""
    import psycopg

    with psycopg.connect(with_database(server, "postgres"), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]


def with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
