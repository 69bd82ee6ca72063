"""A whole installation for tests that start, kill and restart real processes.

Its database is a copy of one that was migrated once a session, its data directory is its own, and every process that
was spawned in it is dead when the fixture ends.
"""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest

from llmops.usage import journal
from llmops.usage.records import decode
from tests import launcher, servers, templates
from tests.templates import Template

ROOT = Path(__file__).resolve().parent.parent
_redis_databases = itertools.cycle(range(1, 16))
_living: list[Installation] = []


class Process:
    """A process of an installation, the leader of a group of its own; what it prints goes to the file ``log``."""

    def __init__(
        self, command: Sequence[str], *, name: str, log: Path, env: Mapping[str, str], anew: bool = False
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._started = launcher.start(command, cwd=ROOT, env=env, stdout=output, anew=anew)
        self.pid = self._started.pid
        self._killed = False

    @property
    def returncode(self) -> int | None:
        """The exit status, ``-9`` after a kill, or None while it runs."""
        return self._started.poll()

    def log_tail(self, lines: int = 60) -> str:
        return servers.log_tail(self.log, lines)

    def kill(self) -> None:
        """``kill -9`` of the process and of everything it started; returns when they are gone."""
        if self._killed:
            return
        family: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.pid).children(recursive=True)
        with suppress(ProcessLookupError):
            # The group outlives its leader as long as one member lives.
            os.killpg(self.pid, signal.SIGKILL)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        # One that has only just begun may have no group of its own yet.
        with suppress(ProcessLookupError):
            self._started.kill()
        self._started.wait(60)
        deadline = time.monotonic() + 60
        while any(_lives(member) for member in family):
            if time.monotonic() > deadline:
                pytest.fail(f"{self.name} left processes that survive SIGKILL: {family}", pytrace=False)
            time.sleep(0.01)
        self._killed = True

    def send_signal(self, number: int) -> None:
        self._started.send_signal(number)

    def stop(self, timeout: float = 60) -> int:
        """SIGTERM; returns the exit status, and fails the test if the process is still there after ``timeout`` s."""
        self._started.terminate()
        return self.wait(timeout)

    def wait(self, timeout: float = 60) -> int:
        """Wait for the process to end by itself; returns its exit status."""
        try:
            return self._started.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(
                f"{self.name} still runs after {timeout} s. Its log ends:\n{self.log_tail()}", pytrace=False
            )


