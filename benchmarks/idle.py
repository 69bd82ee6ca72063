"""Memory and start times of the whole embedded console: what ``./dev run`` runs, in a new data directory."""

from __future__ import annotations

import time
import urllib.request
from dataclasses import dataclass

import psutil

from benchmarks.failure import BenchmarkFailed
from benchmarks.processes import Stage, Started, plain_environment, stage, wait_for
from benchmarks.report import Bar, Options, Section, Table
from tests.servers import free_port

SETTLE_S = 30
ASKED_MB, ASKED_START_S = 450, 5.0
#: A word of the command line -> what is shown, the first that fits.
_NAMES = {
    "console.asgi_embedded": "web server with both planes",
    "llmops.simulator": "simulator",
    "ingest": "ingester",
    "celery": "Celery worker with beat",
    "console.embedded": "runner",
}


@dataclass(frozen=True)
class _Memory:
    name: str
    rss: float
    pss: float


def run(options: Options) -> Section:
    settle = options.seconds or SETTLE_S
    with stage() as here:
        env = plain_environment() | {
            "CONSOLE_DATA_DIR": str(here.directory / "data"),
            "PORT": str(free_port()),
        }
        first, first_s = _start(here, "first start", env)
        # The first page loads the whole control plane, which nobody should count as rest before it is there.
        with urllib.request.urlopen(f"http://127.0.0.1:{env['PORT']}/", timeout=30) as page:
            if page.status != 200 or b"password" not in page.read():
                raise BenchmarkFailed("the console does not show where to sign in")
        time.sleep(settle)
        memory = _memory(first)
        before = first.cpu()
        time.sleep(settle / 3)
        idle_cpu = (first.cpu() - before) / (settle / 3)
        first.must_live()
        _stop(first)
        again = []
        for number in range(options.rounds or 3):
            second, second_s = _start(here, f"start {number + 2}", env)
            again.append(second_s)
            _stop(second)
    total = sum(one.rss for one in memory)
    second_s = sorted(again)[len(again) // 2]
    rows = [[one.name, f"{one.rss:.0f}", f"{one.pss:.0f}" if one.pss else ""] for one in memory]
    rows.append(["total", f"{total:.0f}", f"{sum(one.pss for one in memory):.0f}"])
    return Section(
        "idle",
        bars=[
            Bar("RSS of all processes", f"< {ASKED_MB} MB", f"{total:.0f} MB", total < ASKED_MB),
            Bar(
                "second start until ready",
                f"<= {ASKED_START_S:g} s",
                f"{second_s:.1f} s",
                second_s <= ASKED_START_S,
            ),
        ],
        tables=[Table(["process", "RSS, MB", "PSS, MB"], rows)],
        notes=[
            f"`python -m console.embedded` in an empty data directory, {settle:g} s after it was ready and its demo traffic and "
            "the sign-in page were served. RSS counts pages that processes share once for each of them, PSS counts them once.",
            f"First start (migrating, filling, unpacking the tokenizer's ranks) until `/readyz`: {first_s:.1f} s; later "
            f"starts: {', '.join(f'{one:.1f}' for one in again)} s.",
            f"Idle, all processes together use {idle_cpu:.1%} of one core.",
        ],
    )


def _start(here: Stage, name: str, env: dict[str, str]) -> tuple[Started, float]:
    began = time.perf_counter()
    started = here.start(name, ["-m", "console.embedded"], env=env)
    wait_for(started, f"http://127.0.0.1:{env['PORT']}/readyz")
    return started, time.perf_counter() - began


def _stop(started: Started) -> None:
    status = started.stop()
    if status:
        raise BenchmarkFailed(f"the console ended with status {status} after SIGTERM")


def _memory(started: Started) -> list[_Memory]:
    """In MB of 1,000,000 bytes, largest first; processes of one kind are summed."""
    found: dict[str, tuple[int, int]] = {}
    for process in started.family():
        if process.status() == psutil.STATUS_ZOMBIE:
            continue
        words = " ".join(process.cmdline())
        name = next((shown for word, shown in _NAMES.items() if word in words), None)
        if name is None:
            parent = process.parent()
            above = " ".join(parent.cmdline()) if parent else ""
            name = next((shown for word, shown in _NAMES.items() if word in above), words[:40])
        rss, pss = found.get(name, (0, 0))
        # PSS can be read on Linux only.
        full = process.memory_full_info() if psutil.LINUX else process.memory_info()
        found[name] = (rss + full.rss, pss + getattr(full, "pss", 0))
    memory = [_Memory(name, rss / 1e6, pss / 1e6) for name, (rss, pss) in found.items()]
    return sorted(memory, key=lambda one: -one.rss)
