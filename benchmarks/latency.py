"""What the data plane adds to a provider that takes 50 ms, at 64 in flight."""

from __future__ import annotations

from benchmarks import compare
from benchmarks.compare import Comparison, alternate
from benchmarks.installation import SLOW_ROUTE
from benchmarks.planes import NOT_PINNED, PINNED, planes
from benchmarks.report import Bar, Options, Section, Table

ROUNDS = 12
SECONDS = 1.0
IN_FLIGHT = 64
ASKED_P50_MS, ASKED_P99_MS = 2.0, 10.0


def run(options: Options) -> Section:
    rounds, seconds = options.rounds or ROUNDS, options.seconds or SECONDS
    with planes(SLOW_ROUTE) as both:
        both.relay.run(in_flight=IN_FLIGHT, seconds=1)
        both.gateway.run(in_flight=IN_FLIGHT, seconds=1)
        beside = alternate(both.relay, both.gateway, in_flight=IN_FLIGHT, rounds=rounds, seconds=seconds)
        both.stop_ingester()
        alone = alternate(both.relay, both.gateway, in_flight=IN_FLIGHT, rounds=rounds, seconds=seconds)
        both.must_add_up()
    p50, p99 = beside.difference(compare.p50) * 1e3, beside.difference(compare.p99) * 1e3
    return Section(
        "latency",
        bars=[
            Bar("added at p50", f"<= {ASKED_P50_MS:g} ms", f"{p50:.2f} ms", p50 <= ASKED_P50_MS),
            Bar("added at p99", f"<= {ASKED_P99_MS:g} ms", f"{p99:.2f} ms", p99 <= ASKED_P99_MS),
        ],
        tables=[
            _table("With the ingester running beside it, as in production:", beside),
            _table("Without the ingester:", alone),
        ],
        notes=[
            f"{IN_FLIGHT} in flight, medians of {rounds} alternating rounds of {seconds:g} s; what is added is the median of "
            "the rounds' own differences. The upstream takes 45 to 55 ms, and the connections begin one after the other, so "
            "that they do not all wait for each other in step. Key, limits, hard budget, policy and journal as in `data_plane`.",
            PINNED if both.pinned else NOT_PINNED,
            f"Afterwards the ledger held exactly the {both.gateway.sent:,} calls that were sent, at their cost.",
        ],
    )


def _table(caption: str, found: Comparison) -> Table:
    rows = [
        [
            name,
            f"{compare.median(one, compare.p50) * 1e3:.2f}",
            f"{compare.median(one, compare.p99) * 1e3:.2f}",
            f"{compare.median(one, compare.per_second):,.0f}",
            f"{compare.median(one, compare.cpu) * 1e6:.0f}",
        ]
        for name, one in (("relay", found.yardstick), ("data plane", found.measured))
    ]
    added = [f"{found.difference(figure) * 1e3:.2f}" for figure in (compare.p50, compare.p99)]
    rows.append(["added", *added, "", f"{found.difference(compare.cpu) * 1e6:.0f}"])
    return Table(["", "p50, ms", "p99, ms", "requests/s", "CPU, µs/request"], rows, caption)
