"""Figures of the last so many seconds, from summaries and rollups alone: what they cost follows from the time, not from the calls.

One ``Figures`` answers a whole evaluation; what two rules ask for alike is read once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from llmops.alerts.behind import Failed, causes_first
from llmops.core.histogram import bucket_of
from llmops.core.sketches import calls_in, calls_within, quantiles
from llmops.usage.models import Call, LatencyRollup, Rollup
from llmops.usage.selectors.places import Place, Wanted, by_place
from llmops.usage.selectors.spans import Stretch, cover, floor
from llmops.usage.selectors.summaries import pieces
from llmops.usage.summaries import Bucket, Summed

Scope = Place

#: What rules and objectives ask for; nothing else is added up for them.
READ = ("calls", "attempts", "fallback_calls", "input_tokens", "output_tokens", "cost_nano")
_AT = {name: Rollup.SUMS.index(name) for name in READ}
_ERRORS = (Call.ERROR, Call.INTERRUPTED, Call.UNKNOWN)
#: What came and was kept back, or could not be read.
_BROKEN_CONTRACT = ("policy_blocked", "upstream_malformed")
TOTAL, TTFT, OVERHEAD = LatencyRollup.TOTAL, LatencyRollup.TTFT, LatencyRollup.OVERHEAD
#: From here on, windows are made of whole hours.
_BY_HOURS_S = 86_400


@dataclass(slots=True)
class Measured:
    """What calls that a model worked for add up to; the other ones (lists, files) are left out."""

    summed: Summed = field(default_factory=Summed)

    def _sum(self, name: str, *statuses: str) -> int:
        at = _AT[name]
        return sum(
            sums[at]
            for (status, _, work), sums in self.summed.counts.items()
            if work and (not statuses or status in statuses)
        )

    def total(self, name: str) -> int:
        """The sum of one of ``READ``."""
        return self._sum(name)

    @property
    def calls(self) -> int:
        return self._sum("calls")

    @property
    def refused(self) -> int:
        return self._sum("calls", Call.REFUSED)

    @property
    def answered(self) -> int:
        return self._sum("calls", Call.OK)

    @property
    def faults(self) -> int:
        """Calls that failed, broke off or of which nobody knows: the provider's doing, or ours."""
        return self._sum("calls", *_ERRORS)

    @property
    def served(self) -> int:
        """Calls that were to be answered: neither refused by the console nor hung up by the service."""
        return self.answered + self.faults

    @property
    def upstream(self) -> int:
        return self.calls - self.refused

    def with_status(self, status: str) -> int:
        return self._sum("calls", status)

    def with_codes(self, *codes: str) -> int:
        at = _AT["calls"]
        return sum(sums[at] for (_, code, work), sums in self.summed.counts.items() if work and code in codes)

    @property
    def contract_broken(self) -> int:
        """Answers that came and did not keep what they had to: kept back by a policy, or impossible to read."""
        return sum(
            min(sums[_AT["calls"]], sums[_AT["attempts"]])
            for (_, code, work), sums in self.summed.counts.items()
            if work and code in _BROKEN_CONTRACT
        )

    def failures(self) -> tuple[Failed, ...]:
        """Error codes of failures with their calls, causes first."""
        found: dict[str, int] = {}
        for (status, code, work), sums in self.summed.counts.items():
            if work and code and status in _ERRORS:
                found[code] = found.get(code, 0) + sums[_AT["calls"]]
        return causes_first(found)

    def quantile_us(self, metric: str, q: float) -> float | None:
        return quantiles(self.summed.sketches.get(metric, 0), (q,))[0]

    def timed(self, metric: str) -> int:
        return calls_in(self.summed.sketches.get(metric, 0))

    def within(self, metric: str, microseconds: int) -> int:
        """Answers that took at most so long, within 1 % of it."""
        return calls_within(self.summed.sketches.get(metric, 0), bucket_of(microseconds))


class Figures:
    def __init__(self, now: datetime) -> None:
        self.now = now
        self._known: dict[tuple[Any, ...], Any] = {}

    def over(self, seconds: int, scope: Scope, *, ago: timedelta = timedelta()) -> Measured:
        """All calls of ``scope`` in the last ``seconds``, or in as long a time ``ago``."""
        return self._by(seconds, scope, "", ago).get("", Measured())

    def by_route(self, seconds: int, scope: Scope) -> dict[str, Measured]:
        """The same by route; calls that named a model are those of the route ``""``."""
        return self._by(seconds, scope, "route", timedelta())

    def by_bucket(self, seconds: int, scope: Scope) -> dict[tuple[str, datetime], Measured]:
        """By route and bucket of time."""
        return self._read(seconds, scope, "route", timedelta(), fine=True)

    def buckets(self, seconds: int, *, fine: bool = False) -> list[Bucket]:
        """What the last ``seconds`` are made of; ``fine``: all of one length, minutes or, where there are many, hours."""
        return [one for stretch in self._stretches(seconds, timedelta(), fine) for one in stretch.buckets()]

    def in_buckets(
        self, asked: Mapping[Scope, Collection[Bucket]], metrics: Mapping[Scope, Collection[str]]
    ) -> dict[Scope, dict[Bucket, Measured]]:
        """Each of these buckets by itself, with sketches of ``metrics``; of those in which nobody called some are missing. Queries
        do not grow with the scopes."""
        wanted = {
            scope: Wanted(frozenset(buckets), frozenset(metrics.get(scope, ())))
            for scope, buckets in asked.items()
        }
        return {
            scope: {bucket: Measured(summed) for bucket, summed in found.items()}
            for scope, found in by_place(wanted, sums=READ).items()
        }

    def _by(self, seconds: int, scope: Scope, by: str, ago: timedelta) -> dict[str, Measured]:
        key = ("sum", seconds, scope, by, ago)
        if key not in self._known:
            found: dict[str, Measured] = {}
            for (value, _), measured in self._read(seconds, scope, by, ago).items():
                found.setdefault(value, Measured()).summed.add(measured.summed)
            self._known[key] = found
        return self._known[key]

    def _read(
        self, seconds: int, scope: Scope, by: str, ago: timedelta, *, fine: bool = False
    ) -> dict[tuple[str, datetime], Measured]:
        key = ("read", seconds, scope, by, ago, fine)
        if key not in self._known:
            self._known[key] = self._asked(self._stretches(seconds, ago, fine), scope, by, fine)
        return self._known[key]

    def _stretches(self, seconds: int, ago: timedelta, fine: bool) -> list[Stretch]:
        """Whole buckets, with the one that is not over: a window is longer than it says by less than two of them. ``fine``: all
        of one length."""
        step = Rollup.HOUR if seconds >= _BY_HOURS_S or ago else Rollup.MINUTE
        start = floor(self.now - timedelta(seconds=seconds), step) - ago
        end = floor(self.now, step) + timedelta(seconds=step) - ago
        return [Stretch(step, start, end)] if fine else cover(start, end, step)

    def _asked(
        self, stretches: list[Stretch], scope: Scope, by: str, fine: bool
    ) -> dict[tuple[str, datetime], Measured]:
        found: dict[tuple[str, datetime], Measured] = {}
        asked = pieces(
            stretches,
            project_ids=None if scope.project_id is None else [scope.project_id],
            by=(by,) if by else (),
            route=scope.route or None,
            model=scope.model or None,
            feature=scope.feature or None,
            sums=READ,
        )
        for piece in asked:
            place = (piece.value if by else "", piece.bucket.at)
            found.setdefault(place, Measured()).summed.add(piece.summed)
        return found
