"""What a stretch of journal records adds to the database in one transaction: rows, charges, and sums of rollups. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from uuid import UUID

from llmops.core.histogram import bucket_of
from llmops.usage.ingest.rows import (
    AT_COST,
    AT_INPUT,
    AT_OUTPUT,
    AT_SAVED,
    AT_SIGNALS,
    FAILED,
    CallRow,
    Facts,
    KeptRow,
)
from llmops.usage.records import (
    BreakerSeen,
    CredentialSeen,
    LimitTold,
)

_HOUR, _DAY = 3600, 86400
_FIRST_DAY = date(1970, 1, 1)
#: Stands for a calendar month (``AttributionRollup.MONTH``).
_MONTH = 31 * _DAY
GRANULARITIES = (60, _HOUR, _DAY)

#: (granularity, bucket as Unix seconds, project, key, endpoint, route, model, feature, status, error code) -> sums
Rollups = dict[tuple[int, int, UUID, UUID, str, str, str, str, str, str], list[int]]
#: (granularity, bucket as Unix seconds, kind, project, end user or tag) -> sums
Attributions = dict[tuple[int, int, str, UUID, str], list[int]]
#: (granularity, bucket as Unix seconds, project, key, route, model, feature, prompt, version) -> sums of ``PromptRollup``
Prompts = dict[tuple[int, int, UUID, UUID, str, str, str, str, int], list[int]]
#: (granularity, bucket as Unix seconds, project, route, model, metric, logarithmic bucket) -> calls
Latencies = dict[tuple[int, int, UUID, str, str, str, int], int]


@dataclass(frozen=True, slots=True)
class Sums:
    """What calls add to rollups."""

    rollups: Rollups
    latencies: Latencies
    attributions: Attributions
    prompts: Prompts


@dataclass(slots=True)
class MeteredRow:
    """A call that is booked if the cost of the object (id, provider) is not booked yet; ``at`` in nanoseconds."""

    object: tuple[str, str]
    at: datetime
    call: CallRow
    soft: list[tuple[UUID, datetime, int]]


@dataclass(slots=True)
class Batch:
    """``charges`` is window -> [cost, overrun]; ``soft`` holds (budget, moment the call began, cost). Objects are named by
    (id, provider)."""

    calls: list[CallRow] = field(default_factory=list)
    charges: dict[int, list[int]] = field(default_factory=dict)
    soft: list[tuple[UUID, datetime, int]] = field(default_factory=list)
    #: (window, call, what it cost beyond its hold, why, when)
    overruns: list[tuple[int, UUID, int, str, datetime]] = field(default_factory=list)
    #: windows of hard budgets that refused a call -> the highest limit at which they did
    refusals: dict[int, int] = field(default_factory=dict)
    keys_used: dict[UUID, int] = field(default_factory=dict)
    #: those of ``keys_used`` whose earlier secret was sent
    old_secrets_used: dict[UUID, int] = field(default_factory=dict)
    credentials_used: dict[UUID, int] = field(default_factory=dict)
    credential_failures: dict[UUID, tuple[int, str]] = field(default_factory=dict)
    #: by credential and the model's name at its provider: when it was told, and what is left of its limits
    limits: dict[tuple[UUID, str], tuple[int, LimitTold]] = field(default_factory=dict)
    health: list[BreakerSeen | CredentialSeen] = field(default_factory=list)
    kept: dict[tuple[str, str], KeptRow] = field(default_factory=dict)
    #: (object, provider, project) -> digests of what it holds
    items: dict[tuple[str, str, UUID], set[int]] = field(default_factory=dict)
    gone: dict[tuple[str, str], tuple[UUID, datetime]] = field(default_factory=dict)
    metered: list[MeteredRow] = field(default_factory=list)
    #: (call, project, route, moment the call began, sealed texts, whether people may read them)
    texts: list[tuple[UUID, UUID, str, datetime, str, bool]] = field(default_factory=list)
    #: (call, project, moment the call began, sealed answer)
    answers: list[tuple[UUID, UUID, datetime, str]] = field(default_factory=list)

    def count(self, metered: MeteredRow) -> None:
        """Book a metered call with the others."""
        self.calls.append(metered.call)
        self.soft.extend(metered.soft)

    def sums(self) -> Sums:
        return Sums(self.rollups(), self.latencies(), self.attributions(), self.prompts())

    def days(self) -> set[date]:
        """The days (UTC) on which the calls began."""
        numbers = {row.facts.minute // _DAY for row in self.calls}
        numbers.update(one.call.facts.minute // _DAY for one in self.metered)
        return {_FIRST_DAY + timedelta(days=number) for number in numbers}

    def rollups(self) -> Rollups:
        """What the calls add to the rollups of every granularity."""
        minutes: dict[tuple[int, tuple[UUID, UUID, str, str, str, str, str, str]], list[int]] = {}
        for row in self.calls:
            facts = row.facts
            sums = minutes.get((facts.minute, facts.dimensions))
            if sums is None:
                minutes[facts.minute, facts.dimensions] = list(facts.sums)
            else:
                _add(sums, facts.sums)
        found: Rollups = {}
        for (minute, dimensions), added in minutes.items():
            for length in GRANULARITIES:
                key = (length, minute - minute % length, *dimensions)
                sums = found.get(key)
                if sums is None:
                    found[key] = list(added)
                else:
                    _add(sums, added)
        return found

    def attributions(self) -> Attributions:
        """What the calls add to the figures by end user and by tag, by day and month."""
        days: dict[tuple[int, str, UUID], dict[str, list[int]]] = {}
        for row in self.calls:
            facts = row.facts
            user, tags = facts.user, facts.tags
            if not user and not tags:
                continue
            added_up = facts.sums
            day, project = facts.minute - facts.minute % _DAY, facts.dimensions[0]
            refused = int(facts.dimensions[6] == "refused")
            added = (
                1,
                refused,
                added_up[AT_INPUT],
                added_up[AT_OUTPUT],
                added_up[AT_COST],
                added_up[AT_SAVED],
            )
            if user:
                _attribute(days, (day, "user", project), (user, ""), added)
            if tags:
                _attribute(days, (day, "tag", project), (*tags, ""), added)
        found: Attributions = {}
        for (day, kind, project), values in days.items():
            month = month_of(day)
            for value, sums in values.items():
                found[_DAY, day, kind, project, value] = sums
                key = (_MONTH, month, kind, project, value)
                if key in found:
                    _add(found[key], sums)
                else:
                    found[key] = list(sums)
        return found

    def prompts(self) -> Prompts:
        """What the calls that name a prompt add to its versions' figures, at every granularity."""
        found: Prompts = {}
        for row in self.calls:
            facts = row.facts
            if facts.prompt is None:
                continue
            project, service_key, _, route, model, feature, status, _ = facts.dimensions
            added_up = facts.sums
            added = (
                added_up[0],
                added_up[0] if status in FAILED else 0,
                added_up[0] if status == "refused" else 0,
                added_up[AT_INPUT],
                added_up[AT_OUTPUT],
                added_up[AT_COST],
                *added_up[AT_SIGNALS:],
            )
            for length in GRANULARITIES:
                bucket = facts.minute - facts.minute % length
                key = (length, bucket, project, service_key, route, model, feature, *facts.prompt)
                sums = found.get(key)
                if sums is None:
                    found[key] = list(added)
                else:
                    _add(sums, added)
        return found

    def latencies(self) -> Latencies:
        """What the calls add to the latency sketches of every granularity."""
        minutes: dict[tuple[int, UUID, str, str], dict[tuple[str, int], int]] = {}
        for row in self.calls:
            facts = row.facts
            measured = _measured(facts)
            if not measured:
                continue
            project, _, _, route, model, *_ = facts.dimensions
            place = (facts.minute, project, route, model)
            sketch = minutes.get(place)
            if sketch is None:
                sketch = minutes[place] = {}
            for metric, value in measured:
                key = (metric, bucket_of(value))
                sketch[key] = sketch.get(key, 0) + 1
        found: Latencies = {}
        for (minute, project, route, model), sketch in minutes.items():
            for length in GRANULARITIES:
                bucket = minute - minute % length
                for (metric, log_bucket), calls in sketch.items():
                    long_key = (length, bucket, project, route, model, metric, log_bucket)
                    found[long_key] = found.get(long_key, 0) + calls
        return found


def _measured(facts: Facts) -> list[tuple[str, int]]:
    found = (("total", facts.total_us), ("ttft", facts.ttft_us), ("overhead", facts.overhead_us))
    return [(metric, value) for metric, value in found if value is not None]


def _attribute(
    days: dict[tuple[int, str, UUID], dict[str, list[int]]],
    place: tuple[int, str, UUID],
    values: tuple[str, ...],
    added: tuple[int, ...],
) -> None:
    known = days.get(place)
    if known is None:
        known = days[place] = {}
    for value in values:
        sums = known.get(value)
        if sums is None:
            known[value] = list(added)
        else:
            _add(sums, added)


@lru_cache(maxsize=1024)
def month_of(second: int) -> int:
    """The first second (Unix) of the calendar month in UTC that holds ``second``."""
    first = datetime.fromtimestamp(second, tz=UTC).replace(day=1, hour=0, minute=0, second=0)
    return int(first.timestamp())


def _add(sums: list[int], added: Sequence[int]) -> None:
    for index, value in enumerate(added):
        if value:
            sums[index] += value
