"""The installations that other tests kill and restart: migrated, apart from each other, and gone without trace."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.installation import ROOT, Installation, Template, an_installation

_SERVER = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("the child is", child.pid, flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def _alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_it_is_migrated_and_commands_work_in_it(installation: Installation) -> None:
    assert installation.rows("SELECT sequence FROM audit_chain_head") == [(0,)]
    plan = installation.manage("showmigrations", "--plan").stdout
    assert "[X]  audit." in plan and "[ ]" not in plan


def test_two_installations_share_nothing(
    installation: Installation, installation_template: Template, tmp_path: Path
) -> None:
    with an_installation(installation_template, tmp_path / "other") as other:
        insert = "INSERT INTO base_live_version (name, number) VALUES ('mine', 1)"
        installation.manage(
            "shell", "-c", f"from django.db import connection; connection.cursor().execute({insert!r})"
        )
        assert installation.rows("SELECT name FROM base_live_version WHERE name = 'mine'") == [("mine",)]
        assert other.rows("SELECT name FROM base_live_version WHERE name = 'mine'") == []
        assert installation.data_dir != other.data_dir
        if installation.env.get("REDIS_URL"):
            assert installation.env["REDIS_URL"] != other.env["REDIS_URL"] != os.environ["REDIS_URL"]
        url = other.database_url
    if url.startswith("sqlite"):
        assert not Path(url.removeprefix("sqlite:///")).exists()
    else:
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(url)


@pytest.mark.any_engine
def test_a_failing_command_shows_what_it_printed(installation: Installation) -> None:
    with pytest.raises(pytest.fail.Exception, match="no_such_command"):
        installation.manage("no_such_command")
    assert installation.manage("no_such_command", check=False).returncode == 1


@pytest.mark.any_engine
def test_a_kill_takes_the_children_too_and_a_restart_gets_the_port(installation: Installation) -> None:
    port = installation.free_port()
    for _ in range(2):
        server = installation.spawn(["python", "-c", _SERVER, port])
        installation.wait_ready(f"http://127.0.0.1:{port}/", server)
        child = int(server.log_tail().split("the child is ")[1].split()[0])
        assert _alive(server.pid) and _alive(child)
        server.kill()
        assert not _alive(server.pid) and not _alive(child)
        assert server.returncode == -signal.SIGKILL


@pytest.mark.any_engine
def test_a_killed_leader_does_not_hide_its_children(installation: Installation) -> None:
    server = installation.spawn(["python", "-c", _SERVER, port := installation.free_port()])
    installation.wait_ready(f"http://127.0.0.1:{port}/")
    child = int(server.log_tail().split("the child is ")[1].split()[0])
    os.kill(server.pid, signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL
    assert _alive(child)
    server.kill()
    psutil.wait_procs([psutil.Process(child)] if _alive(child) else [], timeout=10)
    assert not _alive(child)


@pytest.mark.any_engine
def test_the_end_of_the_fixture_ends_what_runs(installation_template: Template, tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="a test that fails"),
        an_installation(installation_template, tmp_path / "home") as found,
    ):
        sleeper = found.spawn(["python", "-c", "import time; time.sleep(600)"])
        assert sleeper.returncode is None
        raise RuntimeError("a test that fails")
    assert not _alive(sleeper.pid)


@pytest.mark.any_engine
def test_waiting_for_a_process_that_died_fails_with_its_log(installation: Installation) -> None:
    broken = installation.spawn(["python", "-c", "raise SystemExit('the reason it died')"], name="broken")
    with pytest.raises(pytest.fail.Exception, match=r"(?s)broken-1 ended with status 1 .*the reason it died"):
        installation.wait_ready(f"http://127.0.0.1:{installation.free_port()}/", broken)


def test_logs_are_shown_when_a_test_fails(installation_template: Template, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    # Its installations are copies of what was migrated for this run, in place of a database that is migrated again.
    (tmp_path / "conftest.py").write_text(
        "from pathlib import Path\nimport pytest\nfrom tests.conftest import *\nfrom tests.templates import of_file\n"
        "@pytest.fixture(scope='session')\n"
        "def installation_template():\n"
        f"    return of_file(Path({installation_template.url.removeprefix('sqlite:///')!r}))\n"
    )
    (tmp_path / "test_it.py").write_text(
        "def test_it(installation):\n"
        "    process = installation.spawn(['python', '-c', 'print(40 + 2, chr(119) * 3)'])\n"
        "    assert process.wait() == 1\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.backends", "--backend", "sqlite", str(tmp_path)],
        env=env | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 1
    assert " log of python-1 " in done.stdout and "42 www" in done.stdout, done.stdout
    assert " 1 failed in " in done.stdout.splitlines()[-1]


def test_sqlite_copies_are_complete(installation: Installation) -> None:
    if installation.database_url.startswith("sqlite"):
        path = installation.database_url.removeprefix("sqlite:///")
        assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    triggers = (
        "SELECT COUNT(*) FROM sqlite_master WHERE type = 'trigger'"
        if installation.database_url.startswith("sqlite")
        else "SELECT COUNT(*) FROM pg_trigger WHERE NOT tgisinternal"
    )
    assert installation.rows(triggers)[0][0] > 0
