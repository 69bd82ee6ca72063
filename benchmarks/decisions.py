"""From a reviewer's decision to the first byte of what carries it out: at rest, beside 200 other decisions, and beside runs at work.

The whole way: the inbox's own address over HTTP, the broker, a worker, the signed request to a service of one's own. On ``./dev run``
as it is (SQLite, a broker made of files), and on the processes of docker-compose.yml (PostgreSQL, Valkey).
"""

from __future__ import annotations

import http.client
import json
import math
import os
import socketserver
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlencode

from benchmarks.failure import BenchmarkFailed
from benchmarks.installation import Installation
from benchmarks.processes import stage, wait_for
from benchmarks.report import Bar, Options, Section, Table
from benchmarks.runs import CONFIGURATION, START
from tests import servers
from tests.servers import free_port

ROUNDS = 20
#: Decided together by so many reviewers at once, so many each: what the inbox takes in one go.
REVIEWERS, TOGETHER = 4, 50
#: Queued before the decisions beside runs begin.
RUNS = int(os.environ.get("BENCH_DECISIONS_RUNS", "300"))
BAR_S = 1.0
_PAUSE_S, _LONGEST_S = 0.25, 120.0
_FILL = """
import json
from datetime import timedelta
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from llmops.access.models import Membership, Project
from llmops.access.services import create_service_key
from llmops.core.actors import Actor, command_actor
from llmops.tools import services

project = Project.objects.create(slug="bench", name="Benchmark")
key = create_service_key(command_actor("bench"), project=project, name="agent", scopes=["actions"]).key
agent = Actor(kind="service_key", identifier=str(key.pk), name=f"{{key.name}} ({{key.prefix}})")

def made(slug, count):
    tool = services.create_tool(command_actor("bench"), project=project, slug=slug, definition={{
        "description": "Gives money back.", "says": "Refund {{amount}} USD", "risk": "destructive", "executor": "webhook",
        "settings": {{"url": "http://127.0.0.1:{port}/", "allow_private_network": True}}, "concurrency": 100,
        "parameters": {{"type": "object", "properties": {{"amount": {{"type": "number"}}}}}}}})
    services.rotate_secret(command_actor("bench"), tool=tool)
    actions = [services.propose(agent, project=project, tool=slug, arguments={{"amount": n}}) for n in range(count)]
    return [[str(one.pk), str(one.request_id), one.request.digest] for one in actions]

def cookie(name):
    user = get_user_model().objects.create_user(name, is_staff=True)
    Membership.objects.create(user=user, project=project, role="reviewer")
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY], session[BACKEND_SESSION_KEY] = str(user.pk), settings.AUTHENTICATION_BACKENDS[-1]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return f"{{settings.SESSION_COOKIE_NAME}}={{session.session_key}}"

print(json.dumps({{"cookies": [cookie(f"reviewer-{{n}}") for n in range({reviewers} + 1)],
                  "single": made("single", {single}), "together": made("together", {together})}}))
"""


