"""Two servers over the same upstream, measured in turn: A B B A A B ..., so that drift of the machine hits both alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from benchmarks import load
from benchmarks.processes import Started

WARM_UP_S = 0.2


@dataclass
class Side:
    """A server under test. ``sent`` counts every request that it answered, warm-ups included; ``spread``: see ``load.run``."""

    name: str
    server: Started
    request: load.Request
    sent: int = 0
    spread: float = 0.0

    def run(self, *, in_flight: int, seconds: float) -> load.Run:
        run = load.run(self.request, in_flight=in_flight, seconds=seconds, spread=self.spread)
        self.sent += run.requests
        return run


@dataclass(frozen=True)
class Round:
    """``cpu`` is seconds of the server's CPU for each request, ``rest`` the share of the time others were busy."""

    run: load.Run
    cpu: float
    rest: dict[str, float]

    @property
    def busy(self) -> float:
        """The share of the time for which the server itself had a core."""
        return self.cpu * self.run.per_second


Figure = Callable[[Round], float]
per_second: Figure = lambda found: found.run.per_second  # noqa: E731
p50: Figure = lambda found: found.run.percentile(0.50)  # noqa: E731
p99: Figure = lambda found: found.run.percentile(0.99)  # noqa: E731
cpu: Figure = lambda found: found.cpu  # noqa: E731


@dataclass(frozen=True)
class Comparison:
    """Rounds of the yardstick and of what is measured against it; round ``i`` of both ran one after the other."""

    in_flight: int
    yardstick: Sequence[Round]
    measured: Sequence[Round]

    def ratio(self, figure: Figure) -> float:
        """Median over the rounds of measured / yardstick."""
        return statistics.median(
            figure(ours) / figure(theirs) for ours, theirs in zip(self.measured, self.yardstick, strict=True)
        )

    def difference(self, figure: Figure) -> float:
        """Median over the rounds of measured - yardstick."""
        return statistics.median(
            figure(ours) - figure(theirs) for ours, theirs in zip(self.measured, self.yardstick, strict=True)
        )

    def spread(self, figure: Figure) -> tuple[float, float]:
        """Smallest and largest ratio of a round."""
        ratios = [
            figure(ours) / figure(theirs) for ours, theirs in zip(self.measured, self.yardstick, strict=True)
        ]
        return min(ratios), max(ratios)


def median(rounds: Sequence[Round], figure: Figure) -> float:
    return statistics.median(map(figure, rounds))


def alternate(
    yardstick: Side,
    measured: Side,
    *,
    in_flight: int,
    rounds: int,
    seconds: float,
    others: Sequence[Started] = (),
) -> Comparison:
    """``others``: processes whose load is noted beside (the upstream, the ingester)."""
    found: dict[str, list[Round]] = {yardstick.name: [], measured.name: []}
    for number in range(rounds):
        for side in (yardstick, measured) if number % 2 == 0 else (measured, yardstick):
            side.run(in_flight=in_flight, seconds=WARM_UP_S)
            found[side.name].append(_round(side, in_flight, seconds, others))
    return Comparison(in_flight, found[yardstick.name], found[measured.name])


def _round(side: Side, in_flight: int, seconds: float, others: Sequence[Started]) -> Round:
    generator = psutil.Process()
    busy = {other.name: other.cpu() for other in others}
    own, server = sum(generator.cpu_times()[:2]), side.server.cpu()
    run = side.run(in_flight=in_flight, seconds=seconds)
    server = side.server.cpu() - server
    rest = {other.name: (other.cpu() - busy[other.name]) / run.seconds for other in others}
    rest["load generator"] = (sum(generator.cpu_times()[:2]) - own) / run.seconds
    side.server.must_live()
    return Round(run, server / run.requests, rest)
