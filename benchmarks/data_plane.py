"""One data-plane process with everything on, against the bare relay, at 1, 16 and 64 in flight."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks import compare
from benchmarks.compare import Comparison, Round, alternate
from benchmarks.installation import POLICY
from benchmarks.planes import NOT_PINNED, PINNED, planes
from benchmarks.report import Bar, Options, Section, Table

ROUNDS = 12
SECONDS = 0.8
IN_FLIGHT = (1, 16, 64)
HEADLINE = 64
ASKED_RATIO, ASKED_CPU = 0.5, 2.0


def run(options: Options) -> Section:
    rounds, seconds = options.rounds or ROUNDS, options.seconds or SECONDS
    with planes() as both:
        both.relay.run(in_flight=HEADLINE, seconds=1)
        both.gateway.run(in_flight=HEADLINE, seconds=1)
        assert both.ingester is not None
        beside = [
            alternate(
                both.relay,
                both.gateway,
                in_flight=in_flight,
                rounds=rounds,
                seconds=seconds,
                others=[both.upstream, both.ingester],
            )
            for in_flight in IN_FLIGHT
        ]
        both.stop_ingester()
        alone = alternate(
            both.relay,
            both.gateway,
            in_flight=HEADLINE,
            rounds=rounds,
            seconds=seconds,
            others=[both.upstream],
        )
        both.must_add_up()
    headline = next(found for found in beside if found.in_flight == HEADLINE)
    ratio, cost = headline.ratio(compare.per_second), headline.ratio(compare.cpu)
    return Section(
        "data_plane",
        bars=[
            Bar(
                f"requests/s at {HEADLINE} in flight, data plane / relay",
                f">= {ASKED_RATIO}",
                f"{ratio:.2f}",
                ratio >= ASKED_RATIO,
            ),
            Bar(
                f"CPU per request at {HEADLINE} in flight, data plane / relay",
                f"<= {ASKED_CPU}",
                f"{cost:.2f}",
                cost <= ASKED_CPU,
            ),
        ],
        tables=[
            _table("With the ingester running beside it, as in production:", beside),
            _table("Without the ingester:", [alone]),
        ],
        notes=[
            "On: service key, requests and tokens per minute and concurrency limits (set far away), a hard monthly budget, "
            f"{POLICY}, the journal. The data plane is `console.asgi_gateway` in granian on SQLite; the relay is a bare ASGI "
            "application with aiohttp under the same flags.",
            f"Medians of {rounds} alternating rounds of {seconds:g} s; a ratio is the median of the rounds' own ratios, "
            f"which at {HEADLINE} in flight lay between {_span(headline)}.",
            PINNED if both.pinned else NOT_PINNED,
            f"At {HEADLINE} in flight the relay was busy {_busy(headline.yardstick)} of the time and the data plane "
            f"{_busy(headline.measured)}; the rest of their core went to what else ran on this machine. Of one core's time "
            f"were used beside the data plane: {_others(headline)}.",
            f"Afterwards the upstream had served every request once, the ledger held exactly the {both.gateway.sent:,} calls "
            "that were sent to the data plane, and the budget was settled at exactly their cost.",
        ],
    )


def _table(caption: str, found: list[Comparison]) -> Table:
    rows = []
    for one in found:
        for name, rounds in (("relay", one.yardstick), ("data plane", one.measured)):
            rows.append(
                [
                    name,
                    str(one.in_flight),
                    f"{compare.median(rounds, compare.per_second):,.0f}",
                    f"{compare.median(rounds, compare.p50) * 1e3:.2f}",
                    f"{compare.median(rounds, compare.p99) * 1e3:.2f}",
                    f"{compare.median(rounds, compare.cpu) * 1e6:.0f}",
                ]
            )
        ratios = [
            f"{one.ratio(figure):.2f}"
            for figure in (compare.per_second, compare.p50, compare.p99, compare.cpu)
        ]
        rows.append(["ratio", str(one.in_flight), *ratios])
    return Table(["", "in flight", "requests/s", "p50, ms", "p99, ms", "CPU, µs/request"], rows, caption)


def _span(found: Comparison) -> str:
    low, high = found.spread(compare.per_second)
    return f"{low:.2f} and {high:.2f}"


def _busy(rounds: Sequence[Round]) -> str:
    return f"{statistics.median(one.busy for one in rounds):.0%}"


def _others(found: Comparison) -> str:
    names = found.measured[0].rest
    shares = {name: statistics.median(one.rest[name] for one in found.measured) for name in names}
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
