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
from typing import Any

import pytest

from console.process import collect_seldom
from tests import compiled_ahead, handing_on, servers

# As the product does: what collecting and a test load stays, and looking through it again takes a twentieth of a run.
collect_seldom()

BACKENDS = ("sqlite", "postgres")
# What a developer's shell may hold and no test may see.
_FOREIGN = ("CONSOLE_", "OPENAI_", "REDIS_URL", "DATABASE_URL", "PORT", "GRANIAN_", "CELERY_")
_FROM_CONTROLLER = "CONSOLE_TEST_POSTGRES"
#: A directory that all processes of a run have in common; the controller makes it.
SHARED = "CONSOLE_TEST_SHARED"
_started = ExitStack()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("console").addoption(
        "--backend",
        choices=BACKENDS,
        default=os.environ.get("CONSOLE_TEST_BACKEND") or "sqlite",
        help="run on SQLite, or on PostgreSQL and Valkey started for this run (CONSOLE_TEST_BACKEND)",
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


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers() -> int:
    """For ``-n auto``: two for each core, because every second test waits for processes, servers or the clock."""
    return 2 * _cores()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For ``--dist loadfile``: a file stays with one process, and so do files that hand something on to each other."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return handing_on.together(super()._split_scope(nodeid))

    return Files(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """In the process that hands out the tests, before the others start."""
    if "PYTEST_XDIST_WORKER" not in os.environ and session.config.getoption("tx", None):
        compiled_ahead.compile_ahead(session.config, _cores())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pytest_unconfigure() -> None:
    _started.close()


def pytest_report_header() -> str:
    return f"backend: {os.environ['CONSOLE_TEST_BACKEND']} ({os.environ['DATABASE_URL']})"


def _environment(backend: str) -> dict[str, str]:
    """Set up what the backend needs and say so in environment variables, in place of those found."""
    worker = "PYTEST_XDIST_WORKER" in os.environ
    postgres = os.environ.get(_FROM_CONTROLLER) if worker else None
    shared = os.environ.get(SHARED) if worker else None
    for name in list(os.environ):
        if name.startswith(_FOREIGN):
            del os.environ[name]
    root = Path(tempfile.mkdtemp(prefix="console-tests-"))
    _started.callback(shutil.rmtree, root, ignore_errors=True)
    found = {
        "DJANGO_SETTINGS_MODULE": "console.settings",
        "CONSOLE_TEST_BACKEND": backend,
        "CONSOLE_DATA_DIR": str(root / "data"),
        "CONSOLE_SECRET_KEY": secrets.token_urlsafe(50),
        "CONSOLE_MASTER_KEYS": f"tests:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        "DATABASE_URL": f"sqlite:///{root / 'data' / 'console.sqlite3'}",
    }
    (root / "data").mkdir(mode=0o700)
    found[SHARED] = shared or str(root)
    if backend == "postgres":
        # One PostgreSQL for all workers, which have a database each; a Valkey each, because channels span its databases.
        found["DATABASE_URL"] = postgres or _started.enter_context(servers.postgres())
        found["REDIS_URL"] = _started.enter_context(servers.valkey())
        found[_FROM_CONTROLLER] = found["DATABASE_URL"]
    return found
