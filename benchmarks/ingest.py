"""Calls a second from journals into the database: ``manage.py ingest --once`` over generated journals."""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.installation import Installation
from benchmarks.processes import Stage, stage
from benchmarks.report import Bar, Options, Section, Table
from tests import servers

CALLS = 50_000
ROUNDS = 3
ASKED = 5_000
#: As an installation would run it: the test suite's server gives durability away for speed.
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


@dataclass(frozen=True)
class Ingested:
    """``seconds`` and ``cpu`` of the command less those of one that finds nothing to do."""

    database: str
    seconds: list[float]
    cpu: list[float]
    start_s: float

    @property
    def per_second(self) -> float:
        return CALLS / statistics.median(self.seconds)


def run(options: Options) -> Section:
    rounds = options.rounds or ROUNDS
    found = []
    with stage() as here:
        with _database(here, "SQLite") as url:
            found.append(_measure(here, "SQLite", url, rounds))
        with _database(here, "PostgreSQL") as url:
            found.append(_measure(here, "PostgreSQL", url, rounds))
    rows = [
        [
            one.database,
            f"{one.per_second:,.0f}",
            f"{min(CALLS / s for s in one.seconds):,.0f} to {max(CALLS / s for s in one.seconds):,.0f}",
            f"{statistics.median(one.cpu) / CALLS * 1e6:.0f}",
            f"{one.start_s:.2f}",
        ]
        for one in found
    ]
    measured = found[1].per_second
    return Section(
        "ingest",
        bars=[
            Bar(
                "ingest, sustained, on PostgreSQL",
                f">= {ASKED:,} calls/s",
                f"{measured:,.0f} calls/s",
                measured >= ASKED,
            )
        ],
        tables=[Table(["database", "calls/s", "rounds", "CPU of the ingester, µs/call", "start, s"], rows)],
        notes=[
            f"`manage.py ingest --once` over a journal of {CALLS:,} calls, {rounds} times into the same database, medians; one "
            "call in twenty was retried, one in fifty failed, all are charged to a hard budget. The time that the command "
            "takes to start is taken off and shown apart.",
            "Afterwards the ledger, the rollups and the budget hold exactly the calls that were written and their cost.",
            "PostgreSQL runs on the same cores with fsync and synchronous_commit on; its CPU is not in the column.",
        ],
    )


@contextmanager
def _database(here: Stage, name: str) -> Iterator[str | None]:
    if name == "SQLite":
        yield None
    else:
        with servers.postgres(settings=_DURABLE) as url:
            yield url


def _measure(here: Stage, name: str, url: str | None, rounds: int) -> Ingested:
    installation = Installation(here, here.directory / name.lower(), database_url=url)
    installation.configure(upstream="http://127.0.0.1:9/v1")
    starts = [_ingest(installation) for _ in range(3)]
    start_s, start_cpu = (statistics.median(start[place] for start in starts) for place in (0, 1))
    seconds, cpu = [], []
    calls = cost = 0
    for _ in range(rounds):
        written = json.loads(here.run(["-m", "benchmarks.journal", str(CALLS)], env=installation.env))
        calls, cost = calls + written["calls"], cost + written["cost"]
        took, used = _ingest(installation)
        seconds.append(took - start_s)
        cpu.append(used - start_cpu)
    installation.must_hold(calls=calls, cost=cost, all_answered=False)
    return Ingested(name, seconds, cpu, start_s)


def _ingest(installation: Installation) -> tuple[float, float]:
    """Wall clock and CPU seconds of one run of the command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    installation.manage("ingest", "--once")
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