class Receiver:
    """A service that is told to carry actions out. ``begun`` is when the first byte about each action came (``time.time()``)."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}
        #: What the database says, for whoever waits in vain.
        self.told: Callable[[str], Sequence[tuple[Any, ...]]] = lambda _: []
        self.twice = 0
        self._came = threading.Condition()
        told = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                buffer = self.request.recv(65536)
                at = time.time()
                while b"\r\n\r\n" not in buffer:
                    buffer += self.request.recv(65536)
                head, _, body = buffer.partition(b"\r\n\r\n")
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
                while len(body) < int(fields[b"content-length"]):
                    body += self.request.recv(65536)
                told.came(fields[b"webhook-id"].decode(), at)
                self.request.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")

        class Server(socketserver.ThreadingTCPServer):
            request_queue_size, daemon_threads = 500, True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def came(self, action: str, at: float) -> None:
        with self._came:
            self.twice += action in self.begun
            self.begun.setdefault(action, at)
            self._came.notify_all()

    def wait(self, actions: Sequence[str]) -> None:
        with self._came:
            if not self._came.wait_for(lambda: self.begun.keys() >= set(actions), _LONGEST_S):
                missing = len(set(actions) - self.begun.keys())
                raise BenchmarkFailed(
                    f"{missing} of {len(actions)} actions were not begun in {_LONGEST_S:g} s"
                )


def run(options: Options) -> Section:
    rounds = options.rounds or ROUNDS
    bars, rows = [], []
    for name, shared in (("./dev run", False), ("PostgreSQL, Valkey", True)):
        found = _measured(shared, rounds)
        for what in ("at rest", "beside runs", "beside the others", "the others"):
            took = sorted(found[what])
            p95 = took[math.ceil(0.95 * len(took)) - 1]
            print(f"  {name}, {what}: p95 {p95 * 1000:.0f} ms", file=sys.stderr, flush=True)
            if what != "the others":
                bars.append(Bar(f"decision to execution, {name}, {what}, p95", f"< {BAR_S * 1000:.0f} ms",
                                f"{p95 * 1000:.0f} ms", p95 < BAR_S))  # fmt: skip
            figures = (statistics.median(took), p95, took[-1])
            rows.append([f"{name}, {what}", str(len(took)), *(f"{one * 1000:.0f}" for one in figures)])
    return Section(
        "decisions",
        bars=bars,
        tables=[Table(["", "decisions", "median, ms", "p95, ms", "longest, ms"], rows)],
        notes=[
            "From the moment at which a reviewer's browser sends the decision to the first byte of the signed request at the service that "
            "carries it out.",
            f"Beside runs: {RUNS} queued runs of three turns with a tool each, which the same workers work on all the while.",
            f"Beside the others: {REVIEWERS} reviewers approve {TOGETHER} each in one go at the same moment, and a further one goes on "
            "deciding one by one until all of those are begun. The others: from the moment of each one's approval.",
        ],
    )


@contextmanager
def _engines(shared: bool) -> Iterator[tuple[str | None, str | None]]:
    with ExitStack() as stack:
        if shared:
            yield stack.enter_context(servers.postgres()), stack.enter_context(servers.valkey())
        else:
            yield None, None


def _measured(shared: bool, rounds: int) -> dict[str, list[float]]:
    with stage() as here, _engines(shared) as (database, redis), Receiver() as receiver:
        installation = Installation(here, here.directory / "data", database_url=database)
        if redis:
            installation.env["REDIS_URL"] = redis
        notes = here.directory / "notes"
        installation.env |= {"BENCH_NOTES": str(notes), "CONSOLE_TOOL_FUNCTIONS": "note=benchmarks.runs.note"}
        simulated = free_port()
        simulator = here.start("simulator", ["-m", "llmops.simulator", "--port", str(simulated)])
        wait_for(simulator, f"http://127.0.0.1:{simulated}/healthz")
        script = _FILL.format(
            port=receiver.port, reviewers=REVIEWERS, single=4 * rounds + 200, together=REVIEWERS * TOGETHER
        )
        made = json.loads(installation.manage("shell", "-v0", "-c", script).splitlines()[-1])
        installation.tidy()
        if shared:
            _, plane = here.serve(
                "plane", "console.asgi_gateway:application", ready="/readyz", env=installation.env
            )
            installation.env["CONSOLE_GATEWAY_URL"] = f"http://127.0.0.1:{plane}/v1"
            here.start("ingest", ["manage.py", "ingest"], env=installation.env)
            _, port = here.serve(
                "console", "console.asgi_console:application", ready="/readyz", env=installation.env
            )
            celery = ["-m", "celery", "-A", "console"]
            here.start(
                "worker", [*celery, "worker", "-P", "threads", "--concurrency", "4"], env=installation.env
            )
            here.start("beat", [*celery, "beat"], env=installation.env)
        else:
            port = free_port()
            env = installation.env | {"PORT": str(port), "CONSOLE_DEMO": "empty"}
            wait_for(
                here.start("embedded", ["-m", "console.embedded"], env=env), f"http://127.0.0.1:{port}/readyz"
            )
        single = [Waiting(*one) for one in made["single"]]
        reviewer = made["cookies"][-1]
        receiver.told = installation.rows
        # Until the worker is there, and knows the way.
        for _ in range(3):
            _one_by_one(port, reviewer, [single.pop()], receiver)
        found = {"at rest": _one_by_one(port, reviewer, [single.pop() for _ in range(rounds)], receiver)}
        path = installation.data_dir / "bench.yaml"
        path.write_text(CONFIGURATION.format(upstream=f"http://127.0.0.1:{simulated}/v1"))
        installation.manage("apply", "-f", str(path))
        installation.manage("shell", "-v0", "-c", START.format(runs=RUNS))
        found["beside runs"] = _beside_runs(
            port, reviewer, [single.pop() for _ in range(rounds)], receiver, installation
        )
        together = [Waiting(*one) for one in made["together"]]
        found |= _beside(port, made["cookies"], single, together, receiver, installation)
        if receiver.twice:
            raise BenchmarkFailed(f"{receiver.twice} actions were carried out twice")
    return found


class Waiting:
    def __init__(self, action: str, request: str, digest: str) -> None:
        self.action, self.request, self.digest = action, request, digest


def _one_by_one(port: int, cookie: str, waiting: Sequence[Waiting], receiver: Receiver) -> list[float]:
    took = []
    for one in waiting:
        sent = time.time()
        _decide(port, cookie, [one])
        receiver.wait([one.action])
        took.append(receiver.begun[one.action] - sent)
        time.sleep(_PAUSE_S)
    return took


def _beside_runs(
    port: int, cookie: str, waiting: Sequence[Waiting], receiver: Receiver, installation: Installation
) -> list[float]:
    """While there are runs; then until they are over, for what comes next."""
    open_runs = "SELECT count(*) FROM runs_run WHERE finished_at IS NULL"
    took = list[float]()
    for one in waiting:
        if not installation.rows(open_runs)[0][0]:
            raise BenchmarkFailed(f"the runs were over after {len(took)} decisions; ask for more of them")
        took += _one_by_one(port, cookie, [one], receiver)
    until = time.monotonic() + 5 * _LONGEST_S
    while installation.rows(open_runs)[0][0]:
        if time.monotonic() > until:
            raise BenchmarkFailed("the runs do not end")
        time.sleep(1)
    return took


def _beside(
    port: int,
    cookies: Sequence[str],
    single: Sequence[Waiting],
    together: Sequence[Waiting],
    receiver: Receiver,
    installation: Installation,
) -> dict[str, list[float]]:
    *others, reviewer = cookies
    failed: list[BaseException] = []

    def decide(cookie: str, waiting: Sequence[Waiting]) -> None:
        try:
            _decide(port, cookie, waiting, together=True)
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=decide, args=(cookie, together[number * TOGETHER : (number + 1) * TOGETHER]))
        for number, cookie in enumerate(others)
    ]
    for thread in threads:
        thread.start()
    wanted, took, until = {one.action for one in together}, list[float](), time.time() + _LONGEST_S
    for one in single:
        if receiver.begun.keys() >= wanted or failed or time.time() > until:
            break
        sent = time.time()
        _decide(port, reviewer, [one])
        receiver.wait([one.action])
        took.append(receiver.begun[one.action] - sent)
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    receiver.wait(sorted(wanted))
    since = "strftime('%s', approved_at) + strftime('%f', approved_at) - strftime('%S', approved_at)"
    if installation.database_url:
        since = "extract(epoch FROM approved_at)"
    approved = installation.rows(
        f"SELECT a.id, {since} FROM tools_action a JOIN tools_tool t ON t.id = a.tool_id WHERE t.slug = 'together'"
    )
    at = {str(pk).replace("-", ""): float(when) for pk, when in approved}
    return {
        "beside the others": took,
        "the others": [receiver.begun[action] - at[action.replace("-", "")] for action in wanted],
    }


def _decide(port: int, cookie: str, waiting: Sequence[Waiting], *, together: bool = False) -> None:
    """Approve them as the inbox's form does."""
    token = "a" * 32
    form: list[tuple[str, str]] = [
        ("what", "approve"),
        ("reason", "Looked at."),
        ("csrfmiddlewaretoken", token),
    ]
    form += [("request", one.request) for one in waiting]
    form += [(f"seen_{one.request}", one.digest) for one in waiting]
    if together:
        form += [("together", "1"), ("tool", "together"), ("risk", "destructive"), ("project", "bench")]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_LONGEST_S)
    headers = {
        "Cookie": f"{cookie}; csrftoken={token}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    connection.request("POST", "/inbox/decide/", body=urlencode(form), headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != 302:
        raise BenchmarkFailed(f"a decision was answered {answer.status}: {body[:500]!r}")
