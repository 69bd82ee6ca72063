"""How soon people are told: from the first call that fails to the message at their own service, on both ways to run it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.failure import BenchmarkFailed
from benchmarks.installation import Installation
from benchmarks.processes import Stage, plain_environment, stage, wait_for
from benchmarks.report import Bar, Options, Section, Table
from tests import servers
from tests.servers import free_port

ROUNDS, ASKED_S = 6, 30.0
#: Calls a second of each route, and so long all is well before a provider begins to fail.
CALLS_A_SECOND, WELL_S = 4.0, 8.0
_KEY = "bench-alerting-0123456789abcdefghijklmnop"
_CONFIGURATION = """\
version: 1
projects: [{slug: bench, name: Benchmark}]
providers:
  - {slug: upstream, kind: compatible, base_url: "%(upstream)s", allow_private_network: true,
     credentials: [{name: only, secret: "plain:upstream-needs-no-key"}]}
models:
%(models)s
routes:
%(routes)s
service_keys: [{name: bench, project: bench, secret: "plain:%(key)s"}]
"""
_MODEL = """\
  - {slug: m%(n)d, provider: upstream, model: "m%(n)d-2026-01-01", context_window: 8000, max_output_tokens: 1000,
     default_max_output_tokens: 100, prices: {input: "1", output: "1"}}
