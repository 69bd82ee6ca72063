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

from console.process import EXIT_REFUSED
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


def test_nothing_that_reads_settings_is_loaded_before_what_is_not_of_the_product() -> None:
    code = (
        "import sys; loaded = set(sys.modules); from django.conf import settings; from django.apps import apps; "
        "print(settings.configured, apps.models_ready, 'celery' in loaded, *sorted(n for n in loaded if n.startswith('console')))"
    )
    assert launcher.run([sys.executable, "-c", code]).stdout.split() == ["False", "False", "True"]


#: What a process of the product knows of its installation once it is set up; every line of it is compared.
_SET_UP = """
import gc, json, logging, re, sys
import django
django.setup()
from django.apps import apps
from django.conf import settings
from django.core.cache import caches
from django.core.checks.registry import registry
from django.core.signals import request_started
from django.db import connections
from django.db.models import signals
from console.celery import app
from llmops.base.master_keys import master_keys
def told(found):
    return re.sub(r" at 0x[0-9a-f]+", "", repr(found))
app.loader.import_default_modules()
names = [name for name in dir(settings) if name.isupper()]
print(json.dumps({
    "settings": {name: told(getattr(settings, name)) for name in names},
    "said explicitly": [name for name in names if settings.is_overridden(name)],
    "databases": told(connections.settings),
    "caches": told(caches.settings),
    "jobs": {name: told(getattr(app.conf, name)) for name in (
        "broker_url", "broker_transport_options", "beat_schedule", "beat_schedule_filename", "task_acks_late",
        "task_serializer", "timezone", "worker_timer_precision")},
    "tasks": sorted(app.tasks),
    "apps": [app.name for app in apps.get_app_configs()],
    "models": [model._meta.label for model in apps.get_models(include_auto_created=True)],
    "checks": sorted(f"{check.__module__}.{check.__qualname__}" for check in registry.registered_checks),
    "receivers": [len(getattr(signals, name).receivers) for name in ("post_migrate", "pre_save", "post_save", "pre_delete")],
    "requests": len(request_started.receivers),
    "loggers": {name: [one.level, one.propagate, told(one.filters),
                       [[type(handler).__name__, handler.level, told(type(handler.formatter)),
                         getattr(handler, "stream", None) is sys.stderr] for handler in one.handlers]]
                for name in ("", "django", "django.server", *settings.LOGGING["loggers"])
                for one in [logging.getLogger(name)]},
    "keys": master_keys().active_id,
}))
"""
#: What was known while nothing was said of any installation, wherever it may be kept.
_KEPT = """
import gc, sys, types
import django
django.setup()
from django.conf import settings
settings.DATA_DIR
launcher = vars(sys.modules.pop("tests.launcher.product"))
sought, found = launcher["NOWHERE"], []
gc.unfreeze()
for one in gc.get_objects():
    if one is not launcher and one is not globals() and type(one) not in (types.CodeType, types.FrameType):
        found += [(type(one), kept) for kept in gc.get_referents(one) if type(kept) is str and sought in kept]
print(sought in launcher.values(), found)
"""


@pytest.mark.parametrize("background", ["", "1"])
@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_a_process_of_the_product_is_set_up_as_its_own_environment_says(
    tmp_path: Path, background: str, engine: str
) -> None:
    """Although Django and all apps were loaded for everybody, before it was."""
    env = _installed(tmp_path) | {"CONSOLE_BACKGROUND": background, "CONSOLE_CALL_RETENTION_DAYS": "17"}
    if engine == "postgres":
        env |= {"DATABASE_URL": "postgres://u:p@host/name", "REDIS_URL": "redis://host:1/2"}
        env |= {"CONSOLE_LOG_FORMAT": "json"}
    launched, anew = both("-c", _SET_UP, env=env)
    assert (launched.returncode, launched.stderr) == (anew.returncode, anew.stderr) == (0, "")
    assert json.loads(launched.stdout) == json.loads(anew.stdout)


@pytest.mark.parametrize("background", ["", "1"])
def test_nothing_is_kept_of_the_settings_under_which_the_apps_were_loaded(
    tmp_path: Path, background: str
) -> None:
    done = launcher.run(
        [sys.executable, "-c", _KEPT], env=_installed(tmp_path) | {"CONSOLE_BACKGROUND": background}
    )
    assert (done.stdout, done.stderr) == ("True []\n", "")


def test_a_setting_that_cannot_be_read_is_refused_where_it_would_be(tmp_path: Path) -> None:
    env = _installed(tmp_path) | {"CONSOLE_LEASE_SECONDS": "soon"}
    launched, anew = both("manage.py", "check", env=env)
    assert launched.returncode == anew.returncode == EXIT_REFUSED
    assert launched.stderr == anew.stderr
    assert "CONSOLE_LEASE_SECONDS" in launched.stderr


def _installed(directory: Path) -> dict[str, str]:
    left_out = ("CONSOLE_", "DATABASE_URL", "REDIS_URL")
    env = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return env | {
        "CONSOLE_DATA_DIR": str(directory / "data"),
        "CONSOLE_SECRET_KEY": "x" * 50,
        "CONSOLE_MASTER_KEYS": "k:" + "QUFB" * 10 + "QUE=",
    }


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


def test_who_counted_tokens_before_launches_as_quickly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting tells tiktoken in the environment where its ranks are."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    process, _ = started(tmp_path, "pass")
    assert process.wait(60) == 0


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
