"""Nothing starts half, and nothing stops without closing its books: real processes, each for itself."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from llmops.core.tokens import count_text, ranks
from llmops.gateway import boot
from tests import launcher
from tests.e2e.test_sdk import start_gateway
from tests.gateway.rig import a_model, a_snapshot
from tests.installation import Installation
from tests.simulator.running import running

APPLICATIONS = ("console.asgi", "console.asgi_gateway", "console.asgi_console")


def start(
    installation: Installation, application: str, *, anew: bool = False, **env: str
) -> subprocess.CompletedProcess[str]:
    """What a server's worker does first: import the application."""
    command = [sys.executable, "-c", f"import {application}; print('up')"]
    return launcher.run(command, env=installation.env | env, anew=anew)


def refused(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("Refused to start: ")]
    assert len(lines) == 1, done.stderr
    for part in says:
        assert part in lines[0]


@pytest.mark.parametrize("application", APPLICATIONS)
def test_a_sound_installation_starts(installation: Installation, application: str) -> None:
    # From nothing on one engine; the launcher, whose processes are compared with such, on the other.
    done = start(installation, application, anew=installation.database_url.startswith("sqlite"))
    assert (done.returncode, done.stdout) == (0, "up\n"), done.stderr


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"CONSOLE_SECRET_KEY": ""}, ["CONSOLE_SECRET_KEY"]),
        ({"CONSOLE_SECRET_KEY": "short"}, ["CONSOLE_SECRET_KEY"]),
        ({"CONSOLE_MASTER_KEYS": ""}, ["master key", "CONSOLE_MASTER_KEYS"]),
        ({"CONSOLE_MASTER_KEYS": "a:not-base64"}, ["base64"]),
        ({"CONSOLE_LEASE_SECONDS": "soon"}, ["CONSOLE_LEASE_SECONDS"]),
        ({"CONSOLE_LEASE_SECONDS": "0"}, ["CONSOLE_LEASE_SECONDS"]),
        ({"CONSOLE_DEBUG": "perhaps"}, ["CONSOLE_DEBUG"]),
        ({"DATABASE_URL": "mysql://somewhere/db"}, ["DATABASE_URL"]),
    ],
)
def test_bad_settings_are_a_sentence(
    installation: Installation, env: dict[str, str], says: list[str]
) -> None:
    refused(start(installation, "console.asgi_gateway", **env), *says)


def test_a_database_out_of_reach_is_a_sentence(installation: Installation) -> None:
    away = "postgres://nobody@127.0.0.1:9/none?connect_timeout=2"
    done = start(installation, "console.asgi_gateway", DATABASE_URL=away, CONSOLE_DB_POOL_TIMEOUT="2")
    refused(done, "DATABASE_URL")


def test_pending_migrations_are_a_sentence(installation: Installation) -> None:
    # As if they had never been: a command that takes them back loads all there is.
    assert installation.rows("DELETE FROM django_migrations WHERE app = 'usage' RETURNING name")
    for application in APPLICATIONS:
        refused(start(installation, application), "pending", "usage.0001", "migrate")


@pytest.mark.any_engine
def test_the_wrong_master_key_is_named(installation: Installation) -> None:
    application = "console.asgi_gateway"
    assert start(installation, application).returncode == 0
    other = base64.b64encode(secrets.token_bytes(32)).decode()
    refused(
        start(installation, application, CONSOLE_MASTER_KEYS=f"other:{other}"),
        "'tests'",
        "CONSOLE_MASTER_KEYS",
    )
    done = start(installation, application, CONSOLE_MASTER_KEYS=f"tests:{other}")
    refused(done, "'tests'", "another key")
    assert other not in done.stderr


