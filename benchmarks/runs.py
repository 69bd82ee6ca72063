"""Many queued runs with three turns of tools each, while workers are killed: none lost, none doubled.

The whole way: the API's services, the broker of the installation, two workers of which one is killed (``kill -9``) every ten seconds, a
data plane with journal and budget, and the simulator as provider. The tool is a function that writes a line for each call of it.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.failure import BenchmarkFailed
from benchmarks.installation import Installation
from benchmarks.processes import Stage, Started, stage, wait_for
from benchmarks.report import Bar, Options, Section, Table
from tests import servers
from tests.servers import free_port

RUNS = int(os.environ.get("BENCH_RUNS", "1000"))
KILL_EVERY_S = float(os.environ.get("BENCH_KILL_EVERY", "10"))
TURNS, WORKERS = 3, 2
#: All of them are over by then, or some are lost.
_LONGEST_S = float(os.environ.get("BENCH_RUNS_LONGEST", "1800"))
CONFIGURATION = """\
version: 1
projects:
  - {{slug: bench, name: Benchmark}}
providers:
  - slug: sim
    kind: simulator
    base_url: {upstream}
    allow_private_network: true
    credentials: [{{name: only, secret: "plain:sim"}}]
models:
  - slug: sim-tools
    provider: sim
    model: sim-small+instant+tokens=20+toolturns=3
    context_window: 128000
    max_output_tokens: 4096
    default_max_output_tokens: 256
    capabilities: [chat, stream, tools]
    prices: {{input: "2.50", cached_input: "1.25", output: "10.00"}}
routes:
  - {{slug: bench, targets: [{{model: sim-tools}}]}}
budgets:
  - {{name: bench-month, scope: "project:bench", limit_usd: "1000000.00", period: month, hard: true}}
"""
START = """
import json
from llmops.access.models import Project
from llmops.access.services import create_service_key
from llmops.core.actors import Actor, command_actor
from llmops.runs.rules import read_asked
from llmops.runs.services import start_run
from llmops.tools.services import create_tool
project = Project.objects.get(slug="bench")
create_tool(command_actor("bench"), project=project, slug="note", definition={{
    "description": "Writes a line.", "risk": "write", "executor": "python", "settings": {{"function": "note"}}, "concurrency": 100,
    "parameters": {{"type": "object", "properties": {{"text": {{"type": "string"}}}}}}}})
key = create_service_key(command_actor("bench"), project=project, name="bench runs", scopes=["runs"]).key
actor = Actor(kind="service_key", identifier=str(key.pk), name=f"{{key.name}} ({{key.prefix}})")
for number in range({runs}):
    asked = read_asked({{"messages": [{{"role": "user", "content": f"Run {{number}}."}}], "model": "bench", "tools": ["note"],
                         "mode": "queued", "bounds": {{"seconds": 3600}}}})
    start_run(actor, project=project, asked=asked, idempotency_key=f"run-{{number}}")
