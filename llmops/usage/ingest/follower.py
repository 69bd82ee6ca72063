"""One journal on its way into the database, a batch a transaction, each record once."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from django.db import DataError, IntegrityError, transaction

from llmops.access.models import ServiceKey
from llmops.access.services import note_old_secrets
from llmops.base.clock import database_now
from llmops.base.locks import lock
from llmops.budgets.services import OverrunOfCall, SoftCharge, WindowCharge, book
from llmops.providers.models import Credential
from llmops.providers.services import (
    BreakerChange,
    CredentialChange,
    LimitsLeft,
    forget_process,
    note_headroom,
    note_health,
)
from llmops.usage import journal, partitions
from llmops.usage.ingest import write
from llmops.usage.ingest.batch import Batch, Sums
from llmops.usage.ingest.ledger import Ledger
from llmops.usage.ingest.rows import BadRecord
from llmops.usage.journal import Claim, Entry, JournalDamaged, JournalReader, Position
from llmops.usage.models import Journal
from llmops.usage.records import BreakerSeen, CredentialSeen, Opened
from llmops.usage.services import ROLLUPS_LOCK, open_journal

log = logging.getLogger(__name__)

#: After a record that the database refused, so many records are booked one by one, to find the one that is at fault.
_CAREFUL_RECORDS = 4000
_RETRY_DAMAGED_S = 60.0
_SIGN_OF_LIFE_S = 10.0
_KEY_USE_EVERY_S = 5.0


class Moved(Exception):
    """Somebody else booked records of this journal meanwhile; begin again where the database stands."""


class Follower:
    """Books one journal. ``step`` until it returns 0; ``finish`` when the writer may be dead.

    After any exception the follower forgets what it knew and reads its position from the database again, because a
    transaction whose end was not heard of may have been committed.
    """

    def __init__(self, directory: Path, journal_id: UUID) -> None:
        self.directory = directory
        self.journal_id = journal_id
        self.closed = False
        self._row: Journal | None = None
        #: state and records booked, when the position was read from the database or last moved there
        self._found: tuple[str, int] | None = None
        self._reader = JournalReader(directory, journal_id)
        self._ledger = Ledger(journal_id)
        self._careful = 0
        self._blocked_until = 0.0
        self._seen = 0.0
        self._removed_below = 0
        self._key_used: dict[UUID, float] = {}
        self._told = ""
        self._days = partitions.Days()

    @property
    def blocked(self) -> bool:
        """Whether the journal is damaged and its next try lies ahead."""
        return time.monotonic() < self._blocked_until

    def step(self, limit: int) -> int:
        """Book up to ``limit`` records in one transaction; how many were booked."""
        if self.blocked:
            return 0
        try:
            self._load()
            if self.closed:
                return 0
            entries = self._reader.read(1 if self._careful else limit)
            if not entries:
                self._sign_of_life()
                return 0
            return self._book(entries)
        except Moved:
            self.reset()
            return 1
        except JournalDamaged as damage:
            if self._another_went_on():
                self.reset()
                return 1
            self._stop(str(damage))
            return 0
        except (IntegrityError, DataError) as refusal:
            return self._refused(refusal)
        except BaseException:
            self.reset()
            raise

    def finish(self) -> bool:
        """If the writer is gone, book what is left, give its leases back and delete the files; whether that was done."""
        if self.blocked:
            return False
        try:
            if self._row is not None and not self.closed:
                self._reader.check_later()
        except JournalDamaged as damage:
            if self._another_went_on():
                self.reset()
            else:
                self._stop(str(damage))
            return False
        held = journal.claim(self.directory, self.journal_id)
        if held is None:
            return False
        with held:
            return self._finish(held)

    def reset(self) -> None:
        self._reader.close()
        self._row = None

    def _finish(self, held: Claim) -> bool:
        while self.step(2000):
            pass
        if self.blocked:
            return False
        try:
            if not self.closed:
                self._close()
        except Moved:
            self.reset()
            return False
        except BaseException:
            self.reset()
            raise
        self._reader.close()
        journal.remove(self.directory, self.journal_id)
        return True

    def _load(self) -> None:
        """Position and open calls as of what is booked."""
        if self._row is not None:
            return
        row = Journal.objects.filter(pk=self.journal_id).first() or self._register()
        self._found = row.state, row.sequence
        self.closed = row.state == Journal.CLOSED
        if self.closed:
            self._row = row
            return
        self._reader.close()
        floor = Position(row.floor_segment, row.floor_offset, row.floor_sequence)
        self._reader = JournalReader(self.directory, self.journal_id, floor)
        self._ledger = Ledger(self.journal_id)
        while (behind := row.sequence - self._reader.position.sequence) > 0:
            entries = self._reader.read(min(behind, 5000))
            if not entries:
                raise JournalDamaged(
                    f"The journal {self.journal_id} ends at record {self._reader.position.sequence}, but {row.sequence} "
                    f"records of it were booked. Is {self.directory} the directory they were written to?"
                )
            self._ledger.recall(entries)
        self._reader.position = Position(row.segment, row.offset, row.sequence)
        self._row = row

    def _another_went_on(self) -> bool:
        """Whether what is missing or short here may be what another follower has booked and removed meanwhile."""
        found = Journal.objects.filter(pk=self.journal_id).values_list("state", "sequence").first()
        return found is not None and found != self._found

    def _register(self) -> Journal:
        opened = JournalReader(self.directory, self.journal_id)
        try:
            entries = opened.read(1)
        finally:
            opened.close()
        first = entries[0].record if entries else None
        if not isinstance(first, Opened):
            raise JournalDamaged(f"The journal {self.journal_id} has no opening record.")
        return open_journal(
            journal_id=self.journal_id,
            host=first.host,
            path=str(self.directory),
            opened_at=datetime.fromtimestamp(first.at / 1e9, tz=UTC),
        )

    def _book(self, entries: list[Entry]) -> int:
        batch = Batch()
        try:
            taken = self._ledger.take(entries, batch)
        except BadRecord as bad:
            path = journal.segment_path(self.directory, self.journal_id, entries[0].start.segment)
            raise JournalDamaged(f"Record {entries[0].record.n} in {path.name} {bad}.") from bad
        if taken < len(entries):
            self._reader.position = entries[taken].start
        self._days.prepare(batch.days())
        # Before the transaction: SQLite has one writer, and nobody waits for what is only thought about.
        sums = batch.sums()
        with transaction.atomic():
            self._advance()
            write_batch(self.journal_id, batch, sums, keys=self._keys_to_note(batch))
        self._careful = max(0, self._careful - taken)
        self._seen = time.monotonic()
        self._tidy()
        return taken

    def _close(self) -> None:
        batch = Batch()
        unknown = len(self._ledger.open)
        self._ledger.abandon(batch)
        self._days.prepare(batch.days())
        with transaction.atomic():
            self._advance(state=Journal.CLOSED)
            write_batch(self.journal_id, batch, keys=batch.keys_used, closing=True)
        self.closed = True
        log.info("Journal %s is finished; %s calls ended unknown", self.journal_id, unknown)

    def _advance(self, state: str = Journal.OPEN) -> None:
        """Move the journal's row to where the reader stands, if it is where this follower believes. Raises ``Moved``."""
        row, to = self._row, self._reader.position
        if row is None:
            raise RuntimeError("the follower has not read its position")
        floor = self._ledger.floor(to)
        change = {
            "segment": to.segment,
            "offset": to.offset,
            "sequence": to.sequence,
            "floor_segment": floor.segment,
            "floor_offset": floor.offset,
            "floor_sequence": floor.sequence,
            "seen_at": database_now(),
            "state": state,
            "problem": "",
        }
        here = Journal.objects.filter(
            pk=row.pk, segment=row.segment, offset=row.offset, sequence=row.sequence
        ).exclude(state=Journal.CLOSED)
        if not here.update(**change):
            raise Moved
        for name, value in change.items():
            setattr(row, name, value)
        self._found = row.state, row.sequence

    def _keys_to_note(self, batch: Batch) -> dict[UUID, int]:
        now = time.monotonic()
        due = {
            key: at
            for key, at in batch.keys_used.items()
            if now - self._key_used.get(key, float("-inf")) >= _KEY_USE_EVERY_S
        }
        self._key_used.update(dict.fromkeys(due, now))
        return due

    def _sign_of_life(self) -> None:
        if self._row is None or time.monotonic() - self._seen < _SIGN_OF_LIFE_S:
            return
        Journal.objects.filter(pk=self.journal_id).update(seen_at=database_now())
        self._seen = time.monotonic()

    def _tidy(self) -> None:
        if self._row is not None and self._row.floor_segment > self._removed_below:
            journal.remove_segments(self.directory, self.journal_id, below=self._row.floor_segment)
            self._removed_below = self._row.floor_segment

    def _refused(self, refusal: Exception) -> int:
        """The database took one of the records for impossible: book one by one, and stop at the one at fault."""
        one_by_one = bool(self._careful)
        at = self._reader.position.sequence
        self.reset()
        if not one_by_one:
            self._careful = _CAREFUL_RECORDS
            return 1
        self._stop(f"Record {at} of journal {self.journal_id} cannot be stored: {refusal}")
        return 0

    def _stop(self, reason: str) -> None:
        """A record that cannot be booked stops its journal, loudly; it is never passed over."""
        self.reset()
        self._blocked_until = time.monotonic() + _RETRY_DAMAGED_S
        text = " ".join(reason.split())[:500]
        Journal.objects.filter(pk=self.journal_id).exclude(problem=text).update(problem=text)
        if text != self._told:
            self._told = text
            log.error(
                "Journal %s is not booked further: %s Its calls are kept in %s.",
                self.journal_id,
                text,
                self.directory,
            )


