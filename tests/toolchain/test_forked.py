"""Both halves of the suite at once, and one collected run in several processes: nothing is lost, and red is red."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests import __main__ as halves
from tests import launcher

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("sqlite", "postgres", "status", "last"),
    [
        (0, 0, 0, "postgres ends"),
        (1, 0, 1, "sqlite ends"),
        (0, 2, 2, "postgres ends"),
        (1, 1, 1, "postgres ends"),
    ],
)
def test_the_last_line_is_the_verdict(
    sqlite: int,
    postgres: int,
    status: int,
    last: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pretended = tmp_path / "python"
    pretended.write_text(
        f'#!/bin/sh\necho "$@"\necho "$4 ends"\n[ "$4" = sqlite ] && exit {sqlite}\nexit {postgres}\n'
    )
    pretended.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(pretended))
    assert halves.main(["-k", "a and b"]) == status
    said = capfd.readouterr().out.splitlines()
    asked = "-m pytest --backend {} --forks auto --color=auto -k a and b"
    assert said[:4] == [asked.format("sqlite"), "sqlite ends", asked.format("postgres"), "postgres ends"]
    assert said[-1] == last


_FILES = {
    "conftest.py": """
import os, pytest
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
}


def test_what_several_processes_find_is_what_one_would_say(tmp_path: Path) -> None:
    for name, text in _FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p tests.backends -p no:valkey\n")
    said = tmp_path / "said"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    words = [sys.executable, "-m", "pytest", "--rootdir", str(tmp_path), "-c", str(tmp_path / "pytest.ini")]
    done = launcher.run(
        [*words, "--forks", "2", "-p", "no:cacheprovider", "-p", "no:anyio", str(tmp_path)],
        env=env | {"PYTHONPATH": str(ROOT), "SAID": str(said), "DJANGO_SETTINGS_MODULE": "console.settings"},
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"2 failed, 3 passed, ", done.stdout.splitlines()[-1]), done.stdout
    assert "test_two.py::test_killed" in done.stdout and "ended with status -9" in done.stdout
    assert "assert 1 == 2" in done.stdout and "what it printed" in done.stdout
    assert done.stdout.count("UserWarning: mind the gap") == 1
    # Of the process that was killed nothing could be let go; whoever else made something, and went on for it, let go of it once.
    happened = [line.rsplit(" ", 1) for line in said.read_text().splitlines()]
    made, killed, let_go = (
        sorted(pid for what, pid in happened if what == wanted) for wanted in ("made", "killed", "let go")
    )
    assert len(killed) == 1 and let_go and let_go == sorted({*made} - {*killed})
