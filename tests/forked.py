"""``--forks 4``: one process loads and collects all tests, and processes that are forked from it run them.

Loading ten thousand tests takes longer than running a third of them, so it is done once and not by every process, nor for
every backend. A file stays with one process, whose fixtures then serve all of it, and so do files that hand something on
to each other (``handing_on.py``). Each process has directories, a database and a Valkey of its own, for which the settings
are read anew in it: whatever is loaded while tests are collected keeps nothing of them, and connects to nothing.

With ``--backend both`` a process is of one backend. When there is nothing left to do for it, another takes its place that
works for the other backend, so both end at the same time. Of two backends the second one's tests are told by
``nodeid @postgres``.
"""

from __future__ import annotations

import atexit
import importlib
import mmap
import os
import sys
import traceback
import warnings
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import pytest

from console.process import die_with_parent
from tests import backends, handing_on, templates, trying
from tests.loaded_ahead import load_ahead

_SETTINGS = ("settings_celery", "settings_logging", "settings_look", "settings_mail", "settings")


class Forked:
    """The plugin of the process that collects: hands out files in order and takes the reports.

    ``processes`` of each backend is how many are to work for it while there is enough to do for all.
    """

    def __init__(self, config: pytest.Config, processes: dict[str, int]) -> None:
        self.config = config
        self.processes = processes
        self._born = 0
        self._stop = mmap.mmap(-1, 1)
        self._working: dict[Connection, _Worker] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        options = session.config.option
        if options.collectonly or (session.testsfailed and not options.continue_on_collection_errors):
            return None
        first, *_ = self.processes
        files: dict[str, dict[str, list[int]]] = {backend: {} for backend in self.processes}
        for number, item in enumerate(session.items):
            file = handing_on.together(item.nodeid.split("::")[0])
            for backend in item.stash.get(backends.MEETS, (first,)):
                files[backend].setdefault(file, []).append(number)
        left = {backend: deque(parts.values()) for backend, parts in files.items()}
        session.testscollected = sum(len(part) for parts in left.values() for part in parts)
        terminal = session.config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None:
            # Files of several processes end in no order; a line for each would say nothing.
            terminal.showfspath = False
        if session.config.rootpath == templates.ROOT:
            load_ahead()
        try:
            for backend, processes in self.processes.items():
                for _ in range(min(processes, len(left[backend]))):
                    self._fork(session, backend)
            while self._working:
                for connection in wait(list(self._working)):
                    assert isinstance(connection, Connection)
                    self._hear(session, connection, left)
                if session.shouldfail or session.shouldstop:
                    self._stop[0] = 1
        finally:
            self._stop[0] = 1
            for connection, worker in self._working.items():
                connection.close()
                os.waitpid(worker.pid, 0)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        return True

    def _fork(self, session: pytest.Session, backend: str, queue: tuple[int, ...] = ()) -> None:
        name = f"gw{self._born}"
        self._born += 1
        ours, theirs = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        if pid := os.fork():
            theirs.close()
            self._working[ours] = _Worker(name, backend, pid, deque(queue))
            return
        ours.close()
        for other in self._working:
            other.close()
        _Part(session, theirs, self._stop, name, backend, queue).run()

    def _hear(
        self, session: pytest.Session, connection: Connection, left: dict[str, deque[list[int]]]
    ) -> None:
        worker = self._working[connection]
        try:
            what, *about = connection.recv()
        except (EOFError, ConnectionResetError):
            del self._working[connection]
            status = os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])
            if not worker.ended:
                self._mourn(session, worker, status)
            elif not self._stop[0] and any(left.values()):
                self._fork(session, max(left, key=lambda backend: len(left[backend])))
            return
        if what == "wants":
            mine = left[worker.backend]
            part = mine.popleft() if mine and not self._stop[0] else []
            worker.queue.extend(part)
            with suppress(BrokenPipeError):
                connection.send(part)
        elif what == "said":
            for one in about[0]:
                self._pass_on(worker, *one)
        else:
            worker.ended = True
            if about[0]:
                raise RuntimeError(f"{worker.name}: {about[0]}")

    def _pass_on(self, worker: _Worker, what: str, *about: Any) -> None:
        hook = self.config.hook
        if what == "report":
            report = hook.pytest_report_from_serializable(config=self.config, data=about[0])
            report.nodeid, report.location = self._told(worker.backend, report.nodeid, report.location)
            report.node = SimpleNamespace(
                gateway=SimpleNamespace(id=worker.name), _workerinfocache=f"[{worker.name}]"
            )
            hook.pytest_runtest_logreport(report=report)
        elif what == "starts":
            nodeid, location = self._told(worker.backend, *about)
            hook.pytest_runtest_logstart(nodeid=nodeid, location=location)
        elif what == "finishes":
            worker.queue.popleft()
            nodeid, location = self._told(worker.backend, *about)
            hook.pytest_runtest_logfinish(nodeid=nodeid, location=location)
        else:
            text, category, filename, lineno, when, nodeid, location = about
            hook.pytest_warning_recorded.call_historic(
                kwargs={
                    "warning_message": warnings.WarningMessage(text, category, filename, lineno),
                    "when": when,
                    "nodeid": nodeid,
                    "location": location,
                }
            )

    def _mourn(self, session: pytest.Session, worker: _Worker, status: int) -> None:
        """A process that is gone failed the test it was at; another goes on with what it had been given."""
        said = f"{worker.name} ended with status {status}"
        if not worker.queue:
            raise RuntimeError(said)
        item = session.items[worker.queue.popleft()]
        nodeid, location = self._told(worker.backend, item.nodeid, item.location)
        self.config.hook.pytest_runtest_logreport(
            report=pytest.TestReport(nodeid, location, {}, "failed", said, "call")
        )
        if not self._stop[0]:
            self._fork(session, worker.backend, tuple(worker.queue))

    def _told(
        self, backend: str, nodeid: str, location: tuple[str, int | None, str]
    ) -> tuple[str, tuple[str, int | None, str]]:
        """How a test is named, which may have run on both backends."""
        if backend == next(iter(self.processes)):
            return nodeid, location
        file, line, domain = location
        return f"{nodeid} @{backend}", (file, line, f"{domain} @{backend}")