def _lives(process: psutil.Process) -> bool:
    # A zombie is dead; only nobody has asked for its status.
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Installation:
    """``env`` is the environment of every process in it; change it before spawning to configure more."""

    def __init__(self, *, home: Path, database_url: str, redis_url: str | None) -> None:
        self.home = home
        self.data_dir = home / "data"
        self.data_dir.mkdir(parents=True, mode=0o700)
        self.database_url = database_url
        self.env = _environment(data_dir=self.data_dir, database_url=database_url, redis_url=redis_url)
        self.processes: list[Process] = []

    free_port = staticmethod(servers.free_port)

    def spawn(
        self,
        command: Sequence[str | Path],
        *,
        name: str | None = None,
        env: Mapping[str, object] | None = None,
    ) -> Process:
        """Start ``command`` in the background. Its first word may be python, manage.py, granian or celery."""
        words = _through_this_python([str(word) for word in command])
        name = f"{name or Path(str(command[0])).name}-{len(self.processes) + 1}"
        given = self.env | _serves_no_pages(command) | _text(env)
        process = Process(words, name=name, log=self.home / f"{name}.log", env=given)
        self.processes.append(process)
        return process

    def manage(
        self,
        *arguments: str,
        check: bool = True,
        stdin: str | None = None,
        env: Mapping[str, object] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a management command to its end; fails the test when it does, unless ``check`` is False.

        It loads no pages, which would take longer than what most commands do: ``env={"CONSOLE_BACKGROUND": ""}`` has it load them.
        """
        words = ["manage.py", *arguments]
        given = self.env | _serves_no_pages(words) | _text(env)
        done = launcher.run(_through_this_python(words), env=given, stdin=stdin)
        if check and done.returncode != 0:
            pytest.fail(
                f"manage.py {' '.join(arguments)} ended with status {done.returncode}:\n{done.stdout}{done.stderr}",
                pytrace=False,
            )
        return done

    def wait_ready(self, url: str, process: Process | None = None, *, timeout: float = 180) -> None:
        """Wait until GET ``url`` answers 200; fails at once when ``process`` (or any, if not given) has ended."""
        watched = [process] if process else self.processes
        deadline = time.monotonic() + timeout
        while True:
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return
            except urllib.error.HTTPError as answer:
                last = f"{answer.code}: {answer.read(500).decode(errors='replace')}"
            except OSError as problem:
                last = str(problem)
            for one in watched:
                if one.returncode is not None:
                    pytest.fail(
                        f"{one.name} ended with status {one.returncode} before {url} answered:\n{one.log_tail()}",
                        pytrace=False,
                    )
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {one.name}\n{one.log_tail()}" for one in watched)
                pytest.fail(f"{url} does not answer after {timeout} s (last: {last})\n{logs}", pytrace=False)
            time.sleep(0.05)

    def start_booking(self) -> None:
        """Start an ingester, for ``wait_booked``: a command for each look would start a process each time."""
        self.spawn(["manage.py", "ingest"])

    def wait_booked(self, timeout: float = 180) -> None:
        """Wait until the ledger holds all that stands in the journals now."""
        written = self._written()
        deadline = time.monotonic() + timeout
        with self.reader() as rows:
            while True:
                booked = {
                    UUID(str(name)): upto for name, upto in rows("SELECT id, sequence FROM usage_journal")
                }
                behind = {name: upto for name, upto in written.items() if booked.get(name, 0) < upto}
                if not behind:
                    return
                if time.monotonic() > deadline:
                    logs = "\n".join(f"--- {one.name}\n{one.log_tail()}" for one in self.processes)
                    pytest.fail(
                        f"not booked after {timeout} s: {behind}, but {booked}\n{logs}", pytrace=False
                    )
                time.sleep(0.05)

    def _written(self) -> dict[UUID, int]:
        """The number of the last whole record of each journal."""
        directory = self.data_dir / "journal"
        last: dict[UUID, int] = {}
        for name, segments in journal.found(directory).items():
            for number in segments:
                # Whoever books may remove it meanwhile.
                with suppress(FileNotFoundError):
                    text = journal.segment_path(directory, name, number).read_bytes()
                    whole = text[: text.rfind(b"\n") + 1].splitlines()
                    last[name] = max(last.get(name, 0), decode(whole[-1]).n if whole else 0)
        return last

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a SELECT answers, over a connection of its own to this installation's database."""
        with self.reader() as rows:
            return rows(query)

    @contextmanager
    def reader(self) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
        """``rows`` over one connection, for whoever looks again and again: each answer is of its moment."""
        connection: Any
        if self.database_url.startswith("sqlite"):
            path = self.database_url.removeprefix("sqlite:///")
            connection = sqlite3.connect(path, timeout=20, isolation_level=None)
        else:
            import psycopg

            connection = psycopg.connect(self.database_url, autocommit=True)
        with closing(connection):
            yield lambda query: connection.execute(query).fetchall()


def living_installations() -> list[Installation]:
    return list(_living)


@contextmanager
def an_installation(template: Template, home: Path) -> Iterator[Installation]:
    """An installation in the empty directory ``home``, for fixtures of any scope."""
    with template.copy(home) as database_url:
        found = Installation(home=home, database_url=database_url, redis_url=_own_redis())
        _living.append(found)
        try:
            yield found
        finally:
            _living.remove(found)
            for process in found.processes:
                process.kill()


@pytest.fixture
def installation(installation_template: Template, tmp_path: Path) -> Iterator[Installation]:
    """A migrated installation of this test alone; nothing runs in it yet."""
    with an_installation(installation_template, tmp_path / "installation") as found:
        yield found


@pytest.fixture(scope="module")
def module_installation(
    installation_template: Template, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """The same for all tests of a module, where starting processes anew for each would take too long."""
    with an_installation(installation_template, tmp_path_factory.mktemp("installation") / "home") as found:
        yield found


@pytest.fixture(scope="session")
def installation_template() -> Template:
    """Migrated once a run and engine; whoever asks first may have to wait for it."""
    return templates.finished()


def _own_redis() -> str | None:
    """One of the numbered databases beside the tests' own (0), emptied; more than 15 at a time would share."""
    if not (url := os.environ.get("REDIS_URL")):
        return None
    import redis

    url = templates.with_database(url, str(next(_redis_databases)))
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


def _environment(*, data_dir: Path, database_url: str, redis_url: str | None) -> dict[str, str]:
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CONSOLE_TEST_"))
    }
    env |= {
        "CONSOLE_DATA_DIR": str(data_dir),
        "DATABASE_URL": database_url,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(ROOT),
    }
    env.pop("REDIS_URL", None)
    return env | ({"REDIS_URL": redis_url} if redis_url else {})


def _text(env: Mapping[str, object] | None) -> dict[str, str]:
    return {name: str(value) for name, value in (env or {}).items()}


def _serves_no_pages(command: Sequence[str | Path]) -> dict[str, str]:
    """What operations tell an ingester and a worker of; a data plane knows it by itself."""
    return {"CONSOLE_BACKGROUND": "1"} if str(command[0]) in ("manage.py", "celery") else {}


def _through_this_python(words: list[str]) -> list[str]:
    """The same command through the interpreter of the tests: scripts of a venv name the path it was made at."""
    match words[0]:
        case "python":
            return [sys.executable, *words[1:]]
        case "manage.py":
            return [sys.executable, *words]
        case "granian" | "celery":
            return [sys.executable, "-m", *words]
        case _:
            return words
