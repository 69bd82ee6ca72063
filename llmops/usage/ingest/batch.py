"""From journal records to what one transaction writes. Pure.

``Ledger`` follows the calls of one journal that have begun and not ended; ``Batch`` is what a stretch of records adds
to the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from uuid import UUID

from llmops.core.digests import short_digest
from llmops.core.histogram import bucket_of
from llmops.usage.ingest.rows import (
    AT_COST,
    AT_INPUT,
    AT_OUTPUT,
    AT_SAVED,
    AT_SIGNALS,
    FAILED,
    STATUSES,
    BadRecord,
    CallRow,
    Facts,
    KeptRow,
    OpenCall,
    abandoned,
    call_row,
    identifier,
    identity,
    kept_row,
    moment,
    text,
)
from llmops.usage.journal import Entry, Position
from llmops.usage.records import (
    BreakerSeen,
    Charge,
    CredentialSeen,
    Ended,
    Gone,
    Held,
    Holds,
    Kept,
    Metered,
    Opened,
    Outcome,
    TextKept,
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
    health: list[BreakerSeen | CredentialSeen] = field(default_factory=list)
    kept: dict[tuple[str, str], KeptRow] = field(default_factory=dict)
    #: (object, provider, project) -> digests of what it holds
    items: dict[tuple[str, str, UUID], set[int]] = field(default_factory=dict)
    gone: dict[tuple[str, str], tuple[UUID, datetime]] = field(default_factory=dict)
    metered: list[MeteredRow] = field(default_factory=list)
    #: (call, project, route, moment the call began, sealed texts)
    texts: list[tuple[UUID, UUID, str, datetime, str]] = field(default_factory=list)

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


class Ledger:
    """The open calls of one journal, oldest first."""

    def __init__(self, journal_id: UUID) -> None:
        self.journal_id = journal_id
        self._journal = str(journal_id)
        self.open: dict[str, OpenCall] = {}

    def floor(self, position: Position) -> Position:
        """Where a reader that starts anew must begin to know the open calls at ``position``."""
        return next(iter(self.open.values())).first if self.open else position

    def take(self, entries: Sequence[Entry], batch: Batch) -> int:
        """Add records to ``batch``; how many, which is fewer than given when the next one is bad.

        Raises ``BadRecord`` when the first one is.
        """
        for index, entry in enumerate(entries):
            try:
                self._take_one(entry, batch)
            except BadRecord:
                if index:
                    return index
                raise
        return len(entries)

    def recall(self, entries: Sequence[Entry]) -> None:
        """Follow records that are booked already, from a floor on, to know again which calls are open.

        A call that began before the floor had ended by the time the floor was noted; the ends of it that lie behind
        the floor are passed over, since what they end was never seen.
        """
        forgotten = Batch()
        for entry in entries:
            record = entry.record
            if isinstance(record, Ended) and record.attempt:
                call = self.open.get(record.origin.call)
                if call is None or record.attempt not in call.holds:
                    continue
            self._take_one(entry, forgotten)

    def abandon(self, batch: Batch) -> None:
        """End every open call as unknown, its open holds at their full amount: the process is dead."""
        for call in self.open.values():
            outcome = abandoned(call)
            for held in list(call.holds.values()):
                charges = [Charge(one.window, one.held, one.held) for one in held.charges]
                cost = max([held.worst_cost, *(one.held for one in held.charges)])
                ended = Ended(
                    n=0,
                    at=held.at,
                    attempt=held.attempt,
                    origin=held.origin,
                    charges=charges,
                    soft=held.soft,
                    cost=cost,
                )
                self._charge(ended, batch)
                call.end(ended)
            self._store(call, outcome, held_at(call), batch)
        self.open.clear()

    def _take_one(self, entry: Entry, batch: Batch) -> None:
        record = entry.record
        if isinstance(record, Held):
            self._hold(record, entry.start)
        elif isinstance(record, Ended):
            self._end(record, entry.start, batch)
        elif isinstance(record, CredentialSeen):
            self._credential(record, batch)
        elif isinstance(record, BreakerSeen):
            moment(record.at)
            moment(record.until)
            batch.health.append(record)
        elif isinstance(record, Kept):
            self._kept(record, batch)
        elif isinstance(record, Holds):
            self._holds(record.object, record.provider, record.project, record.items, batch)
        elif isinstance(record, Gone):
            self._gone(record, batch)
        elif isinstance(record, Metered):
            self._metered(record, entry.start, batch)
        elif isinstance(record, TextKept):
            began = moment(record.started)
            whose = identifier(record.project, "project")
            row = (identifier(record.call, "call"), whose, text(record.route, 63), began, record.sealed)
            batch.texts.append(row)
        elif not isinstance(record, Opened):
            raise BadRecord(f"is of a kind that is not known: {type(record).__name__}")

    def _hold(self, held: Held, start: Position) -> None:
        if held.attempt < 1 or min([held.worst_cost, *[one.held for one in held.charges]]) < 0:
            raise BadRecord("holds a negative amount or numbers its attempt below 1")
        origin = held.origin
        call = self.open.get(origin.call)
        if call is not None and held.attempt in call.holds:
            raise BadRecord(f"holds twice for attempt {held.attempt} of call {origin.call}")
        if call is None:
            # A hold whose call could not be stored is refused when it is read, not when its process has died.
            call = OpenCall(start, origin, identity(origin))
            for budget in held.soft:
                identifier(budget, "budget")
            self.open[origin.call] = call
        call.holds[held.attempt] = held

    def _end(self, ended: Ended, start: Position, batch: Batch) -> None:
        origin, outcome = ended.origin, ended.outcome
        call = self.open.get(origin.call)
        if ended.attempt and (call is None or ended.attempt not in call.holds):
            raise BadRecord(f"ends attempt {ended.attempt} of call {origin.call}, which holds nothing")
        if (
            ended.cost < 0
            or min([min(one.held, one.cost, one.overrun) for one in ended.charges], default=0) < 0
        ):
            raise BadRecord("settles a negative amount")
        if call is None:
            if outcome is None:
                raise BadRecord(f"ends call {origin.call} without an outcome or an attempt")
            call = OpenCall(start, origin, identity(origin))
        elif outcome is not None and (len(call.holds) > 1 or set(call.holds) - {ended.attempt}):
            raise BadRecord(f"ends call {origin.call} while another attempt of it holds money")
        if outcome is not None and outcome.status not in STATUSES:
            raise BadRecord(f"has the status {outcome.status!r}, which is not known")
        # Everything that may be refused comes before the first change.
        self._charge(ended, batch)
        call.end(ended)
        if outcome is None:
            return
        if (short := ended.short) is not None:
            batch.refusals[short.window] = max(short.limit, batch.refusals.get(short.window, 0))
        self._store(call, outcome, ended.at, batch)
        self.open.pop(origin.call, None)

    def _store(self, call: OpenCall, outcome: Outcome, at: int, batch: Batch) -> None:
        row = call_row(call, outcome, self._journal)
        self._add(row, outcome, at, batch)
        if call.origin.old_secret:
            key, started = row.facts.dimensions[1], call.origin.started
            batch.old_secrets_used[key] = max(started, batch.old_secrets_used.get(key, 0))

    def _add(self, row: CallRow, outcome: Outcome, at: int, batch: Batch) -> None:
        batch.calls.append(row)
        key = row.facts.dimensions[1]
        if at > batch.keys_used.get(key, 0):
            batch.keys_used[key] = at
        for attempt in outcome.attempts:
            if attempt.credential:
                self._credential_used(attempt.credential, at, batch)

    def _credential_used(self, credential: str, at: int, batch: Batch) -> None:
        try:
            key = identifier(credential, "credential")
        except BadRecord:
            # A credential that no row stands for (one of the environment) has nowhere to note its use.
            return
        batch.credentials_used[key] = max(at, batch.credentials_used.get(key, 0))

    def _credential(self, seen: CredentialSeen, batch: Batch) -> None:
        key = identifier(seen.credential, "credential")
        moment(seen.at)
        batch.health.append(seen)
        if seen.status < 400:
            batch.credentials_used[key] = max(seen.at, batch.credentials_used.get(key, 0))
        else:
            batch.credential_failures[key] = (seen.at, f"{seen.status} {seen.code}".strip())

    def _kept(self, kept: Kept, batch: Batch) -> None:
        known = batch.kept.get((kept.object, kept.provider))
        if known is None or known.gone_at is not None:
            batch.kept[kept.object, kept.provider] = kept_row(kept)
        if kept.items:
            self._holds(kept.object, kept.provider, kept.project, kept.items, batch)

    def _holds(self, object_id: str, provider: str, project: str, items: list[str], batch: Batch) -> None:
        whose = (text(object_id, 200), text(provider, 63), identifier(project, "project"))
        batch.items.setdefault(whose, set()).update(map(short_digest, items))

    def _gone(self, gone: Gone, batch: Batch) -> None:
        project, at = identifier(gone.project, "project"), moment(gone.at)
        kept = batch.kept.get((gone.object, gone.provider))
        if kept is None:
            batch.gone[gone.object, gone.provider] = project, at
        else:
            kept.gone_at = at

    def _metered(self, metered: Metered, start: Position, batch: Batch) -> None:
        ended = metered.end
        if ended.outcome is None or ended.attempt or ended.charges or ended.cost < 0:
            raise BadRecord(
                f"meters {metered.object!r} with something that is not a whole call without holds"
            )
        if ended.outcome.status not in STATUSES:
            raise BadRecord(f"has the status {ended.outcome.status!r}, which is not known")
        call = OpenCall(start, ended.origin, identity(ended.origin))
        call.end(ended)
        soft = [(identifier(budget, "budget"), moment(metered.at), ended.cost) for budget in ended.soft]
        row = call_row(call, ended.outcome, self._journal)
        batch.metered.append(MeteredRow((metered.object, metered.provider), moment(metered.at), row, soft))

    def _charge(self, ended: Ended, batch: Batch) -> None:
        """Changes nothing when it raises ``BadRecord``."""
        if ended.soft:
            at = moment(ended.origin.started)
            batch.soft.extend([(identifier(budget, "budget"), at, ended.cost) for budget in ended.soft])
        for charge in ended.charges:
            if charge.overrun:
                moment(ended.at)
                identifier(ended.origin.call, "call")
        for charge in ended.charges:
            amounts = batch.charges.get(charge.window)
            if amounts is None:
                amounts = batch.charges[charge.window] = [0, 0]
            amounts[0] += charge.cost
            if charge.overrun:
                amounts[1] += charge.overrun
                call = identifier(ended.origin.call, "call")
                cause = text(ended.cause, 200) or "not told"
                batch.overruns.append((charge.window, call, charge.overrun, cause, moment(ended.at)))


def held_at(call: OpenCall) -> int:
    return max((held.at for held in call.holds.values()), default=call.origin.started)


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