class _Worker:
    def __init__(self, name: str, backend: str, pid: int, queue: deque[int]) -> None:
        self.name = name
        self.backend = backend
        self.pid = pid
        #: The numbers of the tests that it has been given and has not finished; the first is the one it is at.
        self.queue = queue
        self.ended = False


class _Part:
    """The plugin of a process that runs tests: asks for files, and reports."""

    def __init__(
        self,
        session: pytest.Session,
        connection: Connection,
        stop: mmap.mmap,
        name: str,
        backend: str,
        queue: tuple[int, ...],
    ) -> None:
        self.session = session
        self.config = session.config
        self.name = name
        self.backend = backend
        self._connection = connection
        self._stop = stop
        self._queue = deque(queue)
        self._registered = False
        #: Sent with the end of each test: the other side would wake up, and keep a core from a test, for every line.
        self._said: list[tuple[Any, ...]] = []

    def run(self) -> NoReturn:
        wrong = ""
        try:
            self._become_itself()
            items = self._items()
            item = next(items, None)
            while item is not None:
                # What follows is known before a test ends, so that fixtures know whether they are needed again.
                following = next(items, None)
                self._said.append(("starts", item.nodeid, item.location))
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                self._said.append(("finishes", item.nodeid, item.location))
                self._tell()
                item = following
                if self._stop[0] or self.session.shouldfail or self.session.shouldstop:
                    break
        except (KeyboardInterrupt, EOFError, BrokenPipeError, ConnectionResetError):
            pass
        except BaseException:
            wrong = traceback.format_exc()
        try:
            self.session._setupstate.teardown_exact(None)
            backends.end_servers()
            atexit._run_exitfuncs()
        except BaseException:
            wrong = wrong or traceback.format_exc()
        with suppress(OSError):
            self._tell()
            self._connection.send(("ended", wrong))
        # Whatever else this process was to do at its end is that of the one it was forked from.
        os._exit(0)

    def _tell(self) -> None:
        said, self._said = self._said, []
        self._connection.send(("said", said))

    def _items(self) -> Iterator[pytest.Item]:
        while True:
            if not self._queue:
                self._connection.send(("wants",))
                self._queue.extend(self._connection.recv())
            if not self._queue:
                return
            yield self.session.items[self._queue.popleft()]

    def _become_itself(self) -> None:
        die_with_parent()
        atexit._clear()
        weakref.finalize._registry.clear()  # type: ignore[attr-defined]
        weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
        manager = self.config.pluginmanager
        if (terminal := manager.getplugin("terminalreporter")) is not None:
            manager.unregister(terminal)
        capture: Any = manager.getplugin("capturemanager")
        if capture.is_globally_capturing():
            # Into files of its own.
            capture.stop_global_capturing()
            capture.start_global_capturing()
            capture.suspend_global_capture()
        manager.register(self, "forked-part")
        # Being told of all warnings so far, which have been shown, is part of being registered.
        self._registered = True
        directories: Any = self.config._tmp_path_factory  # type: ignore[attr-defined]
        directories._basetemp = directories.getbasetemp() / self.name
        directories._basetemp.mkdir(mode=0o700)
        # Where pytest-django looks for the name of this process's database.
        self.config.workerinput = {"workerid": self.name}  # type: ignore[attr-defined]
        backends.become_worker(self.name, self.backend)
        trying.share_out(self.backend)
        _read_settings_anew()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self._said.append(("report", data))

    def pytest_warning_recorded(
        self,
        warning_message: warnings.WarningMessage,
        when: str,
        nodeid: str,
        location: tuple[str, int, str] | None,
    ) -> None:
        if not self._registered:
            return
        about = (warning_message.category, warning_message.filename, warning_message.lineno)
        self._said.append(("warns", str(warning_message.message), *about, when, nodeid, location))


def _read_settings_anew() -> None:
    from django.conf import settings
    from django.core.cache import caches
    from django.db import connections

    before = _named(sys.modules["console.settings"])
    for name in _SETTINGS:
        module = sys.modules[f"console.{name}"]
        # What another backend does not set would stay.
        for left_over in _named(module):
            delattr(module, left_over)
        importlib.reload(module)
    now = _named(sys.modules["console.settings"])
    for name in before.keys() - now.keys():
        delattr(settings, name)
    for name, value in now.items():
        if name not in before or before[name] != value:
            setattr(settings, name, value)
    # None has connected to anything, but each knows to what it would.
    for handler in (connections, caches):
        for alias in list(handler.settings):
            with suppress(AttributeError):
                del handler[alias]
        handler._settings = None  # type: ignore[attr-defined]
        vars(handler).pop("settings", None)
        # Looking fills in what the settings leave out.
        assert handler.settings
    if (celery := sys.modules.get("console.celery")) is not None:
        celery.app.config_from_object("django.conf:settings", namespace="CELERY", force=True)
        celery._make_broker_directories()


def _named(module: ModuleType) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name.isupper()}
