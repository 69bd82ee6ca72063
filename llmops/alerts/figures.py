"""Figures of the last so many seconds, from summaries and rollups alone: what they cost follows from the time, not from the calls.

One ``Figures`` answers a whole evaluation; what two rules ask for alike is read once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import BigIntegerField, Case, Sum, When
from django.db.models.functions import Cast

from llmops.alerts.behind import Failed, causes_first
from llmops.core.histogram import bucket_of
from llmops.core.sketches import calls_in, calls_within, quantiles
from llmops.usage.models import Call, LatencyRollup, Rollup
from llmops.usage.selectors.spans import Stretch, cover, floor
from llmops.usage.selectors.summaries import pieces
from llmops.usage.summaries import WORK, Summed

#: What rules and objectives ask for; nothing else is added up for them.
READ = ("calls", "attempts", "fallback_calls", "input_tokens", "output_tokens", "cost_nano")
_AT = {name: Rollup.SUMS.index(name) for name in READ}
_ERRORS = (Call.ERROR, Call.INTERRUPTED, Call.UNKNOWN)
#: What came and was kept back, or could not be read.
_BROKEN_CONTRACT = ("policy_blocked", "upstream_malformed")
TOTAL, TTFT, OVERHEAD = LatencyRollup.TOTAL, LatencyRollup.TTFT, LatencyRollup.OVERHEAD
#: From here on, windows are made of whole hours.
_BY_HOURS_S = 86_400


@dataclass(frozen=True, slots=True)
class Scope:
    """Empty and None do not narrow."""

    project_id: UUID | None = None
    route: str = ""
    model: str = ""
    feature: str = ""


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

    def slices(self, seconds: int, scope: Scope) -> list[Measured]:
        """By bucket of time: minutes, and hours where there are many."""
        return list(self._read(seconds, scope, "", timedelta(), fine=True).values())

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
        if scope.feature:
            for value, at, summed in _of_feature(stretches, scope, by, fine):
                found.setdefault((value, at), Measured()).summed.add(summed)
            return found
        asked = pieces(
            stretches,
            project_ids=None if scope.project_id is None else [scope.project_id],
            by=(by,) if by else (),
            route=scope.route or None,
            model=scope.model or None,
        )
        for piece in asked:
            place = (piece.value if by else "", piece.bucket.at)
            found.setdefault(place, Measured()).summed.add(piece.summed)
        return found


def _of_feature(
    stretches: list[Stretch], scope: Scope, by: str, fine: bool
) -> list[tuple[str, datetime, Summed]]:
    """Rollups of a feature, by bucket where it is ``fine`` and else by stretch; of how long its calls took nothing is known."""
    found: list[tuple[str, datetime, Summed]] = []
    narrowed: dict[str, Any] = {"feature": scope.feature}
    if scope.project_id is not None:
        narrowed["project_id"] = scope.project_id
    for name in ("route", "model"):
        if value := getattr(scope, name):
            narrowed[name] = value
    columns = [*(["bucket"] if fine else []), *([by] if by else [])]
    sums = {f"sum_{name}": Cast(Sum(name), BigIntegerField()) for name in READ}
    for granularity, start, end in stretches:
        rows: Any = (
            Rollup.objects.filter(granularity=granularity, bucket__gte=start, bucket__lt=end, **narrowed)
            .order_by()
            .annotate(work=Case(When(WORK, then=True), default=False))
            .values_list(*columns, "status", "error_code", "work")
            .annotate(**sums)
        )
        for row in rows:
            told = dict(zip(columns, row, strict=False))
            status, code, work, *added = row[len(columns) :]
            counts = [0] * len(Rollup.SUMS)
            for name, value in zip(READ, added, strict=True):
                counts[_AT[name]] = value
            summed = Summed()
            summed.count((status, code, bool(work)), counts)
            at = told["bucket"].astimezone(UTC) if fine else start
            found.append((told[by] if by else "", at, summed))
    return found
