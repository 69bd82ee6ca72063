"""A provider key is rotated while services call through two data planes: no call fails, whichever way it goes.

The provider takes two keys and then refuses one, as a real one does when its console revokes it. Data planes, ingester and worker
are processes of their own.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmops.simulator.exchange import fingerprint
from tests.installation import Installation
from tests.simulator.running import RunningSimulator, running

# A stream that outlasts the steps of a rotation takes its time.
pytestmark = pytest.mark.timeout(600)

KEY = "llmops_rotating_0123456789abcdefghijklmnopqrstuvwxyz"
OLD, NEW = "sk-the-old-key-0123456789", "sk-the-new-key-0123456789"
#: Plain and streamed at each of two data planes.
CLIENTS = 4
#: Between a client's calls, so that the load is steady and leaves the machine to what is rotated under it.
PAUSE_S = 0.4
CONFIGURATION = """\
version: 1
projects: [{{slug: support, name: Support}}]
providers:
  - slug: sim
    kind: compatible
    base_url: {url}
    allow_private_network: true
    credentials: [{{name: primary, secret: "plain:{old}"}}]
models:
  - {{slug: small, provider: sim, model: "sim-gpt-4o+latency=0+tokens=4", context_window: 128000, max_output_tokens: 16384, default_max_output_tokens: 64, prices: {{input: "1", output: "10"}}}}
  - {{slug: long, provider: sim, model: "sim-gpt-4o+latency=0+tokens=800+tps=20", context_window: 128000, max_output_tokens: 16384, default_max_output_tokens: 1000, prices: {{input: "1", output: "10"}}}}
routes:
  - {{slug: chat, targets: [{{model: small}}], retry: {{attempts: 1}}}}
  - {{slug: slow, targets: [{{model: long}}], retry: {{attempts: 1}}}}
budgets:
  - {{name: all-month, scope: "project:support", limit_usd: "50.00", period: month, hard: true}}
service_keys:
  - {{name: all, project: support, secret: "plain:{key}", routes: ["*"]}}
