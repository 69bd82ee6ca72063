"""No process loads what it has no use for: each of these packages is megabytes of memory and a part of every start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: A sort of process -> what it runs under, and what it loads before its first request, call or task.
PROCESSES = {
    "watcher": ({}, "import console.embedded"),
    "simulator": ({}, "import llmops.simulator.__main__"),
    "web server": (
        {},
        "import django; django.setup(); import llmops.gateway.boot, granian.server.embed, uvloop, console.prepared\n"
        "from django.core.checks import run_checks; run_checks()",
    ),
    "data plane": ({"CONSOLE_BACKGROUND": "1"}, "import django; django.setup(); import llmops.gateway.boot"),
    "ingester": (
        {"CONSOLE_BACKGROUND": "1"},
        "import django; django.setup(); import llmops.usage.management.commands.ingest\n"
        "from django.core.checks import run_checks; run_checks()",
    ),
    "worker": (
        {"CONSOLE_BACKGROUND": "1"},
        "import console.celery; console.celery.app.loader.import_default_modules()",
    ),
}
#: Without a proxy, a Redis, PostgreSQL, OpenID Connect, a schema to check or a text whose tokens must be counted exactly.
NOBODY = {"aiohttp", "coreapi", "jsonschema", "jsonschema_rs", "jwt", "openai", "opentelemetry", "psycopg", "pydantic", "redis", "requests",
          "segno", "tiktoken"}  # fmt: skip
PAGES = {
    "csp",
    "django_filters",
    "drf_spectacular",
    "llmops.dashboards.overview",
    "rest_framework",
    "unfold",
    "whitenoise",
}
JOBS = {"amqp", "billiard", "celery", "kombu"}
CALLS = {"jinja2", "llmops.gateway.plane", "prometheus_client"}
LEFT_OUT = {
    "watcher": NOBODY | PAGES | JOBS | CALLS | {"django", "email", "hashlib", "http", "logging", "ssl"},
    "simulator": NOBODY | PAGES | JOBS | CALLS | {"cryptography", "django", "yaml"},
    "web server": NOBODY | JOBS | {"pygments"},
    "data plane": NOBODY | PAGES | JOBS | {"yaml"},
    "ingester": NOBODY | PAGES | JOBS | CALLS | {"cryptography", "yaml"},
    # Its services know prompts.
    "worker": NOBODY | PAGES | CALLS - {"jinja2"} | {"cryptography"},
}
#: Forks before anything is loaded, so that one process serves all and each begins with nothing.
LOAD = """
import json, os, sys
for name, (environment, code) in json.loads(sys.argv[1]).items():
    read, write = os.pipe()
    if not os.fork():
        os.environ.update(environment)
        exec(code, {})
        with open(write, "w") as out:
            json.dump(sorted(module for module, loaded in sys.modules.items() if loaded is not None), out)
        os._exit(0)
    os.close(write)
    print(json.dumps([name, json.load(open(read))]), flush=True)
    os.wait()
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(PROCESSES)],
        env=kept
        | {
            "CONSOLE_DATA_DIR": str(tmp_path_factory.mktemp("data")),
            "CONSOLE_SECRET_KEY": "x" * 50,
            "CONSOLE_MASTER_KEYS": "k:" + "QUFB" * 10 + "QUE=",
            "DJANGO_SETTINGS_MODULE": "console.settings",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return {name: set(modules) for name, modules in map(json.loads, done.stdout.splitlines())}


@pytest.mark.any_engine
@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_leaves_out_what_it_does_not_need(process: str, loaded: dict[str, set[str]]) -> None:
    assert sorted(LEFT_OUT[process] & loaded[process]) == []


@pytest.mark.any_engine
def test_names_of_what_is_left_out_are_right(loaded: dict[str, set[str]]) -> None:
    """What no process loads could be misspelt: these are loaded by the processes that need them."""
    assert loaded["web server"] >= PAGES | CALLS
    assert loaded["worker"] >= JOBS