"""


def note(arguments: Any, job: Any) -> dict[str, Any]:
    """The side effect: a line of its own, in one write."""
    with Path(os.environ["BENCH_NOTES"]).open("a") as file:
        file.write(f"{job.run} {job.key}\n")
    return {"noted": True}


def run(options: Options) -> Section:
    found = [
        (name, _measured(shared))
        for name, shared in (("SQLite, files as broker", False), ("PostgreSQL, Valkey", True))
    ]
    bars, rows = [], []
    for name, one in found:
        told = f"{one['over']} of {RUNS} answered, {one['twice']} calls of tools twice, {one['unpaid']} turns paid twice"
        bars.append(Bar(f"{name}: none lost, none doubled", "0", told, one["right"]))
        rows.append(
            [
                name,
                f"{one['seconds']:.0f}",
                f"{RUNS / one['seconds']:.1f}",
                str(one["kills"]),
                str(one["followed"]),
                str(one["unknown"]),
            ]
        )
    return Section(
        "runs",
        bars=bars,
        tables=[Table(["", "seconds", "runs/s", "workers killed", "runs followed", "calls unknown"], rows)],
        notes=[
            f"{RUNS:,} queued runs of {TURNS} turns with a tool and one with the answer; {WORKERS} workers, one of them killed every "
            f"{KILL_EVERY_S:g} s. A call of a tool that a kill leaves between its beginning and its record is unknown, is told as that, "
            "and is not made again.",
        ],
    )


@contextmanager
def _engines(shared: bool) -> Iterator[tuple[str | None, str | None]]:
    with ExitStack() as stack:
        if shared:
            yield stack.enter_context(servers.postgres()), stack.enter_context(servers.valkey())
        else:
            yield None, None


def _measured(shared: bool) -> dict[str, Any]:
    with stage() as here, _engines(shared) as (database, redis):
        port = free_port()
        simulator = here.start("simulator", ["-m", "llmops.simulator", "--port", str(port)])
        wait_for(simulator, f"http://127.0.0.1:{port}/healthz")
        installation = Installation(here, here.directory / "data", database_url=database)
        notes = here.directory / "notes"
        notes.touch()
        installation.env |= {
            "BENCH_NOTES": str(notes),
            "CONSOLE_TOOL_FUNCTIONS": "note=benchmarks.runs.note",
        }
        if redis:
            installation.env["REDIS_URL"] = redis
        path = installation.data_dir / "bench.yaml"
        path.write_text(CONFIGURATION.format(upstream=f"http://127.0.0.1:{port}/v1"))
        installation.manage("apply", "-f", str(path))
        _, plane = here.serve(
            "plane", "console.asgi_gateway:application", ready="/readyz", env=installation.env
        )
        installation.env["CONSOLE_GATEWAY_URL"] = f"http://127.0.0.1:{plane}/v1"
        here.start("ingest", ["manage.py", "ingest"], env=installation.env)
        here.start("beat", ["-m", "celery", "-A", "console", "beat", "-l", "warning"], env=installation.env)
        began = time.monotonic()
        installation.manage("shell", "-v0", "-c", START.format(runs=RUNS))
        kills = _worked(here, installation)
        return _told(installation, notes) | {"seconds": time.monotonic() - began, "kills": kills}


def _worker(here: Stage, installation: Installation, number: int) -> Started:
    command = [
        "-m",
        "celery",
        "-A",
        "console",
        "worker",
        "-P",
        "threads",
        "--concurrency",
        "4",
        "-l",
        "warning",
    ]
    return here.start(f"worker-{number}", [*command, "-n", f"w{number}@bench"], env=installation.env)


def _worked(here: Stage, installation: Installation) -> int:
    """Until all runs are over; how many workers were killed for it."""
    workers = [_worker(here, installation, number) for number in range(WORKERS)]
    kills, killed_at, until = 0, time.monotonic(), time.monotonic() + _LONGEST_S
    while installation.rows("SELECT count(*) FROM runs_run WHERE finished_at IS NULL")[0][0]:
        if time.monotonic() > until:
            states = installation.rows("SELECT state, count(*) FROM runs_run GROUP BY state")
            raise BenchmarkFailed(f"after {_LONGEST_S:g} s runs are not over: {states}")
        if time.monotonic() - killed_at >= KILL_EVERY_S:
            workers[kills % WORKERS].popen.kill()
            workers[kills % WORKERS].popen.wait()
            kills += 1
            workers[(kills - 1) % WORKERS] = _worker(here, installation, WORKERS + kills)
            killed_at = time.monotonic()
        time.sleep(0.25)
    return kills


def _told(installation: Installation, notes: Path) -> dict[str, Any]:
    states = dict(installation.rows("SELECT state, count(*) FROM runs_run GROUP BY state"))
    done = Counter(line.split()[1] for line in notes.read_text().splitlines())
    per_run = "SELECT turns FROM runs_run WHERE state = 'succeeded'"
    turns = Counter(row[0] for row in installation.rows(per_run))
    actions = dict(installation.rows("SELECT state, count(*) FROM tools_action GROUP BY state"))
    calls = Counter(
        row[0]
        for row in installation.rows("SELECT CAST(call_id AS varchar) FROM runs_step WHERE kind = 'turn'")
    )
    followed = installation.rows("SELECT count(DISTINCT run_id) FROM runs_step WHERE what = 'followed'")[0][0]
    twice = sum(number > 1 for number in done.values())
    unpaid = sum(number > 1 for number in calls.values())
    over = states.get("succeeded", 0)
    right = (
        over == RUNS
        and turns == {TURNS + 1: RUNS}
        and not twice
        and not unpaid
        and sum(actions.values()) == RUNS * TURNS
        and actions.get("succeeded", 0) <= len(done) <= sum(actions.values())
    )
    if not right:
        print(
            json.dumps(
                {"states": states, "turns": turns, "actions": actions, "effects": len(done)}, default=str
            ),
            flush=True,
        )
    return {
        "over": over, "twice": twice, "unpaid": unpaid, "followed": followed, "unknown": actions.get("unknown", 0), "right": right,
    }  # fmt: skip
