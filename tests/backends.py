"""Chooses what the suite runs on: ``--backend sqlite`` (the default) or ``--backend postgres`` (with Valkey).

Loaded by ``-p tests.backends`` in pyproject.toml, because settings are read before any conftest.py is.
"""

from __future__ import annotations

import atexit
import base64
import os
import secrets
import shutil
import tempfile
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from console.process import collect_seldom
from tests import compiled_ahead, servers

# As the product does: what collecting and a test load stays, and looking through it again takes a twentieth of a run.
collect_seldom()

BACKENDS = ("sqlite", "postgres")
# What a developer's shell may hold and no test may see.
_FOREIGN = ("CONSOLE_", "OPENAI_", "REDIS_URL", "DATABASE_URL", "PORT", "GRANIAN_", "CELERY_")
#: A directory that all processes of a run have in common, and the name of one of several that run tests.
SHARED, WORKER = "CONSOLE_TEST_SHARED", "CONSOLE_TEST_WORKER"
_started = ExitStack()
#: What was started by the process that this one was forked from: held, because letting go of it would end it.
_inherited: list[ExitStack] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("console").addoption(
        "--backend",
        choices=BACKENDS,
        default=os.environ.get("CONSOLE_TEST_BACKEND") or "sqlite",
        help="run on SQLite, or on PostgreSQL and Valkey started for this run (CONSOLE_TEST_BACKEND)",
    )
    parser.getgroup("console").addoption(
        "--forks",
        metavar="PROCESSES",
        help="run the tests in so many processes, forked from the one that has collected them; auto: its share of the cores",
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, object, object]:
    backend = early_config.known_args_namespace.backend
    if backend not in BACKENDS:
        raise pytest.UsageError(f"CONSOLE_TEST_BACKEND is {backend!r}; it is one of {', '.join(BACKENDS)}")
    # However this process ends, short of a kill, the servers are stopped and the files removed.
    atexit.register(_started.close)
    os.environ.update(_environment(backend))
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if (asked := config.getoption("forks")) is not None:
        from tests.forked import Forked

        processes = _share(config.getoption("backend")) if asked == "auto" else int(asked)
        config.pluginmanager.register(Forked(config, processes), "forked")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.getoption("forks") is not None:
        compiled_ahead.compile_ahead(session.config, _cores())


def _share(backend: str) -> int:
    """Of what both halves have together: five processes for two cores, because every second test waits.

    The first half has more to do, and two cores are busy with three processes when the second has ended.
    """
    return _cores() + (_cores() + 1) // 2 if backend == BACKENDS[0] else _cores()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def become_worker(name: str) -> None:
    """In a process that was forked to run tests: directories and a Valkey of its own, and the rest from who forked it."""
    _inherited.append(_started.pop_all())
    atexit.register(_started.close)
    backend = os.environ["CONSOLE_TEST_BACKEND"]
    root = _directory()
    os.environ[WORKER] = name
    os.environ["CONSOLE_DATA_DIR"] = str(root / "data")
    if backend == "postgres":
        # Channels span the databases of one Valkey.
        os.environ["REDIS_URL"] = _started.enter_context(servers.valkey())
    else:
        os.environ["DATABASE_URL"] = _sqlite(root)


def end_servers() -> None:
    _started.close()


def pytest_unconfigure() -> None:
    _started.close()


def pytest_report_header() -> str:
    return f"backend: {os.environ['CONSOLE_TEST_BACKEND']} ({os.environ['DATABASE_URL']})"


def _environment(backend: str) -> dict[str, str]:
    """Set up what the backend needs and say so in environment variables, in place of those found."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN):
            del os.environ[name]
    root = _directory()
    found = {
        "DJANGO_SETTINGS_MODULE": "console.settings",
        "CONSOLE_TEST_BACKEND": backend,
        "CONSOLE_DATA_DIR": str(root / "data"),
        "CONSOLE_SECRET_KEY": secrets.token_urlsafe(50),
        "CONSOLE_MASTER_KEYS": f"tests:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        "DATABASE_URL": _sqlite(root),
        SHARED: str(root),
    }
    if backend == "postgres":
        found["DATABASE_URL"] = _started.enter_context(servers.postgres())
        found["REDIS_URL"] = _started.enter_context(servers.valkey())
    return found


def _directory() -> Path:
    root = Path(tempfile.mkdtemp(prefix="console-tests-"))
    _started.callback(shutil.rmtree, root, ignore_errors=True)
    (root / "data").mkdir(mode=0o700)
    return root


def _sqlite(root: Path) -> str:
    return f"sqlite:///{root / 'data' / 'console.sqlite3'}"