"""


class Clients:
    """Services that call all the time, plain and streamed, at both data planes; ``failed`` is what they did not get."""

    def __init__(self, ports: list[int]) -> None:
        self.answered = 0
        self.failed: list[Any] = []
        self._ports = ports
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _call(self, number: int) -> None:
        stream = bool(number % 2)
        while not self._over.wait(PAUSE_S):
            port = self._ports[number // 2]
            try:
                status, text = ask(port, stream=stream)
            except OSError as broken:
                status, text = 0, repr(broken)
            whole = text.rstrip().endswith("data: [DONE]") if stream else '"finish_reason"' in text
            if status == 200 and whole:
                self.answered += 1
            else:
                self.failed.append((status, text[-300:]))

    def go_on(self, calls: int = 12) -> None:
        """Until so many more calls were answered."""
        wanted = self.answered + calls
        eventually(lambda: self.answered >= wanted or bool(self.failed))
        assert self.failed == []


def ask(port: int, *, route: str = "chat", stream: bool = False) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = {"model": route, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    connection.request(
        "POST",
        "/v1/chat/completions",
        json.dumps(body),
        {"authorization": f"Bearer {KEY}", "content-type": "application/json"},
    )
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def eventually(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


class Stack:
    def __init__(self, installation: Installation, simulator: RunningSimulator) -> None:
        self.installation = installation
        self.simulator = simulator
        self.accept(OLD)
        text = CONFIGURATION.format(url=simulator.url, key=KEY, old=OLD)
        installation.manage("apply", "-f", "-", stdin=text)
        self.ports = [installation.free_port() for _ in range(2)]
        planes = [
            installation.spawn(
                ["granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop",
                 "--no-ws", "--log-level", "warning", "console.asgi_gateway:application"],
                name="plane",
            )
            for port in self.ports
        ]  # fmt: skip
        installation.start_booking()
        for port, plane in zip(self.ports, planes, strict=True):
            installation.wait_ready(f"http://127.0.0.1:{port}/readyz", plane)

    def accept(self, *keys: str) -> None:
        self.simulator.own("/simulator/keys", "PUT", {"keys": list(keys)})

    def rotate(self, *words: str, stdin: str | None = None, check: bool = True) -> Any:
        return self.installation.manage("rotate", *words, stdin=stdin, check=check)

    def states(self) -> dict[str, str]:
        return dict(self.installation.rows("SELECT name, state FROM providers_credential"))

    def under_way(self) -> int | None:
        """Calls on the old key, as the data planes say; None before both have said so."""
        rows = self.installation.rows("SELECT calls FROM providers_credential_use")
        return sum(calls for (calls,) in rows) if len(rows) == 2 else None

    def used(self, since: int) -> Counter[str]:
        """How many calls each key was used for, after the first ``since``."""
        names = {fingerprint(OLD): "old", fingerprint(NEW): "new"}
        return Counter(names[one["key"]] for one in self.simulator.records()[since:] if one["status"] == 200)


@pytest.fixture
def stack(installation: Installation, tmp_path: Path) -> Iterator[Stack]:
    with running(tmp_path) as simulator:
        yield Stack(installation, simulator)


#: A change of what is live, and of nothing else.
PATIENT = "version: 1\nroutes:\n  - {slug: chat, targets: [{model: small}], retry: {attempts: 2}}\n"


def test_no_call_fails_while_a_key_is_rotated_and_revisions_are_published(stack: Stack) -> None:
    with Clients(stack.ports) as clients:
        clients.go_on()
        refused = stack.rotate("begin", "sim/primary", "--secret-stdin", stdin=f"{NEW}\n", check=False)
        assert refused.returncode != 0
        assert "Nothing was changed" in refused.stderr, "the provider does not know it yet"
        assert stack.states() == {"primary": "active"}
        stack.accept(OLD, NEW)
        long: list[tuple[int, str]] = []
        caller = threading.Thread(target=lambda: long.append(ask(stack.ports[0], route="slow", stream=True)))
        caller.start()
        eventually(lambda: stack.simulator.own("/healthz")["in_flight"] >= 1)
        stack.rotate(
            "begin", "sim/primary", "--secret-stdin", "--activate", "--keep-minutes", "0", stdin=f"{NEW}\n"
        )
        clients.go_on()
        began = len(stack.simulator.records())
        clients.go_on()
        assert stack.used(began)["old"] == 0, "new calls go out with the new key"
        eventually(lambda: stack.under_way() == 1)
        assert caller.is_alive(), "the stream must outlast this"
        blocked = stack.rotate("finish", "sim/primary", check=False)
        assert "is still used" in blocked.stderr
    assert clients.failed == []
    # The stream goes on for a while, and nothing else need meanwhile.
    caller.join(60)
    [(status, text)] = long
    assert (status, text.rstrip().endswith("data: [DONE]")) == (200, True), (
        "what began on the old key ended on it"
    )
    eventually(lambda: stack.under_way() == 0)
    assert "still used: nothing" in stack.rotate("show", "sim/primary").stdout
    with Clients(stack.ports) as clients:
        clients.go_on()
        stack.rotate("finish", "sim/primary")
        stack.accept(NEW)
        clients.go_on()
        # What is live changes under the same load, and goes back.
        stack.installation.manage("apply", "-f", "-", stdin=PATIENT)
        clients.go_on()
        stack.installation.manage("revision", "restore", "1", "--reason", "it was better")
        clients.go_on()
    assert clients.failed == []
    states = stack.states()
    assert states.pop("primary") == "active"
    assert list(states.values()) == ["revoked"]
    stack.installation.wait_booked()
    failed = stack.installation.rows("SELECT count(*) FROM usage_call WHERE status <> 'ok'")
    assert failed == [(0,)]
    served = stack.installation.rows("SELECT DISTINCT revision FROM usage_call ORDER BY revision")
    assert served == [(1,), (2,), (3,)]


def test_a_new_key_that_is_refused_is_taken_back_by_itself_and_no_call_fails(stack: Stack) -> None:
    stack.installation.spawn(
        ["celery", "-A", "console", "worker", "--with-beat", "-P", "threads", "--concurrency", "1"],
        name="worker",
    )
    stack.accept(OLD, NEW)
    with Clients(stack.ports) as clients:
        stack.rotate("begin", "sim/primary", "--secret-stdin", "--activate", stdin=f"{NEW}\n")
        clients.go_on()
        eventually(lambda: stack.used(0)["new"] > 0)
        # The provider thinks better of it.
        stack.accept(OLD)
        eventually(lambda: stack.states() == {"primary": "active", "primary-2": "staged"})
        clients.go_on()
    assert clients.failed == []
    [(state, outcome)] = stack.installation.rows("SELECT state, outcome FROM providers_rotation")
    assert state == "returned"
    assert "refused" in outcome or "burst" in outcome
    actions = [
        row[0]
        for row in stack.installation.rows("SELECT action FROM audit_event ORDER BY sequence DESC LIMIT 3")
    ]
    assert actions == ["rotation.returned", "rotation.activated", "rotation.staged"]
