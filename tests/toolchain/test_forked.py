"""Both backends in one run, collected once and run in several processes: nothing is lost, and red is red."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import __main__ as suite
from tests import launcher

ROOT = Path(__file__).parents[2]


def test_the_whole_suite_is_one_run_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(pytest, "main", lambda words: asked.append(words) or 1)
    assert suite.main(["-k", "a and b"]) == 1
    assert asked == [["--backend", "both", "--forks", "auto", "-k", "a and b"]]


_FILES = {
    "conftest.py": """
import os, pytest
from hypothesis import settings
from tests import backends, trying
settings.load_profile(trying.DEFAULT)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name == "test_both.py":
            item.stash[backends.MEETS] = backends.BACKENDS
@pytest.fixture(scope="session")
def lasting():
    print("made", os.getpid(), file=open(os.environ["SAID"], "a"))
    yield os.getpid()
    print("let go", os.getpid(), file=open(os.environ["SAID"], "a"))
""",
    "test_one.py": """
import os, warnings
from django.conf import settings
from django.db import connection
from console.celery import app
PARENT = os.getpid()
def test_apart(lasting):
    assert os.getpid() != PARENT and os.environ["CONSOLE_TEST_WORKER"].startswith("gw")
    own = os.environ["CONSOLE_DATA_DIR"]
    assert str(settings.DATA_DIR) == own and own in connection.settings_dict["NAME"]
    assert os.path.isdir(settings.CELERY_BROKER_TRANSPORT_OPTIONS["data_folder_in"])
    assert app.conf.broker_transport_options["data_folder_in"].startswith(own)
    warnings.warn("mind the gap")
def test_red(lasting):
    print("what it printed")
    assert 1 == 2
""",
    "test_two.py": """
import os, signal
def test_before(lasting): pass
def test_killed():
    print("killed", os.getpid(), file=open(os.environ["SAID"], "a"))
    os.kill(os.getpid(), signal.SIGKILL)
def test_after(lasting): pass
""",
    "test_both.py": """
import os
import psycopg
from django.conf import settings
from django.db import connection
from hypothesis import given, strategies
from console.celery import app
from tests.trying import tries
BACKEND = os.environ["CONSOLE_TEST_BACKEND"]
counted = []
def test_apart():
    assert BACKEND == "sqlite"
    if os.environ["CONSOLE_TEST_BACKEND"] == "sqlite":
        assert connection.vendor == "sqlite" and settings.REDIS_URL == "" and "REDIS_URL" not in os.environ
        assert app.conf.broker_url == "filesystem://" and "data_folder_in" in settings.CELERY_BROKER_TRANSPORT_OPTIONS
    else:
        assert connection.vendor == "postgresql" and settings.REDIS_URL == os.environ["REDIS_URL"] == app.conf.broker_url
        assert not hasattr(settings, "CELERY_BROKER_TRANSPORT_OPTIONS") and settings.CELERY_TASK_ACKS_LATE
        with psycopg.connect(os.environ["DATABASE_URL"]) as server:
            assert server.execute("SELECT 1").fetchone() == (1,)
@tries(100)
@given(strategies.integers())
def test_tries(number): counted.append(number)
def test_tried():
    assert len(counted) == {"sqlite": 20, "postgres": 10}[os.environ["CONSOLE_TEST_BACKEND"]]
def test_red_on_the_second():
    print("on", connection.vendor, file=open(os.environ["SAID"], "a"))
    assert connection.vendor == "sqlite"
""",
}


def run(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    for name, text in _FILES.items():
        (directory / name).write_text(text)
    ini = directory / "pytest.ini"
    ini.write_text("[pytest]\naddopts = -p tests.backends -p no:valkey -ra\n")
    words = ("--backend", "both", "--forks", "2", "-p", "no:cacheprovider", "-p", "no:anyio", *words)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env |= {"PYTHONPATH": str(ROOT), "SAID": str(directory / "said")}
    env |= {"DJANGO_SETTINGS_MODULE": "console.settings"}
    command = [sys.executable, "-m", "pytest", "--rootdir", str(directory), "-c", str(ini), *words]
    return launcher.run([*command, str(directory)], env=env)


def test_what_several_processes_find_is_what_one_would_say(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"3 failed, 10 passed, ", done.stdout.splitlines()[-1]), done.stdout
    assert "test_two.py::test_killed" in done.stdout and "ended with status -9" in done.stdout
    assert "assert 1 == 2" in done.stdout and "what it printed" in done.stdout
    assert "test_both.py::test_red_on_the_second @postgres" in done.stdout
    assert done.stdout.count("UserWarning: mind the gap") == 1
    # Of the process that was killed nothing could be let go; whoever else made something, and went on for it, let go of it once.
    happened = [line.rsplit(" ", 1) for line in (tmp_path / "said").read_text().splitlines()]
    made, killed, let_go, on = (
        sorted(which for what, which in happened if what == wanted)
        for wanted in ("made", "killed", "let go", "on")
    )
    assert len(killed) == 1 and let_go and let_go == sorted({*made} - {*killed})
    assert on == ["postgresql", "sqlite"]


def test_what_is_red_on_one_backend_alone_is_red(tmp_path: Path) -> None:
    done = run(tmp_path, "-k", "second")
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r" 1 failed, 1 passed, 8 deselected", done.stdout.splitlines()[-1]), done.stdout


def test_both_backends_take_processes_of_their_own() -> None:
    done = launcher.run([sys.executable, "-m", "pytest", "--backend", "both", "tests/core/test_money.py"])
    assert done.returncode == pytest.ExitCode.USAGE_ERROR and "--backend both takes --forks" in done.stderr
