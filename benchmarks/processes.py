"""Starting what is measured, each in its place, and reading what it costs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.failure import BenchmarkFailed
from tests.servers import free_port, log_tail

ROOT = Path(__file__).resolve().parent.parent
#: As in docker-compose.yml and console/embedded.py.
GRANIAN = [
    "-m", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--workers", "1", "--loop", "uvloop", "--no-ws",
    "--log-level", "warning", "--workers-kill-timeout", "10", "--backpressure", "10000",
]  # fmt: skip
_READY_S = 60
_STOP_S = 20


def cores() -> tuple[set[int], set[int]] | None:
    """``(the server's, everybody else's)``, or None where processes cannot be pinned or there is one core only."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    found = sorted(os.sched_getaffinity(0))
    return ({found[0]}, set(found[1:])) if len(found) > 1 else None


class Started:
    """A process with all that it started. ``cpu`` is in seconds, memory in bytes."""

    def __init__(self, popen: subprocess.Popen[bytes], name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self.popen = popen
        self._process = psutil.Process(popen.pid)

    def family(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]

    def cpu(self) -> float:
        total = 0.0
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def rss(self) -> int:
        """Resident bytes of all of them; pages that they share are counted once for each."""
        total = 0
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total

    def must_live(self) -> None:
        if self.popen.poll() is not None:
            raise BenchmarkFailed(
                f"{self.name} ended with status {self.popen.returncode}:\n{log_tail(self.log)}"
            )

    def stop(self) -> int:
        """SIGTERM, and SIGKILL for whatever is still there later; the exit status."""
        if self.popen.poll() is not None:
            return self.popen.returncode
        others = self.family()[1:]
        self.popen.terminate()
        try:
            self.popen.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
        _, alive = psutil.wait_procs(others, 1)
        for process in alive:
            process.kill()
        return self.popen.wait()


class Stage:
    """A directory and the processes of one benchmark; all of them end with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[Started] = []

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        on: set[int] | None = None,
        program: str | Path = sys.executable,
    ) -> Started:
        """Run ``python COMMAND`` (or another ``program``), on the cores ``on`` if given."""
        log = self.directory / f"{name}.log"
        with log.open("ab") as output, _kept_to(on):
            popen = subprocess.Popen(
                [str(program), *map(str, command)],
                cwd=ROOT,
                env=env or plain_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started = Started(popen, name, log)
        self.started.append(started)
        return started

    def serve(
        self,
        name: str,
        application: str,
        *,
        ready: str = "",
        env: Mapping[str, str] | None = None,
        on: set[int] | None = None,
    ) -> tuple[Started, int]:
        """An ASGI application in granian, and its port, once it answers (``ready``: a path that must answer 200)."""
        port = free_port()
        started = self.start(name, [*GRANIAN, "--port", str(port), application], env=env, on=on)
        wait_for(started, f"http://127.0.0.1:{port}{ready}", any_status=not ready)
        return started, port

    def run(self, command: Sequence[str], *, env: Mapping[str, str], stdin: str | None = None) -> str:
        """Run ``python COMMAND`` to its end and return what it printed."""
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=dict(env),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchmarkFailed(
                f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done.stdout


@contextlib.contextmanager
def _kept_to(cores: set[int] | None) -> Iterator[None]:
    """What is started within runs on these cores: children inherit it with all their threads."""
    if cores is None:
        yield
        return
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, usual)


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="console-bench-") as directory:
        found = Stage(Path(directory))
        try:
            yield found
        finally:
            for started in reversed(found.started):
                started.stop()


def plain_environment() -> dict[str, str]:
    """This environment without anything that configures an installation."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("CONSOLE_")
        and name not in ("DATABASE_URL", "REDIS_URL", "OPENAI_API_KEY", "PORT")
    }


def wait_for(started: Started, url: str, *, any_status: bool = False, within: float = _READY_S) -> None:
    """Until GET ``url`` answers 200 (or anything); ``within`` is in seconds."""
    deadline = time.monotonic() + within
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError as answer:
            if any_status:
                return
            last = f"{answer.code} {answer.read(300).decode(errors='replace')}"
        except OSError as problem:
            last = str(problem)
        started.must_live()
        if time.monotonic() > deadline:
            raise BenchmarkFailed(
                f"{started.name} was not ready within {within:g} s (last: {last}):\n{log_tail(started.log)}"
            )
        time.sleep(0.05)