"""
_ROUTE = "  - {slug: r%(n)d, targets: [{model: m%(n)d}], retry: {attempts: 1, total_timeout: 20}}\n"
_CHANNEL = """\
from llmops.alerts import services
from llmops.core.actors import command_actor
services.create_channel(
    command_actor("bench"), slug="bench", kind="webhook", url=%r, allow_private_network=True, severities=["critical"],
)
"""


@dataclass
class Surroundings:
    """A provider whose models can be made to fail, and the service of whoever is on call. Times are of one clock (monotonic)."""

    failing: set[str] = field(default_factory=set)
    #: route -> when its first call failed, and when its message came
    failed: dict[str, float] = field(default_factory=dict)
    told: dict[str, float] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    changed: threading.Event = field(default_factory=threading.Event)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path == "/hook":
            self._take(body)
            return 200, {}
        route = "r" + body["model"].split("-")[0].removeprefix("m")
        if route in self.failing:
            self.failed.setdefault(route, time.monotonic())
            return 500, {"error": {"message": "down", "type": "server_error", "param": None, "code": None}}
        choice = {"index": 0, "message": {"role": "assistant", "content": "well"}, "finish_reason": "stop"}
        used = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
        return 200, {
            "id": "c", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice], "usage": used,
        }  # fmt: skip

    def _take(self, body: dict[str, Any]) -> None:
        data = body["data"]
        self.messages.append(data["notification"])
        if data["rule"] == "calls-fail" and body["type"] == "incident.opened":
            self.told.setdefault(data["subject"].removeprefix("route:"), time.monotonic())
            self.changed.set()


@contextmanager
def _listening(here: Surroundings) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, said = here.answer(self.path, body)
            raw = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _calling(port: int, key: str, route: str) -> Iterator[None]:
    """Calls of a route all the time, as a service makes them."""
    over = threading.Event()

    def call() -> None:
        body = json.dumps({"model": route, "messages": [{"role": "user", "content": "hi"}]})
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        while not over.wait(1 / CALLS_A_SECOND):
            with suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request("POST", "/v1/chat/completions", body, headers)
                connection.getresponse().read()
                connection.close()

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(40)


def _configured(installation: Any, directory: Path, port: int, rounds: int) -> None:
    numbers = [{"n": number} for number in range(rounds)]
    text = _CONFIGURATION % {
        "upstream": f"http://127.0.0.1:{port}/v1",
        "key": _KEY,
        "models": "".join(_MODEL % one for one in numbers),
        "routes": "".join(_ROUTE % one for one in numbers),
    }
    path = directory / "alerting.yaml"
    path.write_text(text)
    installation("apply", "-f", str(path))
    installation("shell", "-v0", "-c", _CHANNEL % f"http://127.0.0.1:{port}/hook")


def _measured(here: Surroundings, gateway: int, rounds: int) -> list[float]:
    found = []
    for number in range(rounds):
        route = f"r{number}"
        with _calling(gateway, _KEY, route):
            # Another moment of the ten seconds between two looks each time.
            time.sleep(WELL_S + 10 * number / rounds)
            here.failing.add(route)
            deadline = time.monotonic() + 120
            while route not in here.told:
                here.changed.clear()
                if (
                    not here.changed.wait(max(0.0, min(1.0, deadline - time.monotonic())))
                    and time.monotonic() > deadline
                ):
                    raise BenchmarkFailed(f"nobody was told within two minutes that {route} fails")
        found.append(here.told[route] - here.failed[route])
    if len(set(here.messages)) != len(here.messages):
        raise BenchmarkFailed("a message was sent twice, and no worker had died")
    return found


def _embedded(rounds: int) -> list[float]:
    here = Surroundings()
    with stage() as place, _listening(here) as port:
        data, gateway = place.directory / "data", free_port()
        env = plain_environment() | {
            "CONSOLE_DATA_DIR": str(data),
            "PORT": str(gateway),
            "CONSOLE_DEMO": "empty",
        }
        started = place.start("embedded", ["-m", "console.embedded"], env=env)
        # It makes its database first.
        wait_for(started, f"http://127.0.0.1:{gateway}/readyz", within=300)
        keys = dict(
            line.split("=", 1) for line in (data / "keys.env").read_text().splitlines() if "=" in line
        )
        manage_env = env | keys | {"DJANGO_SETTINGS_MODULE": "console.settings"}
        _configured(
            lambda *words: place.run(["manage.py", *words], env=manage_env), place.directory, port, rounds
        )
        return _measured(here, gateway, rounds)


def _production(rounds: int) -> list[float]:
    here = Surroundings()
    with ExitStack() as stack:
        database, redis = stack.enter_context(servers.postgres()), stack.enter_context(servers.valkey())
        place: Stage = stack.enter_context(stage())
        port = stack.enter_context(_listening(here))
        installation = Installation(place, place.directory / "data", database_url=database)
        installation.env["REDIS_URL"] = redis
        _configured(installation.manage, place.directory, port, rounds)
        celery = ["-m", "celery", "-A", "console"]
        place.start("ingest", ["manage.py", "ingest"], env=installation.env)
        place.start(
            "worker", [*celery, "worker", "-P", "threads", "--concurrency", "4"], env=installation.env
        )
        place.start("beat", [*celery, "beat"], env=installation.env)
        _, gateway = place.serve(
            "plane", "console.asgi_gateway:application", ready="/readyz", env=installation.env
        )
        return _measured(here, gateway, rounds)


def run(options: Options) -> Section:
    rounds = options.rounds or ROUNDS
    found = {"embedded": _embedded(rounds), "PostgreSQL and Valkey": _production(rounds)}
    return Section(
        "alerting",
        bars=[
            Bar(
                f"first failed call to message, {name}, slowest of {rounds}",
                f"<= {ASKED_S:g} s",
                f"{max(took):.1f} s",
                max(took) <= ASKED_S,
            )
            for name, took in found.items()
        ],
        tables=[
            Table(
                ["", "median, s", "fastest, s", "slowest, s"],
                [
                    [name, f"{median(took):.1f}", f"{min(took):.1f}", f"{max(took):.1f}"]
                    for name, took in found.items()
                ],
            )
        ],
        notes=[
            f"A route with {CALLS_A_SECOND:g} calls a second is well for {WELL_S:g} s and more, then all of its calls fail. Gateway, "
            "ingester, worker and beat run as in production; the rules are the shipped ones. Measured at the provider (its first "
            "500) and at the receiver of the signed webhook, on one clock. Each message came once.",
            "Beat looks at the rules every 10 s, which is most of it; each round begins at another moment of that.",
        ],
    )