@pytest.mark.any_engine
def test_a_journal_directory_that_can_not_be_written_is_a_sentence(
    installation: Installation, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    for application in ("console.asgi", "console.asgi_gateway"):
        done = start(installation, application, CONSOLE_JOURNAL_DIR=str(in_the_way))
        refused(done, "CONSOLE_JOURNAL_DIR", str(in_the_way))
    assert start(installation, "console.asgi_console", CONSOLE_JOURNAL_DIR=str(in_the_way)).returncode == 0


def test_a_server_of_a_refused_worker_ends_and_says_why(installation: Installation) -> None:
    installation.env["CONSOLE_SECRET_KEY"] = "short"
    gateway = start_gateway(installation, installation.free_port())
    assert gateway.wait() != 0
    assert "Refused to start: " in gateway.log.read_text()
    assert "Traceback" not in gateway.log.read_text()


def test_what_tokens_are_counted_with_is_there_before_a_call_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # This process may have counted before.
    monkeypatch.setattr(ranks, "_loaded", {})
    boot._load_encodings(a_snapshot(models=[a_model("a", upstream_model="gpt-4o"), a_model("b")]))

    def never(name: str) -> None:
        raise AssertionError(name)

    monkeypatch.setattr("tiktoken.get_encoding", never)
    assert count_text("Nothing is loaded now", "gpt-4o") == 4


# ---------------------------------------------------------------------- stopping

KEY = "llmops_stopping_" + "s" * 40
CONFIGURATION = """\
version: 1
projects: [{{slug: p, name: P}}]
providers:
  - {{slug: sim, kind: simulator, base_url: {url}, allow_private_network: true, credentials: [{{name: a, secret: "plain:x"}}]}}
models:
  - {{slug: slow, provider: sim, model: "sim-gpt-4o+latency=1500", context_window: 8000, max_output_tokens: 100, default_max_output_tokens: 50, prices: {{input: "1", output: "10"}}}}
  - {{slug: endless, provider: sim, model: "sim-gpt-4o+hang", context_window: 8000, max_output_tokens: 100, default_max_output_tokens: 50, prices: {{input: "1", output: "10"}}}}
budgets: [{{name: all, scope: organisation, limit_usd: "1.00", period: month, hard: true}}]
service_keys: [{{name: k, project: p, secret: "plain:{key}", routes: ["*"], models: ["*"]}}]
"""


def post(port: int, model: str) -> subprocess.Popen[bytes]:
    """A call from a process of its own, so that it waits while the test goes on."""
    script = (
        "import json, sys, urllib.request, urllib.error\n"
        "request = urllib.request.Request(sys.argv[1], data=sys.argv[2].encode(), headers=json.loads(sys.argv[3]))\n"
        "try:\n"
        "    with urllib.request.urlopen(request, timeout=60) as answer: print(answer.status, answer.read().decode())\n"
        "except urllib.error.HTTPError as answer: print(answer.code, answer.read().decode())\n"
    )
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]})
    headers = json.dumps({"authorization": f"Bearer {KEY}", "content-type": "application/json"})
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    return subprocess.Popen(
        [sys.executable, "-c", script, url, body, headers], stdout=subprocess.PIPE, env=dict(os.environ)
    )


def answered(port: int, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as answer:
        return answer.code, json.load(answer)


def test_a_data_plane_that_is_told_to_stop_ends_its_calls_and_closes_its_books(
    installation: Installation, tmp_path: Path
) -> None:
    with running(tmp_path) as simulator:
        installation.manage("apply", "-f", "-", stdin=CONFIGURATION.format(url=simulator.url, key=KEY))
        port = installation.free_port()
        gateway = start_gateway(installation, port)
        installation.wait_ready(f"http://127.0.0.1:{port}/readyz", gateway)
        assert answered(port, "/readyz") == (200, {"status": "ready"})
        slow, endless = post(port, "slow"), post(port, "endless")
        deadline = time.monotonic() + 60
        while simulator.own("/healthz")["in_flight"] < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert gateway.stop(timeout=60) == 0
        said = [caller.communicate(timeout=60)[0].decode() for caller in (slow, endless)]
    assert said[0].startswith("200 ")
    assert said[1].startswith("503 ")
    assert "shutting down" in said[1]
    before = installation.rows("SELECT sum(leased_nano), sum(settled_nano) FROM budgets_window")[0]
    installation.manage("ingest", "--once")
    calls = dict(installation.rows("SELECT status, cost_nano FROM usage_call"))
    assert set(calls) == {"ok", "interrupted"}
    assert before[0] == sum(calls.values()), "what was not spent went back before the process ended"
    [(leased, settled)] = installation.rows("SELECT sum(leased_nano), sum(settled_nano) FROM budgets_window")
    assert (leased, settled) == (0, sum(calls.values()))
    assert list((installation.data_dir / "journal").glob("*.jsonl")) == []
