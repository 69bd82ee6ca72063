"""Chooses what the suite runs on: ``--backend sqlite`` (the default), ``postgres`` (with Valkey), or ``both``.

Loaded by ``-p tests.backends`` in pyproject.toml, because settings are read before any conftest.py is.
"""

from __future__ import annotations

import atexit
import base64
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from console.process import collect_seldom
from tests import compiled_ahead, launcher, servers, templates
from tests.templates import BACKEND, SHARED, WORKER

# As the product does: what collecting and a test load stays, and looking through it again takes a twentieth of a run.
collect_seldom()

BACKENDS = ("sqlite", "postgres")
BOTH = "both"
#: On a test: those of them that it is to run on.
MEETS = pytest.StashKey[tuple[str, ...]]()
# What a developer's shell may hold and no test may see.
_FOREIGN = ("CONSOLE_", "OPENAI_", "REDIS_URL", "DATABASE_URL", "PORT", "GRANIAN_", "CELERY_")
_started = ExitStack()
#: The URL of the PostgreSQL server, where there is one.
_server = ""
#: What was started by the process that this one was forked from: held, because letting go of it would end it.
_inherited: list[ExitStack] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("console").addoption(
        "--backend",
        choices=(*BACKENDS, BOTH),
        default=os.environ.get(BACKEND) or "sqlite",
        help="run on SQLite, on PostgreSQL and Valkey started for this run, or with --forks on both (CONSOLE_TEST_BACKEND)",
    )
    parser.getgroup("console").addoption(
        "--forks",
        metavar="PROCESSES",
        help="run the tests in so many processes, forked from the one that has collected them; auto: its share of the cores",
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, object, object]:
    known = early_config.known_args_namespace
    if known.backend not in (*BACKENDS, BOTH):
        choices = ", ".join((*BACKENDS, BOTH))
        raise pytest.UsageError(f"CONSOLE_TEST_BACKEND is {known.backend!r}; it is one of {choices}")
    if known.backend == BOTH and known.forks is None:
        raise pytest.UsageError(
            "--backend both takes --forks: a process that runs tests runs them on one backend"
        )
    # However this process ends, short of a kill, the servers are stopped and the files removed.
    atexit.register(_started.close)
    # Another project's tests, as those of this plugin itself, are few.
    ahead = known.forks is not None and not known.collectonly and early_config.rootpath == templates.ROOT
    _begin(chosen(known.backend), ahead=ahead)
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if (asked := config.getoption("forks")) is not None:
        from tests.forked import Forked

        of = chosen(config.getoption("backend"))
        processes = {backend: _share(backend) if asked == "auto" else int(asked) for backend in of}
        config.pluginmanager.register(Forked(config, processes), "forked")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.getoption("forks") is not None:
        compiled_ahead.compile_ahead(session.config, _cores())


def chosen(backend: str) -> tuple[str, ...]:
    return BACKENDS if backend == BOTH else (backend,)


def _share(backend: str) -> int:
    """Of five processes for two cores, because every second test waits. The first half has more to do."""
    return _cores() + (_cores() + 1) // 2 if backend == BACKENDS[0] else _cores()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def become_worker(name: str, backend: str) -> None:
    """In a process that was forked to run tests: directories and a Valkey of its own, and the rest from who forked it."""
    _inherited.append(_started.pop_all())
    atexit.register(_started.close)
    root = _directory()
    os.environ[WORKER] = name
    os.environ[BACKEND] = backend
    os.environ["CONSOLE_DATA_DIR"] = str(root / "data")
    if backend == "postgres":
        os.environ["DATABASE_URL"] = _server
        # Channels span the databases of one Valkey.
        os.environ["REDIS_URL"] = _started.enter_context(servers.valkey())
    else:
        os.environ["DATABASE_URL"] = _sqlite(root)


def end_servers() -> None:
    _started.close()


def pytest_unconfigure() -> None:
    _started.close()


def pytest_report_header(config: pytest.Config) -> str:
    of = chosen(config.getoption("backend"))
    return f"backend: {' and '.join(of)} ({_server or os.environ['DATABASE_URL']})"


def _begin(backends: tuple[str, ...], *, ahead: bool) -> None:
    """Start what the backends need and say so in environment variables, in place of those found.

    Of both, this process has SQLite. ``ahead``: what many tests need is made while this process loads them.
    """
    global _server
    for name in list(os.environ):
        if name.startswith(_FOREIGN):
            del os.environ[name]
    root = _directory()
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "console.settings",
        BACKEND: backends[0],
        "CONSOLE_DATA_DIR": str(root / "data"),
        "CONSOLE_SECRET_KEY": secrets.token_urlsafe(50),
        "CONSOLE_MASTER_KEYS": f"tests:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        "DATABASE_URL": _sqlite(root),
        SHARED: str(root),
    }
    if ahead:
        launcher.prepare()
    for backend in backends:
        if backend == "postgres":
            _server = _started.enter_context(servers.postgres(in_memory=True))
            if len(backends) == 1:
                os.environ["DATABASE_URL"] = _server
                os.environ["REDIS_URL"] = _started.enter_context(servers.valkey())
        if ahead:
            _started.enter_context(_ended(templates.begin(backend, _server)))


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _directory() -> Path:
    root = Path(tempfile.mkdtemp(prefix="console-tests-"))
    _started.callback(shutil.rmtree, root, ignore_errors=True)
    (root / "data").mkdir(mode=0o700)
    return root


def _sqlite(root: Path) -> str:
    return f"sqlite:///{root / 'data' / 'console.sqlite3'}"
