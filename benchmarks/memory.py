"""Whether the memory of a data-plane process stays flat: its resident size over 200,000 calls, plain and streamed."""

from __future__ import annotations

import math
import statistics

from benchmarks import load
from benchmarks.failure import BenchmarkFailed
from benchmarks.installation import CALL_NANO, ROUTE, STREAM_NANO
from benchmarks.planes import planes
from benchmarks.report import Bar, Options, Section, Table
from benchmarks.upstream import MARK

BLOCKS, BLOCK = 10, 20_000
IN_FLIGHT = 40
#: Of so many connections one asks for streams, of so many pieces.
STREAMED, PIECES = 5, 8
#: What comes before is warming up: pools, caches, the allocator's own arenas.
WARM = 2
ASKED_BYTES = 25


def run(options: Options) -> Section:
    """``rounds`` are the blocks of 20,000 calls; with ``seconds`` a block is over after so many."""
    blocks = options.rounds or BLOCKS
    if blocks < WARM + 2:
        raise BenchmarkFailed(f"at least {WARM + 2} rounds are needed: the first {WARM} are warming up")
    with planes(ROUTE) as both:
        port, key = both.gateway.request.port, both.installation.key
        plain = load.chat_request(host="127.0.0.1", port=port, model=ROUTE, key=key, mark=MARK)
        streamed = load.chat_request(
            host="127.0.0.1", port=port, model=ROUTE, key=key, mark=MARK, pieces=PIECES
        )
        requests = [*[plain] * (STREAMED - 1), streamed]
        server = both.gateway.server
        seen = [(0, server.rss())]
        rates = []
        streams = 0
        for _ in range(blocks):
            done = load.run(requests, in_flight=IN_FLIGHT, seconds=options.seconds or math.inf, most=BLOCK)
            both.gateway.sent += done.requests
            streams += done.answers[-1]
            rates.append(done.per_second)
            seen.append((both.gateway.sent, server.rss()))
            print(
                f"{seen[-1][0]:>9,} calls  {seen[-1][1] / 1e6:7.1f} MB  {done.per_second:,.0f}/s", flush=True
            )
        both.must_add_up(cost=(both.gateway.sent - streams) * CALL_NANO + streams * STREAM_NANO)
    warm = seen[WARM:]
    slope = statistics.linear_regression([calls for calls, _ in warm], [size for _, size in warm]).slope
    rows = [
        [f"{calls:,}", f"{size / 1e6:.1f}", f"{rate:,.0f}" if rate else ""]
        for (calls, size), rate in zip(seen, [0.0, *rates], strict=True)
    ]
    return Section(
        "memory",
        bars=[
            Bar(
                f"growth for each call, from {warm[0][0]:,} to {warm[-1][0]:,}",
                f"<= {ASKED_BYTES} bytes",
                f"{slope:.1f} bytes",
                slope <= ASKED_BYTES,
            )
        ],
        tables=[Table(["calls", "RSS, MB", "calls/s"], rows)],
        notes=[
            f"{IN_FLIGHT} in flight, one in {STREAMED} a stream of {PIECES} pieces; key, limits, hard budget, policy and journal as in "
            f"`data_plane`. The growth is the slope of a straight line through the sizes after the first {WARM} rows.",
            f"Afterwards the ledger held exactly the {both.gateway.sent:,} calls that were sent, at their cost.",
        ],
    )
