"""``./dev run``: the whole console on one machine, with nothing but Python.

Starts and watches four processes (the web server with both planes, the ingester, a Celery worker with beat, and the
simulator as provider) over SQLite and a broker made of files. Imports no Django, so that watching costs little memory.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from console import demo
from console.process import EXIT_REFUSED, EXIT_UNPREPARED, die_with_parent

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN_S = 60
STOP_WITHIN_S = 15
#: Whoever waits is told that it goes on when nothing was said for so long.
TELL_AFTER_S = 5
#: A child that dies sooner than this after its start is given a pause before the next try.
STEADY_AFTER_S = 10
#: A log longer than this is put aside when its process starts.
LOG_BYTES = 10_000_000


class Refusal(Exception):
    """The console cannot start; the text says why and what to do, or is empty where that has been said."""


@dataclass
class Child:
    """One watched process. A ``patient`` one starts when the web server is ready, so as not to slow it down; one with
    ``after_web`` is stopped when the web server has ended, which needs it to finish its calls. ``prepare`` is called, once,
    when the process ends because what it needs is missing."""

    name: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    retry_at: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)
    patient: bool = False
    after_web: bool = False
    prepare: Callable[[], None] | None = None


def main() -> int:
    # Database, journals and logs are nobody else's, wherever the data directory lies.
    os.umask(0o077)
    try:
        return run()
    except Refusal as refusal:
        if str(refusal):
            print(f"Cannot start: {refusal}", file=sys.stderr)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        # Before anything serves there is nothing to stop in order.
        return 128 + signal.SIGINT


def run() -> int:
    data_dir = Path(os.environ.get("CONSOLE_DATA_DIR") or ROOT / "var").absolute()
    try:
        demo.wanted()
    except ValueError as wrong:
        raise Refusal(str(wrong)) from None
    host, port = os.environ.get("HOST", "127.0.0.1"), _port()
    if not data_dir.exists():
        # Nothing is left behind by a start that comes to nothing.
        _refuse_taken(host, port)
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Refusal(
            f"the data directory {data_dir} cannot be made ({error.strerror}). Set CONSOLE_DATA_DIR to a directory "
            "that you can write to."
        ) from None
    with _only_one(data_dir, f"http://{host}:{port}"):
        _refuse_taken(host, port)
        kept = _make_keys(data_dir)
        simulator_port = _simulator_port(data_dir, near=port + 1)
        environment = {**os.environ, **environment_of(data_dir, port, simulator_port)}
        children = children_of(host, port, simulator_port)
        if os.environ.get("DATABASE_URL") or not (kept and (data_dir / "console.sqlite3").exists()):
            _prepare(environment)
        else:
            # It is all there, as a rule. The web server looks, which costs nothing beside what it loads anyway.
            children["web"].prepare = partial(_prepare, environment)
        watch = Watch(
            list(children.values()),
            environment,
            data_dir / "logs",
            simulator_port=simulator_port,
        )
        return watch.run(lambda: _welcome(data_dir, host, port, environment))


def _port() -> int:
    text = os.environ.get("PORT", "8000")
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise Refusal(f"PORT is {text!r}; it must be a number from 1 to 65535.")
    return int(text)


@contextlib.contextmanager
def _only_one(data_dir: Path, address: str):
    with (data_dir / "embedded.lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            process, _, there = handle.read().strip().partition(" ")
            raise Refusal(
                f"a console already runs on the data directory {data_dir}{there and f', at {there}'} (process {process or '?'}). "
                "Use it, stop it first, or set CONSOLE_DATA_DIR to another directory and PORT to another port."
            ) from None
        handle.truncate(0)
        handle.write(f"{os.getpid()} {address}")
        handle.flush()
        yield


def _refuse_taken(host: str, port: int) -> None:
    if not _free(host, port):
        raise Refusal(
            f"port {port} on {host} is in use by another program. Stop that program, or choose another port: "
            f"PORT={port + 10} ./dev run"
        )


def _free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _make_keys(data_dir: Path) -> bool:
    """Make the secret key and the master key of this installation once; an environment that sets them wins. False: there are
    none, and new ones would not open what the database holds."""
    path = data_dir / "keys.env"
    if path.exists() or (os.environ.get("CONSOLE_SECRET_KEY") and os.environ.get("CONSOLE_MASTER_KEYS")):
        return True
    if (data_dir / "console.sqlite3").exists():
        return False
    # Needed once, and it loads OpenSSL.
    import secrets

    text = (
        f"CONSOLE_SECRET_KEY={secrets.token_urlsafe(48)}\n"
        f"CONSOLE_MASTER_KEYS=k{time.strftime('%Y%m%d')}:{base64.b64encode(secrets.token_bytes(32)).decode()}\n"
    )
    write_private(path, text)
    return True


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


def _simulator_port(data_dir: Path, *, near: int) -> int:
    """The port of the last run while it is free: providers keep their address over restarts."""
    path = data_dir / "simulator.port"
    wanted = [int(path.read_text())] if path.exists() and path.read_text().isdigit() else []
    for port in [*wanted, *range(near, near + 50)]:
        if 0 < port < 65536 and _free("127.0.0.1", port):
            path.write_text(str(port))
            return port
    raise Refusal(f"no free port from {near} to {near + 49} for the simulator. Choose another PORT.")


def _prepare(environment: dict[str, str]) -> None:
    """Migrate and, the first time, fill the installation; says itself what is wrong."""
    _say("Preparing the database")
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), "bootstrap"],
        env=environment,
        cwd=ROOT,
        preexec_fn=die_with_parent,
    )
    while True:
        try:
            status = process.wait(TELL_AFTER_S)
            break
        except subprocess.TimeoutExpired:
            _say(_under_way(began))
    if status == EXIT_REFUSED:
        raise Refusal("")
    if status:
        raise Refusal("preparing the database failed; the reason stands above.")


def _under_way(began: float) -> str:
    return f"  under way for {time.monotonic() - began:.0f} s"


def environment_of(data_dir: Path, port: int, simulator_port: int) -> dict[str, str]:
    """What every child is told beside what this process was told."""
    return {
        "CONSOLE_DATA_DIR": str(data_dir),
        "DJANGO_SETTINGS_MODULE": "console.settings",
        "PORT": str(port),
        "CONSOLE_BACKGROUND": "false",
        "PYTHONUNBUFFERED": "1",
        "CONSOLE_SIMULATOR_URL": f"http://127.0.0.1:{simulator_port}/v1",
    }


def children_of(host: str, port: int, simulator_port: int) -> dict[str, Child]:
    """What is started and watched, by name."""
    python = sys.executable
    children = [
        Child(
            "simulator",
            [
                python, "-m", "llmops.simulator", "--host", "127.0.0.1", "--port", str(simulator_port),
                "--estimate-tokens",
            ],
            after_web=True,
        ),
        Child(
            "web",
            [python, "-m", "console.asgi_embedded", "--host", host, "--port", str(port)],
        ),
        Child(
            "ingest",
            [python, str(ROOT / "manage.py"), "ingest"],
            environment={"CONSOLE_BACKGROUND": "1"},
            patient=True,
            after_web=True,
        ),
        Child(
            "worker",
            [
                python, "-m", "celery", "-A", "console", "worker", "--with-beat", "-P", "threads", "--concurrency", "2",
                "--loglevel", "warning", "--without-gossip", "--without-mingle",
            ],
            environment={"CONSOLE_BACKGROUND": "1"},
            patient=True,
        ),
    ]  # fmt: skip
    return {child.name: child for child in children}


class Watch:
    """Starts children, restarts those that die, and stops them all in order."""

    def __init__(
        self, children: list[Child], environment: dict[str, str], log_dir: Path, *, simulator_port: int
    ) -> None:
        self.children = children
        self.simulator_port = simulator_port
        self.environment = environment
        self.log_dir = log_dir
        self.log_dir.mkdir(exist_ok=True)
        self.stopping = False
        self.ready = False
        self.ready_by = 0.0
        #: processes that end by themselves and are not started again
        self.passing: list[subprocess.Popen[bytes]] = []

    def run(self, when_ready: Callable[[], list[subprocess.Popen[bytes]]]) -> int:
        """Until it is told to stop. ``when_ready`` may start processes that end by themselves."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        try:
            for child in self.children:
                if child.patient:
                    child.retry_at = float("inf")
                else:
                    self._start(child)
            _say("Starting the web server and the simulator")
            began = told = time.monotonic()
            self.ready_by = began + READY_WITHIN_S
            while not self.stopping:
                self._tend()
                if not self.ready:
                    if self._answers():
                        for child in self.children:
                            child.retry_at = 0.0
                        self.passing = when_ready()
                        self.ready = True
                    elif time.monotonic() > self.ready_by:
                        raise Refusal(
                            f"the web server and the simulator were not ready within {READY_WITHIN_S} s. Their logs: "
                            f"{self.log_dir}/web.log, {self.log_dir}/simulator.log"
                        )
                    elif time.monotonic() > told + TELL_AFTER_S:
                        told = time.monotonic()
                        _say(_under_way(began))
                time.sleep(0.5 if self.ready else 0.05)
            return 0
        finally:
            self._stop_all()

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _start(self, child: Child) -> None:
        path = self.log_dir / f"{child.name}.log"
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        log = path.open("ab")
        child.process = subprocess.Popen(
            child.command,
            env={**self.environment, **child.environment},
            cwd=ROOT,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        log.close()
        child.started = time.monotonic()

    def _answers(self) -> bool:
        """Whether calls are answered: the web server is ready, and so is the provider that the demo's calls go to."""
        return answers(int(self.environment["PORT"]), "/readyz") and answers(self.simulator_port, "/healthz")

    def _tend(self) -> None:
        now = time.monotonic()
        # Asking for their status is what lets the dead go.
        self.passing = [process for process in self.passing if process.poll() is None]
        for child in self.children:
            if child.process is None:
                if now >= child.retry_at:
                    self._start(child)
                continue
            status = child.process.poll()
            if status is None:
                continue
            # What the process left behind must not go on holding its port or its journal.
            _signal_group(child.process, signal.SIGKILL)
            if child.prepare is not None and status in (EXIT_REFUSED, EXIT_UNPREPARED):
                prepare, child.prepare, child.process = child.prepare, None, None
                prepare()
                self.ready_by = time.monotonic() + READY_WITHIN_S
                continue
            steady = now - child.started > STEADY_AFTER_S
            child.failures = 0 if steady else child.failures + 1
            child.retry_at = now if steady else now + min(2.0**child.failures / 4, 15.0)
            child.process = None
            _say(
                f"{child.name} ended with status {status}; starting it again. Its log: {self.log_dir}/{child.name}.log"
            )
            if child.failures >= 5:
                raise Refusal(
                    f"{child.name} keeps ending at once. The end of {self.log_dir}/{child.name}.log:\n"
                    + _tail(self.log_dir / f"{child.name}.log")
                )

    def _stop_all(self) -> None:
        running = [child for child in reversed(self.children) if child.process is not None]
        if running and self.ready:
            _say("Stopping: calls in flight are finished and written down.")
        for process in self.passing:
            process.terminate()
        deadline = time.monotonic() + STOP_WITHIN_S
        for child in running:
            if not child.after_web:
                child.process.terminate()  # type: ignore[union-attr]
        for child in running:
            if child.name == "web":
                _wait_for(child, deadline)
        for child in running:
            if child.after_web:
                child.process.terminate()  # type: ignore[union-attr]
        for child in running:
            _wait_for(child, deadline)
            _signal_group(child.process, signal.SIGKILL)  # type: ignore[arg-type]
        for process in self.passing:
            process.kill()
            process.wait()


def _wait_for(child: Child, deadline: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.process.wait(max(0.1, deadline - time.monotonic()))  # type: ignore[union-attr]


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def answers(port: int, path: str) -> bool:
    """Whether it is a 200. A client from a library would double the memory of the watcher."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(
                f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
            )
            return connection.recv(64).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def _tail(path: Path, lines: int = 15) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _say(text: str, stream: IO[str] | None = None) -> None:
    print(text, file=stream or sys.stdout, flush=True)


def _demo_traffic(data_dir: Path, environment: dict[str, str]) -> list[subprocess.Popen[bytes]]:
    """Make the demo's calls once, beside the console; they need not be waited for."""
    if demo.wanted() != demo.WHOLE or "service_key" not in json.loads(
        (data_dir / "first-run.json").read_text()
    ):
        return []
    try:
        (data_dir / "demo-traffic").touch(exist_ok=False)
    except FileExistsError:
        return []
    traffic = subprocess.Popen(
        [sys.executable, "-m", "console.demo.traffic", str(data_dir / "first-run.json")],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent,
    )
    return [traffic]


def _welcome(
    data_dir: Path, host: str, port: int, environment: dict[str, str]
) -> list[subprocess.Popen[bytes]]:
    first = json.loads((data_dir / "first-run.json").read_text())
    first["console_url"] = f"http://{host}:{port}"
    first["gateway_url"] = f"http://{host}:{port}/v1"
    write_private(data_dir / "first-run.json", json.dumps(first, indent=2) + "\n")
    kept = f"The same is kept in {data_dir / 'first-run.json'} (only you can read it). Stop with Ctrl-C."
    _say(
        f"""
LLMOps Console is ready.

  Console      {first["console_url"]}
  Sign in as   {first["username"]}  with  {first["password"]}
  Gateway      {first["gateway_url"]}
{_first_call(first) if "service_key" in first else _first_steps(environment)}
{kept}
"""
    )
    return _demo_traffic(data_dir, environment)


def _first_call(first: dict[str, str]) -> str:
    # Installations of earlier days have no such key.
    soft = (
        f"  Another key  {first['experiments_key']}  (its budget is soft: for batches)\n"
        if "experiments_key" in first
        else ""
    )
    return f"""  Service key  {first["service_key"]}
{soft}
Make a call (the demo's provider is a simulator; set OPENAI_API_KEY before the first start to reach OpenAI too):

  curl {first["gateway_url"]}/chat/completions -H "Authorization: Bearer {first["service_key"]}" \\
    -H "Content-Type: application/json" \\
    -d '{{"model": "{first["model"]}", "messages": [{{"role": "user", "content": "Say hello"}}]}}'
"""


def _first_steps(environment: dict[str, str]) -> str:
    return f"""
Nothing is configured yet. Sign in: the Overview says what comes first. A simulated provider to try things with listens at
{environment["CONSOLE_SIMULATOR_URL"]} (kind "simulator"; it takes any key).
"""


if __name__ == "__main__":
    sys.exit(main())