def write_batch(
    journal_id: UUID,
    batch: Batch,
    sums: Sums | None = None,
    *,
    keys: dict[UUID, int],
    closing: bool = False,
) -> None:
    """Everything a batch adds to the database, inside the caller's transaction; ``sums`` are the batch's, if they are made."""
    # Whoever recomputes rollups holds this lock alone; until then calls and rollups move together.
    lock(ROLLUPS_LOCK, shared=True)
    write.lose_objects(batch.gone)
    write.keep_objects(batch.kept)
    write.keep_texts(batch.texts)
    write.keep_answers(batch.answers)
    write.keep_items(batch.items)
    before = len(batch.calls)
    for metered in sorted(batch.metered, key=lambda one: one.object):
        if write.meter_object(metered.object, metered.at):
            batch.count(metered)
    if sums is None or len(batch.calls) > before:
        sums = batch.sums()
    write.insert_calls(batch.calls)
    write.add_rollups(sums.rollups)
    write.add_latencies(sums.latencies)
    write.add_attributions(sums.attributions)
    write.add_prompts(sums.prompts)
    write.note_use(ServiceKey, [(key, _moment(at)) for key, at in keys.items()])
    note_old_secrets({key: _moment(at) for key, at in batch.old_secrets_used.items()})
    write.note_use(Credential, [(key, _moment(at)) for key, at in batch.credentials_used.items()])
    for key, (at, failure) in sorted(batch.credential_failures.items()):
        Credential.objects.filter(pk=key).update(last_failure_at=_moment(at), last_failure=failure[:120])
    if batch.health:
        host = Journal.objects.filter(pk=journal_id).values_list("host", flat=True).first() or ""
        note_health(process=journal_id, host=host, changes=map(_health, batch.health))
    if batch.limits:
        note_headroom(
            LimitsLeft(
                _moment(at), key, model, told.requests, told.requests_left, told.tokens, told.tokens_left
            )
            for (key, model), (at, told) in batch.limits.items()
        )
    if closing:
        forget_process(journal_id)
    # Last, because data planes that lease wait for these rows.
    book(
        journal_id=journal_id,
        charges=[WindowCharge(window, cost, overrun) for window, (cost, overrun) in batch.charges.items()],
        soft=[SoftCharge(budget, at, cost) for budget, at, cost in batch.soft],
        overruns=[OverrunOfCall(*one) for one in batch.overruns],
        refusals=batch.refusals,
        closing=closing,
    )


def _health(seen: BreakerSeen | CredentialSeen) -> BreakerChange | CredentialChange:
    if isinstance(seen, CredentialSeen):
        return CredentialChange(_moment(seen.at), UUID(seen.credential), seen.status, seen.code)
    return BreakerChange(
        at=_moment(seen.at),
        route=seen.route,
        model=seen.model,
        provider=seen.provider,
        opened=seen.state == "open",
        by=seen.by,
        until=_moment(seen.until) if seen.until else None,
        why=seen.why,
        project=seen.project,
    )


def _moment(nanoseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)
