"""The launcher: loads packages, then forks for each request on its socket. Run as a script by ``client.py``.

Nothing here is left over in a process that was launched but the modules that are loaded: no file, no handler, no thread.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import tomllib
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
#: What the product loads when it starts and what reads no settings; what these load in turn need not be named.
PACKAGES = (
    "aiohttp.web",
    "asgiref.server",
    "asyncio",
    "celery.app.amqp",
    "celery.app.trace",
    "celery.bin.celery",
    "celery.concurrency.thread",
    "celery.worker.worker",
    "cryptography.hazmat.primitives.ciphers.aead",
    "cryptography.x509",
    "csp.middleware",
    "django.contrib.admin.utils",
    "django.contrib.auth.hashers",
    "django.contrib.auth.password_validation",
    "django.contrib.messages.storage.fallback",
    "django.contrib.postgres.fields",
    "django.contrib.postgres.forms",
    "django.core.cache.backends.redis",
    "django.core.handlers.asgi",
    "django.core.mail",
    "django.core.management.commands.check",
    "django.core.management.commands.migrate",
    "django.core.management.commands.shell",
    "django.core.paginator",
    "django.core.servers.basehttp",
    "django.core.validators",
    "django.db.backends.postgresql.base",
    "django.db.backends.sqlite3.base",
    "django.db.migrations.executor",
    "django.db.models",
    "django.forms",
    "django.template.backends.django",
    "django.template.defaulttags",
    "django.template.loader_tags",
    "django.urls",
    "django.utils.autoreload",
    "django.views.csrf",
    "django.views.debug",
    "django.views.generic",
    "django_filters.filters",
    "environ",
    "granian.cli",
    "granian.server",
    "jinja2.sandbox",
    "jsonschema_rs",
    "jwt",
    "kombu.transport.filesystem",
    "kombu.transport.redis",
    "msgspec.json",
    "multiprocessing.popen_fork",
    "prometheus_client",
    "psutil",
    "redis.asyncio",
    "requests",
    "rest_framework.compat",
    "rest_framework.exceptions",
    "rest_framework.fields",
    "segno",
    "sqlparse",
    "uritemplate",
    "uvloop",
    "webauthn",
    "whitenoise.base",
    "yaml",
    # Pure Python of the product.
    "llmops.simulator.app",
)
#: Of what the product has, the modules of this import contract meet no Django, hence no settings.
CONTRACT = "A request on the data plane meets neither Django nor a database"
#: In place of a kind of product.py: the one process of a run from which launchers are forked, of whatever kind.
NURSERY = "nursery"
KIND_BYTES = 16
_LENGTH = struct.Struct("!I")


class Looked:
    """Notes which variables of the environment are looked at for as long as the block lasts."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __enter__(self) -> Looked:
        self._get = type(os.environ).__getitem__
        names, get = self.names, self._get

        def noting(environ: os._Environ[str], name: str) -> str:
            names.add(name)
            return get(environ, name)

        type(os.environ).__getitem__ = noting  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        type(os.environ).__getitem__ = self._get  # type: ignore[method-assign]


def load() -> None:
    """Load what can be loaded for everybody; a package that is not installed or needs settings after all is left out."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    ours = next(contract["source_modules"] for contract in contracts if contract["name"] == CONTRACT)
    for name in (*PACKAGES, *ours):
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    load_ranks()


def load_ranks() -> None:
    """What most tokens are counted with, which every data plane and simulator would unpack and load for itself."""
    from llmops.core.tokens import ranks

    with tempfile.TemporaryDirectory() as unpacked:
        ranks.use_cache_dir(unpacked)
        ranks.encoding("o200k_base")
    ranks.use_cache_dir(None)
    del os.environ["TIKTOKEN_CACHE_DIR"]


def load_product(kind: str, looked: Looked) -> None:
    """Of a ``kind`` of product.py."""
    from tests.launcher import product

    product.read_settings_of_none(kind)
    with looked:
        product.load(kind)
    product.forget_settings()


def settle() -> None:
    """What is loaded stays: a collection in a launched process need not look through it, nor copy its pages."""
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise RuntimeError("something that the launcher loads beforehand starts a thread")
    gc.collect()
    gc.freeze()


def born(nursery: socket.socket, looked: Looked, here: str = "") -> socket.socket:
    """Fork a launcher for each socket that comes, until nobody can send one; returns it, in each launcher.

    Its kind comes with it, filled up to ``KIND_BYTES``. Launchers of another kind than ``here`` are borne by a nursery of that kind, which is forked from this one.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    nurseries: dict[str, socket.socket] = {}
    while True:
        asked, ends, _, _ = socket.recv_fds(nursery, KIND_BYTES, 1)
        if not asked:
            os._exit(0)
        kind = asked.decode().rstrip()
        if kind != here and kind not in nurseries:
            nurseries[kind], theirs = socket.socketpair()
            if os.fork() == 0:
                for other in (nursery, *nurseries.values()):
                    other.close()
                os.close(ends[0])
                load_product(kind, looked)
                settle()
                return born(theirs, looked, kind)
            theirs.close()
        if kind != here:
            socket.send_fds(nurseries[kind], [asked], ends)
        elif os.fork() == 0:
            for other in (nursery, *nurseries.values()):
                other.close()
            return socket.socket(fileno=ends[0])
        os.close(ends[0])


