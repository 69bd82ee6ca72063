"""Other people's libraries, installed once for all runs into a cache directory, never into the suite's own environment.

They bring dozens of packages and a pytest plugin with them, which have no business where the product is tested. What is
installed is pinned with hashes (``requirements.lock``, ``node/package-lock.json``); a change of the file makes a new directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
#: An installation that takes longer has failed.
INSTALL_S = 240
_DONE = "complete"


def cache_directory() -> Path:
    """``XDG_CACHE_HOME`` (or ``~/.cache``) ``/llmops-console-compat``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "llmops-console-compat"


def python() -> Path:
    """An interpreter that has the packages of ``requirements.lock``."""

    def make(directory: Path) -> None:
        lock = HERE / "requirements.lock"
        venv = directory / "venv"
        run([sys.executable, "-m", "venv", "--without-pip", str(venv)])
        run([sys.executable, str(ROOT / ".ci" / "install.py"), str(lock), str(venv / "bin" / "python")])

    version = "{}.{}".format(*sys.version_info[:2])
    made = _made(f"python{version}", [HERE / "requirements.lock"], make)
    return made / "venv" / "bin" / "python"


def node_program(name: str) -> list[str]:
    """The command that runs a program of ``node/`` with the packages of its lock file beside it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.fail(
            "node and npm are needed to try the official Node SDK: install Node.js 20 or newer.",
            pytrace=False,
        )
    source = HERE / "node"
    files = [source / "package.json", source / "package-lock.json"]

    def make(directory: Path) -> None:
        for file in files:
            shutil.copy(file, directory)
        run([npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel", "error"], cwd=directory)

    made = _made("node", files, make)
    # A module finds its packages by its own place.
    program = made / name
    program.write_bytes((source / name).read_bytes())
    return [node, str(program)]


def run(command: Sequence[str], *, cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        pytest.fail(
            f"{' '.join(command)} was not done after {INSTALL_S} s: is the network slow?", pytrace=False
        )
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-1_500:]
        pytest.fail(f"{' '.join(command)} ended with status {done.returncode}:\n{said}", pytrace=False)


def _made(name: str, inputs: Sequence[Path], make: Callable[[Path], None]) -> Path:
    """The directory that ``make`` filled, now or in an earlier run; one process at a time makes it."""
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in inputs)).hexdigest()[:12]
    directory = cache_directory() / f"{name}-{digest}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _alone(directory.with_suffix(".lock")):
        if not (directory / _DONE).exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            make(directory)
            (directory / _DONE).touch()
    return directory


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
