"""How long publishing takes with many prompts, how soon two data planes serve it, and the pages of that configuration."""

from __future__ import annotations

import http.client
import json
import math
import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from benchmarks import many_prompts
from benchmarks.failure import BenchmarkFailed
from benchmarks.installation import Installation
from benchmarks.processes import Stage, stage, wait_for
from benchmarks.report import Bar, Options, Section, Table
from tests import servers
from tests.servers import free_port

PROMPTS, VERSIONS, ROUTES = (int(os.environ.get(f"BENCH_{name}", most)) for name, most in (
    ("PROMPTS", "1000"), ("VERSIONS", "20"), ("ROUTES", "200"),
))  # fmt: skip
ROUNDS, PAGE_ROUNDS = 5, 20
#: Seconds between two publishes, in which both data planes take the first.
REST_S = 2.0
PUBLISH_S, EFFECT_S, PAGE_MS = 3.0, 1.0, 300
PAGES = {
    "Prompts": "/admin/prompts/prompt/",
    "Prompts, searched": "/admin/prompts/prompt/?q=prompt-7",
    "A prompt": "/admin/prompts/prompt/{prompt}/change/",
    "Routes": "/admin/providers/route/",
    "A route": "/admin/providers/route/{route}/change/",
    "Revisions": "/admin/serving/revision/",
    "Publish, nothing to publish": "/admin/serving/revision/publish/",
}


