"""A process that the launcher forked is what a start of its own would have made."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import launcher
from tests.launcher.client import Launched

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every process is started anew")

#: What a process can see of how it was started; every line of it is compared.
_SEEN = """
import gc, json, os, random, signal, sys, threading
import __main__
print(json.dumps({
    "arguments": sys.argv,
    "asked": sys.orig_argv,
    "path": sys.path,
    "environment": dict(os.environ),
    "directory": os.getcwd(),
    "leads a session": os.getsid(0) == os.getpid(),
    "files": sorted(os.listdir("/proc/self/fd"))[:4],
    "threads": len(os.listdir("/proc/self/task")),
    "signals": {name.name: str(signal.getsignal(name)) for name in signal.valid_signals() if hasattr(name, "name")},
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "wakes": signal.set_wakeup_fd(-1),
    "streams": [(one.encoding, one.errors, one.line_buffering, one.write_through, one.fileno())
                for one in (sys.stdin, sys.stdout, sys.stderr)],
    "said": sys.stdin.read(),
    "main": [__main__ is sys.modules["__main__"], __name__, globals() is vars(__main__), globals().get("__file__")],
    "collects": gc.isenabled() and gc.get_threshold(),
}))
"""


def both(*words: str, **given: Any) -> list[subprocess.CompletedProcess[str]]:
    """What the launcher makes of it, and what a start of its own does."""
    return [launcher.run([sys.executable, *words], anew=anew, **given) for anew in (False, True)]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "seen.py"
    path.write_text(_SEEN)
    return path


@pytest.mark.parametrize("how", ["script", "module", "code"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_it_sees_what_it_would_have_seen(script: Path, how: str, unbuffered: str) -> None:
    words = {"script": [str(script)], "module": ["-m", "seen"], "code": ["-c", _SEEN]}[how]
    env = dict(os.environ) | {"PYTHONPATH": "/elsewhere", "SAID": "ü", "PYTHONUNBUFFERED": unbuffered}
    launched, anew = both(*words, "--an", "argument", env=env, cwd=script.parent, stdin="grüße\n")
    assert (launched.returncode, launched.stderr) == (anew.returncode, anew.stderr) == (0, "")
    assert json.loads(launched.stdout) == json.loads(anew.stdout)


@pytest.mark.parametrize(
    "code",
    [
        "pass",
        "raise SystemExit",
        "raise SystemExit(7)",
        "raise SystemExit(-1)",
        "raise SystemExit('a reason')",
        "import sys; sys.exit([1])",
        "import os; os._exit(9)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import atexit; atexit.register(print, 'at the end'); print('before')",
        "import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('waited for'))).start()",
        "import sys; sys.stdout.write('no line'); sys.stderr.write('nor here')",
    ],
)
def test_it_ends_as_it_would_have_ended(code: str) -> None:
    launched, anew = both("-c", code)
    assert (launched.returncode, launched.stdout, launched.stderr) == (
        anew.returncode,
        anew.stdout,
        anew.stderr,
    )


@pytest.mark.parametrize("raised", ["ZeroDivisionError('what it was')", "KeyboardInterrupt"])
def test_what_nobody_caught_is_printed_and_is_the_status(raised: str) -> None:
    launched, anew = both("-c", f"def f():\n    raise {raised}\nf()")
    assert launched.returncode == anew.returncode
    assert launched.stderr.startswith("Traceback (most recent call last):\n")
    assert launched.stderr.splitlines()[-3:] == anew.stderr.splitlines()[-3:]


def test_it_is_a_process_of_its_own_that_can_be_killed(tmp_path: Path) -> None:
    process, log = started(tmp_path, "import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    until(lambda: log.read_text().endswith("\n"))
    assert int(log.read_text()) == process.pid != os.getpid()
    assert process.poll() is process.returncode is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.kill()
    assert process.wait(10) == process.poll() == process.returncode == -signal.SIGKILL
    process.terminate()  # does nothing to a process that ended


def test_a_handler_of_its_own_is_called(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(3)); print('up', flush=True); time.sleep(600)"
    process, log = started(tmp_path, code)
    until(lambda: log.read_text() == "up\n")
    process.terminate()
    assert process.wait(10) == 3


def test_no_two_draw_the_same() -> None:
    code = "import random, secrets, uuid; print(random.random(), uuid.uuid4(), secrets.token_hex())"
    one, other = (launcher.run([sys.executable, "-c", code]).stdout.split() for _ in range(2))
    assert set(one).isdisjoint(other)


def test_nothing_of_the_product_that_reads_settings_is_loaded_before_it_starts() -> None:
    code = (
        "import sys; loaded = set(sys.modules); from django.conf import settings; from django.apps import apps; "
        "print(settings.configured, apps.models_ready, 'celery' in loaded, *sorted(n for n in loaded if n.startswith('console')))"
    )
    assert launcher.run([sys.executable, "-c", code]).stdout.split() == ["False", "False", "True"]


@pytest.mark.parametrize(
    ("command", "changed"),
    [
        (["/bin/sleep", "600"], {}),
        ([sys.executable, "-X", "dev", "-c", "import time; time.sleep(600)"], {}),
        ([sys.executable, "-c", "import time; time.sleep(600)"], {"PYTHONHASHSEED": "1"}),
        (
            [sys.executable, "-c", "import time; time.sleep(600)"],
            {"OTEL_PYTHON_CONTEXT": "contextvars_context"},
        ),
    ],
    ids=["another program", "options of the interpreter", "how it hashes", "what a package looked at"],
)
def test_what_could_tell_the_difference_is_started_anew(command: list[str], changed: dict[str, str]) -> None:
    process = launcher.start(command, cwd=Path.cwd(), env=dict(os.environ) | changed)
    assert not isinstance(process, Launched)
    process.kill()
    process.wait(10)


def started(tmp_path: Path, code: str) -> tuple[launcher.Started, Path]:
    log = tmp_path / "log"
    with log.open("w") as output:
        process = launcher.start(
            [sys.executable, "-c", code], cwd=tmp_path, env=dict(os.environ), stdout=output
        )
    assert isinstance(process, Launched)
    return process, log


def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
