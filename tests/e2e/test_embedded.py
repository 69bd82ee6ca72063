"""``./dev run`` as a new user meets it: one command, a printed key that works, a kill that loses nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import openai
import psutil
import pytest

from tests import launcher
from tests.installation import ROOT, Process
from tests.servers import free_port, free_ports_in_a_row

SET_ELSEWHERE = (
    "DATABASE_URL",
    "REDIS_URL",
    "CONSOLE_SECRET_KEY",
    "CONSOLE_MASTER_KEYS",
    "CONSOLE_JOURNAL_DIR",
)


class Embedded:
    """The whole stack in a data directory of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.data_dir = home / "var"
        # The simulator takes the next one.
        self.port = free_ports_in_a_row(2)
        self.env = {key: value for key, value in os.environ.items() if key not in SET_ELSEWHERE}
        self.env |= {"CONSOLE_DATA_DIR": str(self.data_dir), "PORT": str(self.port)}
        self.process: Process | None = None

    def start(self) -> None:
        self.process = Process(
            [sys.executable, "-m", "console.embedded"],
            name="embedded",
            log=self.home / "embedded.log",
            env=self.env,
            # As the README starts it.
            anew=True,
        )
        wait_until(self.is_ready, self._not_ready, timeout=300)

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, self.process.log_tail()
        return "LLMOps Console is ready." in self.process.log.read_text()

    def _not_ready(self) -> str:
        assert self.process is not None
        return self.process.log_tail()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.log.unlink()

    def stop(self) -> None:
        """As Ctrl-C does; nothing, if it has stopped already."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.process.log_tail()

    def run(self, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "console.embedded"],
            env=self.env | env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def manage(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """A command on the same data, from packages that are loaded already."""
        given = {"DJANGO_SETTINGS_MODULE": "console.settings", "CONSOLE_BACKGROUND": "1", **env}
        return launcher.run([sys.executable, "manage.py", *arguments], env=self.env | given)

    @property
    def first(self) -> dict[str, Any]:
        return json.loads((self.data_dir / "first-run.json").read_text())

    def ask(self, path: str, body: Any = None, *, key: str = "service_key", method: str | None = None) -> Any:
        request = urllib.request.Request(
            self.first["console_url"] + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {self.first[key]}", "content-type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def chat(self) -> str:
        """One call; returns its id."""
        answer = urllib.request.urlopen(
            urllib.request.Request(
                self.first["gateway_url"] + "/chat/completions",
                data=json.dumps(
                    {
                        "model": self.first["model"],
                        "messages": [{"role": "user", "content": "hi"}],
                        "max_tokens": 5,
                    }
                ).encode(),
                headers={
                    "authorization": f"Bearer {self.first['service_key']}",
                    "content-type": "application/json",
                },
            ),
            timeout=60,
        )
        with answer:
            assert json.load(answer)["choices"]
            return answer.headers["x-llmops-call-id"]

    def recorded(self, call: str) -> bool:
        try:
            return self.ask(f"/api/v1/calls/{call}/", key="admin_key")["id"] == call
        except urllib.error.HTTPError as answer:
            assert answer.code == 404, answer.read()
            return False


def wait_until(true: Callable[[], bool], explain: Callable[[], str], *, timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, explain()
        # Each look may be a request that the stack answers.
        time.sleep(0.1)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    stack = Embedded(tmp_path_factory.mktemp("embedded"))
    try:
        stack.start()
        yield stack
    finally:
        if stack.process is not None:
            stack.process.kill()


def test_it_says_how_to_begin_and_keeps_it_private(embedded: Embedded) -> None:
    assert embedded.process is not None
    said = embedded.process.log.read_text()
    for name in ("console_url", "gateway_url", "username", "password", "service_key"):
        assert embedded.first[name] in said
    assert embedded.first["gateway_url"].endswith("/v1")
    steps = (
        "Preparing the database",
        "Bringing the",
        "Configuring the demo",
        "Making up the demo's",
        "Starting the web",
        "is ready",
    )
    assert sorted(steps, key=said.index) == list(steps), "it tells what it does, as it does it"
    for name in ("first-run.json", "keys.env", "console.sqlite3", "logs/web.log"):
        assert stat.S_IMODE((embedded.data_dir / name).stat().st_mode) == 0o600


def test_the_printed_curl_line_works_as_it_stands(embedded: Embedded) -> None:
    assert embedded.process is not None
    line = re.search(r"^  curl (?:.*\\\n)*.*$", embedded.process.log.read_text(), re.MULTILINE)
    assert line is not None
    done = subprocess.run(
        ["sh", "-c", f"{line.group().strip()} -sS"], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    assert "choices" in done.stdout, done.stdout
    assert "imulat" in json.loads(done.stdout)["choices"][0]["message"]["content"]


def test_a_call_is_recorded_with_its_cost(embedded: Embedded) -> None:
    call = embedded.chat()
    wait_until(lambda: embedded.recorded(call), lambda: "the call was never booked")
    found = embedded.ask(f"/api/v1/calls/{call}/", key="admin_key")
    assert found["status"] == "ok"
    assert float(found["cost_usd"]) > 0


def test_there_is_a_model_for_every_kind_of_call(embedded: Embedded) -> None:
    assert embedded.ask("/v1/moderations", {"input": "hello"})["results"]
    assert embedded.ask("/v1/images/generations", {"model": "image", "prompt": "a cat"})["data"]
    listed = {one["id"] for one in embedded.ask("/v1/models")["data"]}
    assert {"chat", "embed", "image", "speech", "transcribe", "omni-moderation-latest"} <= listed


def test_a_batch_can_be_tried_with_the_key_that_is_made_for_it(embedded: Embedded) -> None:
    first = embedded.first
    assert first["experiments_key"] in embedded.process.log.read_text()  # type: ignore[union-attr]
    body = {"model": "sim-gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    for name, refused in (("experiments_key", False), ("service_key", True)):
        client = openai.OpenAI(base_url=first["gateway_url"], api_key=first[name], max_retries=0)
        file = client.files.create(file=("b.jsonl", json.dumps(line).encode()), purpose="batch")

        def make(client: openai.OpenAI = client, source: str = file.id) -> str:
            asked: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
            return client.batches.create(input_file_id=source, **asked).id

        if refused:
            with pytest.raises(openai.UnprocessableEntityError, match="hard budget"):
                make()
        else:
            assert make()


def test_a_passed_through_path_can_be_tried_with_that_key(embedded: Embedded) -> None:
    first = embedded.first
    documents = ["Reset my password", "Where is my parcel?"]
    for name, refused in (("experiments_key", False), ("service_key", True)):
        client = openai.OpenAI(base_url=first["gateway_url"], api_key=first[name], max_retries=0)

        def ranked(client: openai.OpenAI = client) -> Any:
            body = {"model": "sim-rerank", "query": "parcel", "documents": documents}
            return client.post("/rerank", body=body, cast_to=object)

        if refused:
            with pytest.raises(openai.UnprocessableEntityError, match="hard one"):
                ranked()
        else:
            assert [one["index"] for one in ranked()["results"]] == [1, 0]


def test_a_second_start_on_the_same_data_or_port_is_a_sentence(embedded: Embedded, tmp_path: Path) -> None:
    same_data = embedded.run(PORT=str(free_port()))
    assert same_data.returncode == 3
    assert (
        f"already runs on the data directory {embedded.data_dir}, at {embedded.first['console_url']} (process "
        in same_data.stderr
    )
    same_port = embedded.run(CONSOLE_DATA_DIR=str(tmp_path / "other"))
    assert same_port.returncode == 3
    assert f"port {embedded.port}" in same_port.stderr
    assert not (tmp_path / "other").exists()
    for refusal in (same_data, same_port):
        assert "Traceback" not in refusal.stderr + refusal.stdout


def test_kill_9_of_everything_loses_nothing(embedded: Embedded) -> None:
    calls = [embedded.chat() for _ in range(20)]
    embedded.kill()
    key = embedded.first["service_key"]
    embedded.start()
    assert embedded.first["service_key"] == key
    for call in calls:
        wait_until(lambda call=call: embedded.recorded(call), lambda call=call: f"{call} is lost")
    assert embedded.chat()


def test_a_killed_web_server_comes_back_by_itself(embedded: Embedded) -> None:
    assert embedded.process is not None
    web = [
        child
        for child in psutil.Process(embedded.process.pid).children()
        if any("console.asgi" in word for word in child.cmdline())
    ]
    assert len(web) == 1
    call = embedded.chat()
    web[0].kill()
    web[0].wait(10)

    def answers() -> bool:
        try:
            return bool(embedded.chat())
        except OSError:
            return False

    wait_until(answers, lambda: embedded.process.log_tail())  # type: ignore[union-attr]
    wait_until(lambda: embedded.recorded(call), lambda: f"{call} is lost")


def test_processes_that_ended_are_let_go(embedded: Embedded) -> None:
    """The demo's traffic ends by itself; its process must not stay behind as a zombie."""
    assert embedded.process is not None
    watcher = psutil.Process(embedded.process.pid)

    def alone() -> bool:
        return len(watcher.children()) == 4 and psutil.STATUS_ZOMBIE not in [
            child.status() for child in watcher.children()
        ]

    assert (embedded.data_dir / "demo-traffic").exists()
    wait_until(alone, lambda: str(watcher.children()))