class Watch(threading.Thread):
    """Calls a data plane all the time by a route whose model is another one in each revision; notes when it changed (Unix
    seconds)."""

    def __init__(self, port: int, key: str) -> None:
        super().__init__(daemon=True)
        self.changed: list[float] = []
        self.slowest = 0.0
        self.failed: list[str] = []
        self._port, self._key = port, key
        self.over = threading.Event()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        body = json.dumps({"model": "flip", "messages": [{"role": "user", "content": "hi"}]})
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        present = ""
        while not self.over.wait(0.01):
            began = time.perf_counter()
            connection.request("POST", "/v1/chat/completions", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            self.slowest = max(self.slowest, time.perf_counter() - began)
            if answer.status != 200:
                self.failed.append(text[:200].decode(errors="replace"))
                continue
            if (model := answer.headers["x-llmops-model"]) != present:
                self.changed.append(time.time())
                present = model
        connection.close()


def run(options: Options) -> Section:
    rounds = options.rounds or ROUNDS
    found = [(name, _measured(url, rounds)) for name, url in (("SQLite", False), ("PostgreSQL", True))]
    bars, rows, pages = [], [], []
    for name, one in found:
        bars += [
            Bar(
                f"publish, {name}, slowest of {rounds}",
                f"<= {PUBLISH_S:g} s",
                f"{max(one['publish']):.2f} s",
                max(one["publish"]) <= PUBLISH_S,
            ),
            Bar(
                f"from commit to effect in both data planes, {name}, slowest",
                f"<= {EFFECT_S:g} s",
                f"{max(one['effect']):.2f} s",
                max(one["effect"]) <= EFFECT_S,
            ),
        ]
        worst = max(one["pages"], key=lambda page: page[2])
        bars.append(
            Bar(
                f"lists, forms and the page that publishes, {name}, p95",
                f"<= {PAGE_MS} ms",
                f"{worst[2]:.0f} ms ({worst[0]})",
                worst[2] <= PAGE_MS,
            )
        )
        rows.append(
            [
                name,
                f"{statistics.median(one['publish']):.2f}",
                f"{max(one['publish']):.2f}",
                f"{statistics.median(one['effect']):.2f}",
                f"{max(one['effect']):.2f}",
                f"{one['all_effect']:.2f}",
                f"{one['slowest'] * 1000:.0f}",
                f"{one['memory'] / 1e6:.0f}",
                f"{one['bytes'] / 1e6:.1f}",
            ]
        )
        pages += [
            [f"{label}, {name}", f"{middle:.0f}", f"{p95:.0f}", f"{first:.0f}"]
            for label, middle, p95, first in one["pages"]
        ]
    return Section(
        "publish",
        bars=bars,
        tables=[
            Table(
                [
                    "", "publish, s", "slowest, s", "effect, s", "slowest, s", "all labels moved, s", "slowest call, ms",
                    "a data plane, MB", "document, MB",
                ],
                rows,
            ),
            Table(["page", "median, ms", "p95, ms", "first, ms"], pages),
        ],
        notes=[
            f"{PROMPTS:,} prompts with {PROMPTS * VERSIONS:,} versions, {ROUTES} routes. One route changes before each publish; "
            "at last the label production of every prompt moves, and that is published.",
            "Effect: from the commit until the later of two data planes answers with the new revision. One client calls each all "
            "the time; its slowest call is over all publishes. No call failed.",
            f"Pages over HTTP, signed in, one at a time, {PAGE_ROUNDS} times each after a first one.",
        ],
    )  # fmt: skip


@contextmanager
def _database(postgres: bool) -> Iterator[str | None]:
    with servers.postgres() if postgres else nullcontext() as url:
        yield url


def _measured(postgres: bool, rounds: int) -> dict[str, Any]:
    with stage() as here, _database(postgres) as url:
        port = free_port()
        upstream = here.start("upstream", ["-m", "benchmarks.upstream", str(port)])
        wait_for(upstream, f"http://127.0.0.1:{port}/served")
        installation = Installation(here, here.directory / "data", database_url=url)
        installation.configure(upstream=f"http://127.0.0.1:{port}/v1")
        made = json.loads(
            installation.manage(
                "shell", "-v0", "-c", many_prompts.fill(prompts=PROMPTS, versions=VERSIONS, routes=ROUTES)
            ).splitlines()[-1]
        )
        installation.manage("revision", "publish", "--reason", "bench")
        # What is in the tables is known to the planner, as after an hour of any installation.
        installation.tidy()
        planes = [
            here.serve(
                f"plane-{number}", "console.asgi_gateway:application", ready="/readyz", env=installation.env
            )
            for number in range(2)
        ]
        watches = [Watch(port, installation.key) for _, port in planes]
        for watch in watches:
            watch.start()
        script = many_prompts.publish(rounds=rounds, rest=REST_S, all_at_once=True)
        lines = [json.loads(line) for line in installation.manage("shell", "-v0", "-c", script).splitlines()]
        _wait_for(watches, 1 + len(lines))
        memory = max(plane.rss() for plane, _ in planes)
        for watch in watches:
            watch.over.set()
            watch.join(30)
            if watch.failed:
                raise BenchmarkFailed(f"{len(watch.failed)} calls failed: {watch.failed[0]}")
        effects = [
            max(watch.changed[1 + index] for watch in watches) - line["at"]
            for index, line in enumerate(lines)
        ]
        pages = _pages(here, installation, made)
    return {
        "publish": [line["seconds"] for line in lines],
        "effect": effects[:-1],
        "all_effect": effects[-1],
        "slowest": max(watch.slowest for watch in watches),
        "memory": memory,
        "bytes": lines[-1]["bytes"],
        "pages": pages,
    }


def _wait_for(watches: list[Watch], changes: int) -> None:
    deadline = time.monotonic() + 60
    while not all(len(watch.changed) >= changes for watch in watches):
        if time.monotonic() > deadline:
            raise BenchmarkFailed("the last revision is not served after a minute")
        time.sleep(0.05)


def _pages(
    here: Stage, installation: Installation, made: dict[str, str]
) -> list[tuple[str, float, float, float]]:
    console, port = here.serve(
        "console", "console.asgi_console:application", ready="/readyz", env=installation.env
    )
    found = []
    for name, address in PAGES.items():
        took = []
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(PAGE_ROUNDS + 1):
            began = time.perf_counter()
            connection.request("GET", address.format(**made), headers={"Cookie": made["cookie"]})
            answer = connection.getresponse()
            body = answer.read()
            took.append((time.perf_counter() - began) * 1000)
            if answer.status != 200:
                raise BenchmarkFailed(f"{address} answered {answer.status}: {body[:300]!r}")
        connection.close()
        later = sorted(took[1:])
        found.append((name, statistics.median(later), later[math.ceil(0.95 * len(later)) - 1], took[0]))
    console.must_live()
    return found
