"""Thousands of streams through one data-plane process: whether all hold, what each piece is delayed, what each stream takes."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from benchmarks import load, stream_load
from benchmarks.installation import PACED_ROUTE, STREAM_NANO, UPSTREAM_MODELS
from benchmarks.planes import NOT_PINNED, PINNED, Planes, planes
from benchmarks.processes import Started
from benchmarks.report import Bar, Options, Section, Table
from benchmarks.stream_load import Flow
from benchmarks.upstream import MARK, PER_SECOND

ROUNDS = 2
SECONDS = 4.0
MANY, COMPARED = 2_000, 1_000
ASKED_RATIO, ASKED_KB = 2.0, 80


@dataclass
class _Way:
    """One way to the upstream. ``kb`` is what a stream took of the server's memory, each time it was looked at."""

    name: str
    port: int
    model: str
    key: str
    server: Started | None
    flows: list[Flow] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    opened: int = 0

    def run(self, streams: int, seconds: float) -> tuple[Flow, float]:
        """The run, and kilobytes of resident memory for each stream more than before it."""
        pieces = stream_load.pieces_for(streams, seconds)
        request = load.chat_request(
            host="127.0.0.1", port=self.port, model=self.model, key=self.key, mark=MARK, pieces=pieces
        )
        seen: list[int] = []
        before = self.server.rss() if self.server else 0
        look = (lambda: seen.append(self.server.rss())) if self.server else None
        flow = stream_load.run(request, streams=streams, seconds=seconds, pieces=pieces, at_once=look)
        self.opened += streams
        return flow, (seen[0] - before) / streams / 1000 if seen else 0.0


def run(options: Options) -> Section:
    rounds, seconds = options.rounds or ROUNDS, options.seconds or SECONDS
    with planes(PACED_ROUTE) as both:
        direct, relay, gateway = _ways(both)
        for way in (relay, gateway):
            way.run(20, 0.5)
        many, kb = gateway.run(MANY, seconds)
        direct.flows.append(direct.run(COMPARED, seconds)[0])
        for number in range(rounds):
            for way in (relay, gateway) if number % 2 == 0 else (gateway, relay):
                way.flows.append(way.run(COMPARED, seconds)[0])
        both.relay.sent = relay.opened + direct.opened
        both.gateway.sent = gateway.opened
        both.must_add_up(STREAM_NANO)
    ratio = statistics.median(
        ours.percentile(0.99) / theirs.percentile(0.99)
        for ours, theirs in zip(gateway.flows, relay.flows, strict=True)
    )
    rows = [_row(way.name, way.flows) for way in (direct, relay, gateway)]
    rows.append(_row(gateway.name, [many]))
    return Section(
        "streams",
        bars=[
            Bar(f"{MANY:,} streams at once in one process", "none fails", "none failed", met=True),
            Bar(
                f"delay of a piece at p99, {COMPARED:,} streams, data plane / relay",
                f"<= {ASKED_RATIO}",
                f"{ratio:.2f}",
                ratio <= ASKED_RATIO,
            ),
            Bar("memory of a stream", f"<= {ASKED_KB} kB", f"{kb:.0f} kB", kb <= ASKED_KB),
        ],
        tables=[Table(["", "streams", "p50, ms", "p99, ms", "longest, ms", "pieces seen"], rows)],
        notes=[
            f"Each stream gets {PER_SECOND} pieces a second; the delay of a piece is from when the upstream writes it until the "
            f"client has read it, for all pieces that are written while all streams are open, at least {seconds:g} s. Where a "
            "server cannot keep up, the pieces of a stream arrive several at a time. What is direct shows the share of the "
            "upstream and the client.",
            f"Medians of {rounds} alternating rounds. Key, limits, hard budget, policy and journal as in `data_plane`, and the usage is "
            "read out of each stream and hidden from the client, which did not ask for it.",
            f"Memory: resident memory of the process with {MANY:,} streams open, less what it was before, each stream's share.",
            PINNED if both.pinned else NOT_PINNED,
            f"No stream broke or lacked a piece; afterwards the ledger held exactly the {gateway.opened:,} streams, at their cost.",
        ],
    )


def _ways(both: Planes) -> tuple[_Way, _Way, _Way]:
    upstream_port = int(both.upstream_url.rpartition(":")[2])
    model, nobody = UPSTREAM_MODELS[PACED_ROUTE], "no-key-is-asked-for"
    return (
        _Way("direct", upstream_port, model, nobody, None),
        _Way("relay", both.relay.request.port, model, nobody, both.relay.server),
        _Way(
            "data plane",
            both.gateway.request.port,
            PACED_ROUTE,
            both.installation.key,
            both.gateway.server,
        ),
    )


def _row(name: str, flows: list[Flow]) -> list[str]:
    def middle(share: float) -> str:
        return f"{statistics.median(flow.percentile(share) for flow in flows):.1f}"

    seen = sum(len(flow.delays) for flow in flows)
    return [name, f"{flows[0].streams:,}", middle(0.5), middle(0.99), middle(1), f"{seen:,}"]