def test_stopping_lets_a_call_finish_and_leaves_nobody_behind(embedded: Embedded) -> None:
    assert embedded.process is not None
    family = psutil.Process(embedded.process.pid).children(recursive=True)
    request = urllib.request.Request(
        embedded.first["gateway_url"] + "/chat/completions",
        data=json.dumps(
            {
                "model": embedded.first["model"],
                "messages": [{"role": "user", "content": "Tell me much."}],
                "max_tokens": 100,
                "stream": True,
            }
        ).encode(),
        headers={
            "authorization": f"Bearer {embedded.first['service_key']}",
            "content-type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        call = answer.headers["x-llmops-call-id"]
        first = answer.readline()
        embedded.process.send_signal(signal.SIGTERM)
        rest = answer.read()
    assert first.startswith(b"data: ")
    assert b"error" not in rest and rest.endswith(b"data: [DONE]\n\n"), rest[-300:]
    assert embedded.process.wait(60) == 0
    assert [process for process in family if lives(process)] == []
    # What was not booked any more stands whole in a journal, and the next ingester books it.
    done = embedded.manage("ingest", "--once")
    assert done.returncode == 0, done.stdout + done.stderr
    with closing(sqlite3.connect(embedded.data_dir / "console.sqlite3")) as connection:
        booked = connection.execute("SELECT status FROM usage_call WHERE id = ?", [UUID(call).hex]).fetchall()
    assert booked == [("ok",)]


def lives(process: psutil.Process) -> bool:
    """One that has ended stays a zombie until whoever took it over from its parent takes notice."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_lost_or_wrong_master_key_is_refused_with_its_id(embedded: Embedded) -> None:
    embedded.stop()
    kept = (embedded.data_dir / "keys.env").read_text()
    key_id = re.search(r"CONSOLE_MASTER_KEYS=([^:]+):", kept).group(1)  # type: ignore[union-attr]
    secret_key = re.search(r"CONSOLE_SECRET_KEY=(\S+)", kept).group(1)  # type: ignore[union-attr]
    fresh = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

    other_bytes = embedded.run(CONSOLE_SECRET_KEY=secret_key, CONSOLE_MASTER_KEYS=f"{key_id}:{fresh}")
    # The sentence is that of the command which a start ends with, so another id is told to that alone.
    given = {"CONSOLE_SECRET_KEY": secret_key, "CONSOLE_MASTER_KEYS": f"another:{fresh}"}
    other_id = embedded.manage("bootstrap", **given)
    assert other_bytes.returncode == 3
    assert other_id.returncode != 0
    for refusal in (other_bytes, other_id):
        said = refusal.stderr + refusal.stdout
        assert said.count(repr(key_id)) == 1
        assert "is lost for good: provider keys" in said
        assert "Stopping" not in said and "SystemCheckError" not in said
        assert "Traceback" not in said
        assert fresh not in said

    (embedded.data_dir / "keys.env").rename(embedded.data_dir / "elsewhere")
    try:
        missing = embedded.run()
        assert missing.returncode == 3
        assert f"{key_id!r} of CONSOLE_MASTER_KEYS in {embedded.data_dir / 'keys.env'}" in missing.stderr
        assert "that file is missing. Put the copy of keys.env back" in missing.stderr
        assert len(missing.stderr.splitlines()) == 1
    finally:
        (embedded.data_dir / "elsewhere").rename(embedded.data_dir / "keys.env")


def test_a_data_directory_that_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    blocked = Embedded(tmp_path)
    (tmp_path / "file").write_text("")
    refusal = blocked.run(CONSOLE_DATA_DIR=str(tmp_path / "file" / "var"))
    assert refusal.returncode == 3
    assert "CONSOLE_DATA_DIR" in refusal.stderr


@pytest.mark.parametrize("port", ["", "http", "0", "70000"])
def test_a_port_that_is_none_is_a_sentence(tmp_path: Path, port: str) -> None:
    refusal = Embedded(tmp_path).run(PORT=port)
    assert refusal.returncode == 3
    assert "PORT" in refusal.stderr


def test_a_taken_port_names_the_port(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        refusal = Embedded(tmp_path).run(PORT=str(listener.getsockname()[1]))
    assert refusal.returncode == 3
    assert "in use by another program" in refusal.stderr
