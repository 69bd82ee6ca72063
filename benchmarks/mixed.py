"""Small requests beside prompts of a megabyte: how much longer they take than alone."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.compare import Side
from benchmarks.failure import BenchmarkFailed
from benchmarks.installation import CALL_NANO, LARGE_CALL_NANO, ROUTE, UPSTREAM_MODELS
from benchmarks.load import Run
from benchmarks.planes import NOT_PINNED, PINNED, planes
from benchmarks.processes import ROOT
from benchmarks.report import Bar, Options, Section, Table
from benchmarks.upstream import MARK

ROUNDS = 6
SECONDS = 2.0
IN_FLIGHT = 16
PER_SECOND = 10
PROMPT = 1_000_000
ASKED_RATIO = 2.0


@dataclass
class _Seen:
    """Rounds of one server; ``large``: seconds that the large prompts took, of all rounds."""

    side: Side
    model: str
    key: str
    alone: list[Run] = field(default_factory=list)
    beside: list[Run] = field(default_factory=list)
    large: list[float] = field(default_factory=list)

    def ratio(self, share: float) -> float:
        return statistics.median(
            beside.percentile(share) / alone.percentile(share)
            for alone, beside in zip(self.alone, self.beside, strict=True)
        )

    def measure_alone(self, seconds: float) -> None:
        self.alone.append(self.side.run(in_flight=IN_FLIGHT, seconds=seconds))

    def measure_beside(self, seconds: float) -> None:
        # They begin a little before the small ones and end a little after.
        wanted = {
            "request": {
                "host": "127.0.0.1",
                "port": self.side.request.port,
                "model": self.model,
                "key": self.key,
                "mark": MARK.decode(),
                "prompt": PROMPT,
            },
            "per_second": PER_SECOND,
            "seconds": seconds + 1.5,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.prompts", json.dumps(wanted)], cwd=ROOT, stdout=subprocess.PIPE
        )
        try:
            time.sleep(1)
            self.beside.append(self.side.run(in_flight=IN_FLIGHT, seconds=seconds))
            told, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            raise BenchmarkFailed("the large prompts were not answered within a minute") from None
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            raise BenchmarkFailed("the large prompts failed; their reason is above")
        found = json.loads(told)
        self.side.sent += found["sent"]
        self.large += found["latencies"]


def run(options: Options) -> Section:
    rounds, seconds = options.rounds or ROUNDS, options.seconds or SECONDS
    with planes(ROUTE) as both:
        relay = _Seen(both.relay, UPSTREAM_MODELS[ROUTE], "no-key-is-asked-for")
        gateway = _Seen(both.gateway, ROUTE, both.installation.key)
        for one in (relay, gateway):
            one.side.run(in_flight=IN_FLIGHT, seconds=0.5)
        for number in range(rounds):
            for one in (relay, gateway) if number % 2 == 0 else (gateway, relay):
                one.measure_alone(seconds)
                one.measure_beside(seconds)
        large = len(gateway.large)
        both.must_add_up(cost=(both.gateway.sent - large) * CALL_NANO + large * LARGE_CALL_NANO)
    ratio = gateway.ratio(0.99)
    rows = []
    for name, one in (("relay", relay), ("data plane", gateway)):
        rows.append([name, "alone", *_figures(one.alone), ""])
        rows.append([name, "beside", *_figures(one.beside), f"{statistics.median(one.large) * 1e3:.1f}"])
        rows.append([name, "ratio", *(f"{one.ratio(share):.2f}" for share in (0.5, 0.99)), "", ""])
    return Section(
        "mixed",
        bars=[
            Bar(
                f"p99 of small requests, beside large ones / alone, {IN_FLIGHT} in flight",
                f"<= {ASKED_RATIO}",
                f"{ratio:.2f}",
                ratio <= ASKED_RATIO,
            )
        ],
        tables=[
            Table(["", "small requests", "p50, ms", "p99, ms", "requests/s", "a large one, p50, ms"], rows)
        ],
        notes=[
            f"Beside: {PER_SECOND} prompts of {PROMPT / 1e6:g} MB a second, whatever becomes of the ones before. The small ones go "
            f"on as fast as they are answered, {IN_FLIGHT} at a time. Medians of {rounds} alternating rounds of {seconds:g} s; a "
            "ratio is the median of the rounds' own ratios.",
            "Key, limits, hard budget, policy and journal as in `data_plane`; the policy reads every large prompt whole.",
            PINNED if both.pinned else NOT_PINNED,
            f"Afterwards the ledger held exactly the {gateway.side.sent:,} calls that were sent, at their cost.",
        ],
    )


def _figures(rounds: Sequence[Run]) -> list[str]:
    p50, p99 = (statistics.median(run.percentile(share) for run in rounds) for share in (0.5, 0.99))
    return [
        f"{p50 * 1e3:.2f}",
        f"{p99 * 1e3:.2f}",
        f"{statistics.median(run.per_second for run in rounds):,.0f}",
    ]