def serve(control: socket.socket) -> dict[str, Any]:
    """Launch until the other side is gone; returns, in each process that is launched, what it is to be."""
    awake, waker = os.pipe()
    os.set_blocking(waker, False)
    os.set_blocking(awake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    waiting: dict[int, int] = {}
    with selectors.DefaultSelector() as events:
        events.register(control, selectors.EVENT_READ)
        events.register(awake, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in events.select()}
            if awake in ready:
                os.read(awake, 4096)
                reap(waiting)
            if control not in ready:
                continue
            asked = receive(control)
            if asked is None:
                os._exit(0)
            request, (stdin, stdout, stderr, status) = asked
            pid = os.fork()
            if pid:
                waiting[pid] = status
                for end in (stdin, stdout, stderr):
                    os.close(end)
                control.sendall(_LENGTH.pack(pid))
                continue
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number, end in enumerate((stdin, stdout, stderr)):
                os.dup2(end, number)
            control.close()
            for end in (awake, waker, stdin, stdout, stderr, status, *waiting.values()):
                os.close(end)
            return request


def reap(waiting: dict[int, int]) -> None:
    while waiting:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        end = waiting.pop(pid)
        # Broken when nobody waits for it any more.
        with suppress(BrokenPipeError):
            os.write(end, struct.pack("!i", os.waitstatus_to_exitcode(status)))
        os.close(end)


def receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    head, ends, _, _ = socket.recv_fds(control, _LENGTH.size, 4)
    if not head:
        return None
    while len(head) < _LENGTH.size:
        head += control.recv(_LENGTH.size - len(head))
    left = _LENGTH.unpack(head)[0]
    parts = []
    while left:
        parts.append(control.recv(left))
        left -= len(parts[-1])
    return json.loads(b"".join(parts)), ends


def become(request: dict[str, Any], path: list[str]) -> None:
    """What ``python *arguments`` does from here on."""
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    sys.stdin, sys.stdout, sys.stderr = streams()
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    words: list[str] = request["arguments"]
    sys.orig_argv[:] = [sys.executable, *words]
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    search = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *path]
    if words[0] == "-m":
        sys.argv[:] = words[1:]
        sys.path[:] = [str(Path.cwd()), *search]
        runpy._run_module_as_main(words[1])  # type: ignore[attr-defined]
    elif words[0] == "-c":
        sys.argv[:] = ["-c", *words[2:]]
        sys.path[:] = ["", *search]
        exec(compile(words[1], "<string>", "exec"), main.__dict__)
    else:
        sys.argv[:] = words
        script = Path(words[0])
        sys.path[:] = [str(script.absolute().parent), *search]
        main.__dict__["__file__"] = str(script.absolute())
        exec(compile(script.read_bytes(), main.__dict__["__file__"], "exec"), main.__dict__)


def streams() -> tuple[io.TextIOWrapper, io.TextIOWrapper, io.TextIOWrapper]:
    """Of the files 0, 1 and 2, as the interpreter makes them."""
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))

    def output(number: int, old: Any) -> io.TextIOWrapper:
        raw = open(number, "wb", buffering=0 if unbuffered else -1, closefd=False)  # noqa: SIM115
        lines = not unbuffered and (number == 2 or raw.isatty())
        return io.TextIOWrapper(
            raw,  # type: ignore[arg-type]
            encoding=old.encoding,
            errors=old.errors,
            write_through=unbuffered,
            line_buffering=lines,
        )

    stdin = io.TextIOWrapper(
        open(0, "rb", closefd=False),  # noqa: SIM115
        encoding=sys.stdin.encoding,
        errors=sys.stdin.errors,
        write_through=unbuffered,
    )
    return stdin, output(1, sys.stdout), output(2, sys.stderr)


def main() -> tuple[dict[str, Any], list[str]]:
    control = socket.socket(fileno=int(sys.argv[1]))
    kind = sys.argv[2] if len(sys.argv) > 2 else ""
    path = sys.path[1:]
    sys.path[:] = [str(ROOT), *path]
    looked = Looked()
    with looked:
        load()
    from django.conf import settings

    if settings.configured:
        raise RuntimeError("a package that the launcher loads beforehand reads settings")
    if kind and kind != NURSERY:
        load_product(kind, looked)
    settle()
    if kind == NURSERY:
        control = born(control, looked)
    text = json.dumps(sorted(looked.names)).encode()
    control.sendall(_LENGTH.pack(len(text)) + text)
    request = serve(control)
    return request, path


def end(became: Callable[[], None]) -> NoReturn:
    """Ends as the interpreter does, without taking apart what is loaded: that copies all of the launcher's memory."""
    status, interrupted = 0, False
    try:
        became()
    except SystemExit as asked:
        status = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
        if not isinstance(asked.code, int | None):
            print(asked.code, file=sys.stderr)
    except BaseException as raised:
        status = 1
        interrupted = isinstance(raised, KeyboardInterrupt)
        sys.excepthook(type(raised), raised, raised.__traceback__)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    os._exit(status & 0xFF)


if __name__ == "__main__":
    request, path = main()
    end(lambda: become(request, path))
