"""What ``./dev`` says to somebody whose machine lacks something, and what ``./dev check`` sees in its own files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.installation import ROOT

_TOOLS = ("sh", "dirname", "cat", "rm", "cp", "cmp", "mkdir", "mktemp", "mv", "grep")


class Machine:
    """A checkout of only what ``./dev`` reads, on a PATH that holds the usual tools and what a test adds."""

    def __init__(self, home: Path) -> None:
        self.checkout, self.bin = home / "checkout", home / "bin"
        self.checkout.mkdir(parents=True)
        self.bin.mkdir()
        for name in (
            "dev",
            "requirements.lock",
            "requirements-otel.lock",
            "requirements-dev.lock",
            "requirements-uv.lock",
            "pyproject.toml",
            "docker-compose.yml",
        ):
            shutil.copy(ROOT / name, self.checkout)
        (self.checkout / "Dockerfile").touch()
        shutil.copytree(ROOT / ".ci", self.checkout / ".ci")
        for tool in _TOOLS:
            self.script(tool, f'exec {shutil.which(tool)} "$@"')

    def script(self, name: str, body: str, *, at: Path | None = None) -> None:
        path = (at or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def dev(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.checkout / "dev", *arguments],
            env={"PATH": str(self.bin)} | env,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def check(self, what: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, self.checkout / ".ci" / "checks.py", what]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_python_it_says_which_one_it_wants(machine: Machine) -> None:
    done = machine.dev("run")
    assert done.returncode == 1
    assert "no Python from 3.11 to 3.14 was found on the PATH (python3 is missing)" in done.stderr
    assert not (machine.checkout / ".venv").exists()


def test_an_old_python_is_named(machine: Machine) -> None:
    machine.script("python3", 'case "$1" in --version) echo Python 3.9.18;; *) exit 1;; esac')
    assert "(python3 is Python 3.9.18)" in machine.dev("run").stderr
    refused = machine.dev("run", PYTHON="python3")
    assert refused.returncode == 1
    assert "PYTHON=python3 is not a Python from 3.11 to 3.14" in refused.stderr


def test_a_newer_python_beside_an_old_one_is_found(machine: Machine) -> None:
    machine.script("python3", "exit 1")
    machine.script("python3.12", f'echo "$@" >> {machine.bin}/asked; [ "$1" = -c ] || exit 1')
    machine.dev("run")
    assert "-m venv --clear .venv" in (machine.bin / "asked").read_text()


def test_a_python_without_venv_names_the_package_and_leaves_nothing(machine: Machine) -> None:
    machine.script(
        "python3", 'if [ "$1" = -m ]; then mkdir .venv; echo ensurepip is not available; exit 1; fi'
    )
    done = machine.dev("run")
    assert done.returncode == 1
    assert "ensurepip is not available" in done.stderr
    assert "Making .venv with python3 (once)" in done.stderr
    assert "apt-get install python3-venv" in done.stderr
    assert list(machine.checkout.glob(".venv*")) == []


def test_an_install_that_fails_is_tried_again_and_one_that_worked_is_not(machine: Machine) -> None:
    venv = machine.checkout / ".venv"
    asked = machine.bin / "asked"
    python = f'case "$*" in *install.py*) echo "$@" >> {asked}; exit $INSTALLED;; esac'
    machine.script("python", python, at=venv / "bin")
    failed = machine.dev("manage", "check", INSTALLED="1")
    assert failed.returncode == 1 and "could not be installed" in failed.stderr
    assert machine.dev("manage", "check", INSTALLED="0").returncode == 0
    assert machine.dev("manage", "check", INSTALLED="1").returncode == 0
    installs = asked.read_text().splitlines()
    assert installs == [".ci/install.py requirements.lock"] * 2
    with (machine.checkout / "requirements.lock").open("a") as lock:
        lock.write("# moved\n")
    assert machine.dev("manage", "check", INSTALLED="1").returncode == 1


def test_an_install_that_takes_long_says_that_it_goes_on(machine: Machine) -> None:
    marker = machine.bin / "told"
    # The first wait is over at once; the second lasts until the install has ended, which it does once the line is there.
    machine.script("sleep", f"[ -e {marker} ] && exec {shutil.which('sleep')} 60; touch {marker}")
    python = (
        f'case "$*" in *install.py*) until [ -e {marker} ]; do :; done; {shutil.which("sleep")} 0.5;; esac'
    )
    machine.script("python", python, at=machine.checkout / ".venv" / "bin")
    machine.script("touch", f'exec {shutil.which("touch")} "$@"')
    done = machine.dev("manage", "check")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[1:] == ["  under way for 5 s"]


def test_the_test_packages_serve_to_run_too(machine: Machine) -> None:
    asked = machine.bin / "asked"
    machine.script("python", f'echo "$@" >> {asked}', at=machine.checkout / ".venv" / "bin")
    assert machine.dev("test", "-k", "a and b").returncode == 0
    assert machine.dev("run", "--flag").returncode == 0
    lines = [line for line in asked.read_text().splitlines() if not line.startswith("-c")]
    assert lines[0] == ".ci/install.py requirements-dev.lock"
    assert lines[1:] == ["-m tests -k a and b", "-m console.embedded --flag"]


def test_half_the_suite_is_one_run_of_pytest(machine: Machine) -> None:
    asked = machine.bin / "asked"
    machine.script("python", f'echo "$@" >> {asked}', at=machine.checkout / ".venv" / "bin")
    assert machine.dev("test", "--backend", "postgres").returncode == 0
    assert asked.read_text().splitlines()[-1] == "-m pytest --backend postgres"


def test_an_unknown_command_shows_those_there_are(machine: Machine) -> None:
    done = machine.dev("strat")
    assert done.returncode == 1
    assert "there is no command 'strat'" in done.stderr and "  run  " in done.stderr


def test_the_tracked_files_pass(machine: Machine) -> None:
    for what in ("lock", "compose"):
        done = machine.check(what)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_dependency_that_is_not_locked_is_noticed(machine: Machine) -> None:
    pyproject = machine.checkout / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('"pyyaml~=6.0",', '"pyyaml~=6.0",\n  "left-pad",'))
    done = machine.check("lock")
    assert done.returncode == 1
    assert "Run ./dev lock" in done.stderr


@pytest.mark.parametrize("line", ["--find-links wheels", "thing @ file:thing.whl", "-e ."])
def test_an_address_in_a_lock_file_is_noticed(machine: Machine, line: str) -> None:
    with (machine.checkout / "requirements.lock").open("a") as lock:
        lock.write(f"{line}\n")
    done = machine.check("lock")
    assert done.returncode == 1
    assert line in done.stderr


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("services:", "servicse:", "'servicse' is not a top-level key"),
        ("migrate: {condition", "migrating: {condition", "depends on migrating, which is not there"),
        (
            '["journal:/journal", "spool:/spool"]',
            '["journals:/journal", "spool:/spool"]',
            "mounts the volume journals, which is not declared",
        ),
        ("name: llmops-console", "name: [llmops-console", "is not YAML"),
    ],
)
def test_a_broken_compose_file_is_noticed(machine: Machine, before: str, after: str, says: str) -> None:
    path = machine.checkout / "docker-compose.yml"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    done = machine.check("compose")
    assert done.returncode == 1
    assert says in done.stderr


def test_the_scripts_are_executable_and_posix() -> None:
    assert os.access(ROOT / "dev", os.X_OK) and os.access(ROOT / ".ci" / "run", os.X_OK)
    for shell, script in (("sh", "dev"), ("bash", ".ci/run")):
        subprocess.run([shell, "-n", ROOT / script], check=True)
