"""The figures of one dashboard: of the asked time, and of the same time a week before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import add

from django.urls import reverse

from llmops.core.sketches import quantiles
from llmops.dashboards.boards.scope import Scope
from llmops.dashboards.filters import CUSTOM, NONE_GIVEN, Filters
from llmops.usage.models import Call, LatencyRollup, Rollup
from llmops.usage.selectors.boards import Narrowed, by_bucket, minutes_since
from llmops.usage.selectors.overview import ERRORS
from llmops.usage.selectors.spans import ceil, floor
from llmops.usage.summaries import Summed

WEEK = timedelta(days=7)
PER = {Rollup.MINUTE: "per minute", Rollup.HOUR: "per hour", Rollup.DAY: "per day (UTC)"}
_AT = {name: place for place, name in enumerate(Rollup.SUMS)}
_QUANTILES = (0.5, 0.95, 0.99)
_NARROWING = ("project", "key", "route", "model", "feature")


@dataclass(slots=True)
class Tally:
    """What calls add up to, errands left out. ``sums`` in the order of ``Rollup.SUMS``."""

    sums: list[int] = field(default_factory=lambda: [0] * len(Rollup.SUMS))
    statuses: Counter[str] = field(default_factory=Counter)
    #: (status, error code) -> calls
    codes: Counter[tuple[str, str]] = field(default_factory=Counter)
    sketches: dict[str, int] = field(default_factory=dict)
    _known: dict[str, dict[float, float | None]] = field(default_factory=dict)

    @classmethod
    def of(cls, summed: Summed) -> Tally:
        found = cls(sketches=summed.sketches)
        for (status, code, work), sums in summed.counts.items():
            if not work:
                continue
            found.sums = list(map(add, found.sums, sums))
            found.statuses[status] += sums[0]
            if code:
                found.codes[status, code] += sums[0]
        return found

    def __getitem__(self, name: str) -> int:
        return self.sums[_AT[name]]

    @property
    def failed(self) -> int:
        return sum(self.statuses[status] for status in ERRORS)

    @property
    def refused(self) -> int:
        return self.statuses[Call.REFUSED]

    @property
    def sent(self) -> int:
        """Calls that were not refused before they went anywhere."""
        return self["calls"] - self.refused

    @property
    def ours_us(self) -> int:
        """Of the answered calls whose parts are known, what neither providers nor waiting took."""
        return max(0, self["timed_us"] - self["upstream_us"] - self["queue_us"])

    def quantiles(self, metric: str, *wanted: float) -> list[float | None]:
        """Of ``_QUANTILES``: a sketch is looked through once for all of them."""
        if (known := self._known.get(metric)) is None:
            found = quantiles(self.sketches.get(metric, 0), _QUANTILES)
            known = self._known[metric] = dict(zip(_QUANTILES, found, strict=True))
        return [known[q] for q in wanted]

    def mean_us(self, name: str) -> float | None:
        calls = self["timed_calls"]
        if not calls:
            return None
        return (self.ours_us if name == "ours" else self[name]) / calls


@dataclass(slots=True)
class Gathered:
    """``series`` has a tally for each of ``times``, ``earlier`` (empty where not compared) the same a week before."""

    scope: Scope
    filters: Filters
    narrowed: Narrowed
    start: datetime
    end: datetime
    granularity: int
    times: list[datetime]
    series: list[Tally]
    earlier: list[Tally]
    total: Tally
    total_before: Tally
    notes: list[str]
    #: where calls are listed
    list_url: str

    @property
    def compared(self) -> bool:
        return bool(self.earlier)

    @property
    def per(self) -> str:
        return PER[self.granularity]

    @property
    def words(self) -> str:
        return self.filters.period.words

    def calls(self, **narrowed: object) -> str:
        """Address of the calls behind a figure."""
        base = Filters(
            period=self.filters.period, **{name: getattr(self.filters, name) for name in _NARROWING}
        )
        exact = {} if self.filters.period.granularity else {"from": self.start, "to": self.end}
        return self.list_url + base.query(**{**exact, **narrowed})

    @property
    def whole(self) -> tuple[datetime, datetime, int]:
        return self.start, self.end, self.granularity


def gather(
    scope: Scope, filters: Filters, *, compare: bool, metrics: Collection[str], sums: Collection[str]
) -> Gathered:
    """Of what the scope allows, with durations of these ``metrics`` (``LatencyRollup``) and these ``sums`` (``Rollup``). Two queries or four, twice that where it is compared."""
    narrowed, notes = scope.narrowed(filters), []
    start, end, granularity = filters.period.start, filters.period.end, _granularity(filters)
    since = minutes_since() if granularity == Rollup.MINUTE else None
    if since is not None and start < since:
        granularity, since = Rollup.HOUR, None
        notes.append("Figures by the minute are not kept for so long: these are by the hour.")
    start, end = floor(start, granularity), ceil(end, granularity)
    if compare and since is not None and start - WEEK < since:
        compare = False
        notes.append(
            "Figures by the minute of a week before are no longer kept. Choose 24 hours or more to compare with last week."
        )
    now = by_bucket(narrowed, start, end, granularity, metrics=metrics, sums=sums)
    before = (
        by_bucket(narrowed, start - WEEK, end - WEEK, granularity, metrics=metrics, sums=sums)
        if compare
        else {}
    )
    if metrics and not narrowed.timed:
        notes.append(
            "Durations are kept by project, route and model: of a single key or feature there are counts alone."
        )
    return Gathered(
        scope=scope,
        filters=filters,
        narrowed=narrowed,
        start=start,
        end=end,
        granularity=granularity,
        times=list(now),
        series=[Tally.of(summed) for summed in now.values()],
        earlier=[Tally.of(summed) for summed in before.values()],
        total=Tally.of(_together(now)),
        total_before=Tally.of(_together(before)),
        notes=notes,
        list_url=reverse("dashboards:calls"),
    )


def _together(buckets: dict[datetime, Summed]) -> Summed:
    found = Summed()
    for one in buckets.values():
        found.add(one)
    return found


def _granularity(filters: Filters) -> int:
    period = filters.period
    if period.name != CUSTOM and period.granularity:
        return period.granularity
    if period.length <= timedelta(hours=3):
        return Rollup.MINUTE
    return Rollup.HOUR if period.length <= timedelta(days=8) else Rollup.DAY


def named(value: str, what: str) -> tuple[str, str]:
    """What a group is called, and the filter's value that means it."""
    return (value, value) if value else (f"Without a {what}", NONE_GIVEN)


__all__ = ["Gathered", "LatencyRollup", "Tally", "gather", "named"]
