"""The side of the tests: decides how a command is started, and has what ``subprocess.Popen`` has for a process."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from tests.launcher import product, server

SERVER = Path(__file__).with_name("server.py")
ROOT = SERVER.parents[2]
#: How Python itself is to behave, which is settled before the launcher could change it for one process.
_INTERPRETER = ("PYTHON", "LC_", "LANG", "MALLOC_", "LD_")
#: What a launched process sees to itself; where ranks are found, whoever counts tokens sets anew, in the process of the tests too.
_HONOURED = ("PYTHONPATH", "PYTHONUNBUFFERED", "TIKTOKEN_CACHE_DIR")
#: What is said to an installation.
_PRODUCT = ("CONSOLE_", "DATABASE_", "REDIS_", "DJANGO_", "GRANIAN_", "CELERY_", "PYTEST_", "PYTHONPATH")
_LENGTH = struct.Struct("!I")
_lock = threading.Lock()
#: By what they have loaded: a kind of product.py, or nothing.
_launchers: dict[str, _Launcher] = {}
_nursery: _Nursery | None = None


class Started(Protocol):
    """Of ``subprocess.Popen``, what tests use of a process whose streams are files."""

    pid: int

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class Launched:
    """A process that the launcher forked; ``args`` is the command, for messages."""

    def __init__(self, args: Sequence[str], pid: int, status: int) -> None:
        self.args = args
        self.pid = pid
        self.returncode: int | None = None
        self._status = status
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """The exit status, ``-9`` after a kill, or None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Raises ``subprocess.TimeoutExpired`` when it still runs after ``timeout`` s."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self._look(1 if deadline is None else deadline - time.monotonic())) is None:
            if deadline is not None and timeout is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(list(self.args), timeout)
        return status

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, patience: float) -> int | None:
        with self._lock:
            if self.returncode is None:
                looking = select.poll()
                looking.register(self._status, select.POLLIN)
                if looking.poll(max(0, patience) * 1000):
                    text = os.read(self._status, 4)
                    if len(text) < 4:
                        raise RuntimeError(
                            f"the launcher is gone, and what became of {self.args} is not known"
                        )
                    self.returncode = struct.unpack("!i", text)[0]
                    os.close(self._status)
            return self.returncode


class _Nursery:
    """A process that has loaded what launchers load, and forks one when asked. It ends when nobody can ask any more."""

    def __init__(self) -> None:
        self.env = _plain()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = _load(theirs, self.env, server.NURSERY)

    def bear(self, control: socket.socket, kind: str) -> None:
        """May be asked by several processes at once."""
        socket.send_fds(self._control, [kind.encode().ljust(server.KIND_BYTES)], [control.fileno()])


class _Launcher:
    def __init__(self, kind: str) -> None:
        self._control, theirs = socket.socketpair()
        self.pid = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        with theirs:
            if _nursery is None:
                self.env = _plain()
                self._process = _load(theirs, self.env, *filter(None, [kind]))
            else:
                self.env = _nursery.env
                _nursery.bear(theirs, kind)
        head = self._receive(_LENGTH.size)
        self._looked: list[str] = json.loads(self._receive(_LENGTH.unpack(head)[0]))
        atexit.register(self.close)

    def suits(self, env: Mapping[str, str]) -> bool:
        """Whether a process with this environment would have loaded just the same."""
        names = {name for name in (*env, *self.env) if name.startswith(_INTERPRETER)}.union(self._looked)
        return all(env.get(name) == self.env.get(name) for name in names.difference(_HONOURED))

    def launch(
        self, words: Sequence[str], *, cwd: str, env: Mapping[str, str], streams: Sequence[int]
    ) -> Launched:
        request = json.dumps({"arguments": words[1:], "cwd": cwd, "env": dict(env)}).encode()
        status, theirs = os.pipe()
        try:
            socket.send_fds(self._control, [_LENGTH.pack(len(request))], [*streams, theirs])
        finally:
            os.close(theirs)
        self._control.sendall(request)
        return Launched(words, _LENGTH.unpack(self._receive(_LENGTH.size))[0], status)

    def close(self) -> None:
        self._control.close()
        if self.pid == os.getpid() and self._process is not None:
            self._process.wait(10)

    def _receive(self, length: int) -> bytes:
        found = b""
        while len(found) < length:
            part = self._control.recv(length - len(found))
            if not part:
                raise RuntimeError("the launcher has ended")
            found += part
        return found


def _plain() -> dict[str, str]:
    # What is loaded beforehand must not depend on what one installation is told and another is not.
    return {name: value for name, value in os.environ.items() if not name.startswith(_PRODUCT)}


def _load(control: socket.socket, env: Mapping[str, str], *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(SERVER), str(control.fileno()), *words],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        pass_fds=(control.fileno(),),
        # Ctrl-C is for the tests.
        start_new_session=True,
    )


def prepare() -> None:
    """Have loaded, while this process does something else, what the launchers of those forked from it are to load."""
    global _nursery
    if sys.platform == "linux" and _nursery is None:
        _nursery = _Nursery()


def start(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: int | IO[Any] = subprocess.DEVNULL,
    stdout: int | IO[Any] = subprocess.DEVNULL,
    stderr: int | IO[Any] = subprocess.STDOUT,
    anew: bool = False,
) -> Started:
    """``subprocess.Popen`` of a command in a session of its own. The streams are files; there are no pipes.

    ``anew`` has it loaded from nothing, for whoever tests how the product starts.
    """
    words = [str(word) for word in command]
    with _lock:
        launcher = None if anew else _suitable(words, env)
        if launcher is None:
            return subprocess.Popen(
                words,
                cwd=cwd,
                env=dict(env),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            numbers: list[int] = []
            for stream in (stdin, stdout, stderr):
                if stream == subprocess.DEVNULL:
                    numbers.append(nothing)
                elif stream == subprocess.STDOUT:
                    numbers.append(numbers[1])
                else:
                    numbers.append(stream if isinstance(stream, int) else stream.fileno())
            return launcher.launch(words, cwd=str(cwd), env=env, streams=numbers)
        finally:
            os.close(nothing)


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float = 300,
    anew: bool = False,
) -> subprocess.CompletedProcess[str]:
    """``subprocess.run(..., input=stdin, capture_output=True, text=True)``."""
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        given.write((stdin or "").encode())
        given.seek(0)
        process = start(
            command,
            cwd=cwd,
            env=os.environ if env is None else env,
            stdin=subprocess.DEVNULL if stdin is None else given,
            stdout=stdout,
            stderr=stderr,
            anew=anew,
        )
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
            if process.returncode is None:
                process.wait(10)
        printed = []
        for stream in (stdout, stderr):
            stream.seek(0)
            printed.append(stream.read().decode())
    return subprocess.CompletedProcess([str(word) for word in command], status, *printed)


def _suitable(words: Sequence[str], env: Mapping[str, str]) -> _Launcher | None:
    """The launcher of its kind, started when first asked for; None when this has to be a start of its own."""
    if sys.platform != "linux" or words[0] != sys.executable or len(words) < 2:
        return None
    if words[1].startswith("-") and words[1] not in ("-c", "-m"):
        return None
    kind = product.kind(words, env)
    launcher = _launchers.get(kind)
    if launcher is None or launcher.pid != os.getpid():
        launcher = _launchers[kind] = _Launcher(kind)
    return launcher if launcher.suits(env) else None
