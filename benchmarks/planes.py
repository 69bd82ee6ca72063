"""The relay and one data-plane process over the same upstream, each ready to be called."""

from __future__ import annotations

import contextlib
import os
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import load
from benchmarks.compare import Side
from benchmarks.failure import BenchmarkFailed
from benchmarks.installation import CALL_NANO, ROUTE, SLOW_ROUTE, UPSTREAM_MODELS, Installation
from benchmarks.processes import Stage, Started, cores, plain_environment, stage, wait_for
from benchmarks.upstream import MARK
from tests.servers import free_port

PINNED = "The server under test is kept on one core; the upstream, the load generator and the ingester share the rest."
NOT_PINNED = "Processes are not pinned to cores here, so that the server shares them with the load generator."


#: What the slow upstream takes.
SLOW_S = 0.05


@dataclass
class Planes:
    stage: Stage
    installation: Installation
    upstream: Started
    upstream_url: str
    relay: Side
    gateway: Side
    ingester: Started | None = None
    #: where the server under test runs; None where processes are not pinned
    server_cores: set[int] | None = None

    @property
    def pinned(self) -> bool:
        return self.server_cores is not None

    def start_ingester(self) -> None:
        found = cores()
        self.ingester = self.stage.start(
            "ingester",
            ["manage.py", "ingest"],
            env=self.installation.env | {"CONSOLE_BACKGROUND": "1"},
            on=found[1] if found else None,
        )

    def stop_ingester(self) -> None:
        if self.ingester is not None:
            self.ingester.must_live()
            self.ingester.stop()
            self.ingester = None

    def served(self) -> int:
        with urllib.request.urlopen(f"{self.upstream_url}/served", timeout=5) as answer:
            return int(answer.read())

    def must_add_up(self, each: int = CALL_NANO, *, cost: int | None = None) -> None:
        """Stop the data plane, book the rest, and compare what was sent, served, recorded and charged: ``each`` costs so many
        nanodollars, or all of them ``cost``.

        Raises ``BenchmarkFailed`` for a call too many or too few anywhere.
        """
        sent = self.relay.sent + self.gateway.sent
        if self.served() != sent:
            raise BenchmarkFailed(f"{sent} requests were answered, but the upstream served {self.served()}")
        self.close_books()
        sent = self.gateway.sent
        self.installation.must_hold(calls=sent, cost=sent * each if cost is None else cost)

    def close_books(self) -> None:
        """Stop the data plane and book the rest of its journal."""
        self.gateway.server.stop()
        self.stop_ingester()
        self.installation.manage("ingest", "--once")
        left = sorted(path.name for path in self.installation.journal_dir.glob("*.jsonl"))
        if left:
            raise BenchmarkFailed(f"journals are left after the last ingest: {', '.join(left)}")


@contextlib.contextmanager
def planes(route: str = ROUTE) -> Iterator[Planes]:
    """Both servers, the upstream and an ingester. ``route`` is what is called, and says what the upstream does."""
    found = cores()
    server, rest = found or (None, None)
    spread = SLOW_S if route == SLOW_ROUTE else 0.0
    usual = os.sched_getaffinity(0) if found else None
    with stage() as here:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        upstream = here.start("upstream", ["-m", "benchmarks.upstream", str(port)], on=rest)
        wait_for(upstream, f"{url}/served")
        installation = Installation(here, here.directory / "data")
        installation.configure(upstream=f"{url}/v1")
        relay, relay_port = here.serve(
            "relay",
            "benchmarks.relay:application",
            env=plain_environment() | {"BENCH_UPSTREAM": f"{url}/v1"},
            on=server,
        )
        gateway, gateway_port = here.serve(
            "data plane", "console.asgi_gateway:application", ready="/readyz", env=installation.env, on=server
        )
        both = Planes(
            here,
            installation,
            upstream,
            url,
            Side(
                "relay",
                relay,
                _request(relay_port, UPSTREAM_MODELS[route], "no-key-is-asked-for"),
                spread=spread,
            ),
            Side("data plane", gateway, _request(gateway_port, route, installation.key), spread=spread),
            server_cores=server,
        )
        both.start_ingester()
        time.sleep(1)
        try:
            if rest:
                os.sched_setaffinity(0, rest)
            yield both
        finally:
            if usual:
                os.sched_setaffinity(0, usual)


def _request(port: int, model: str, key: str) -> load.Request:
    return load.chat_request(host="127.0.0.1", port=port, model=model, key=key, mark=MARK)
