"""The calls of one journal that have begun and not ended, and what each record of it adds to a ``Batch``. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from llmops.core.digests import short_digest
from llmops.usage.ingest.batch import Batch, MeteredRow
from llmops.usage.ingest.rows import (
    STATUSES,
    BadRecord,
    CallRow,
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
    ANSWER,
    BreakerSeen,
    Charge,
    CredentialSeen,
    Ended,
    Gone,
    Held,
    Holds,
    Kept,
    LimitsSeen,
    Metered,
    Opened,
    Outcome,
    TextKept,
)


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
        elif isinstance(record, LimitsSeen):
            self._limits(record, batch)
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
            call = identifier(record.call, "call")
            if record.part == ANSWER:
                batch.answers.append((call, whose, began, record.sealed))
            elif not record.part:
                batch.texts.append(
                    (call, whose, text(record.route, 63), began, record.sealed, record.readable)
                )
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

    def _limits(self, seen: LimitsSeen, batch: Batch) -> None:
        moment(seen.at)
        for told in seen.told:
            try:
                key = identifier(told.credential, "credential")
            except BadRecord:
                continue
            if min(told.requests, told.requests_left, told.tokens, told.tokens_left) < 0:
                raise BadRecord("tells a limit below 0")
            batch.limits[key, told.model[:120]] = (seen.at, told)

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
        soft: list[tuple[UUID, datetime, int]] = []
        overruns: list[tuple[int, UUID, int, str, datetime]] = []
        if ended.soft:
            at = moment(ended.origin.started)
            soft = [(identifier(budget, "budget"), at, ended.cost) for budget in ended.soft]
        for charge in ended.charges:
            if charge.overrun:
                call = identifier(ended.origin.call, "call")
                cause = text(ended.cause, 200) or "not told"
                overruns.append((charge.window, call, charge.overrun, cause, moment(ended.at)))
        batch.soft.extend(soft)
        batch.overruns.extend(overruns)
        for charge in ended.charges:
            amounts = batch.charges.get(charge.window)
            if amounts is None:
                amounts = batch.charges[charge.window] = [0, 0]
            amounts[0] += charge.cost
            amounts[1] += charge.overrun


def held_at(call: OpenCall) -> int:
    return max((held.at for held in call.holds.values()), default=call.origin.started)
