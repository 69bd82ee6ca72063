"""The side of a journal that reads, beside its writer or after it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import msgspec

from llmops.usage.journal.files import found, same_file, segment_path
from llmops.usage.records import Opened, Record, decode

_CHUNK_BYTES = 1024 * 1024


class JournalDamaged(Exception):
    """A journal cannot be read on: the text names the file, the place and what is wrong there."""


class Position(NamedTuple):
    """Up to where a journal was read: bytes of ``segment``, and ``sequence``, the number of the last record read."""

    segment: int = 0
    offset: int = 0
    sequence: int = 0


START = Position()


class Entry(NamedTuple):
    """A record and where it begins: ``sequence`` is the number of the record before it."""

    record: Record
    start: Position


class JournalReader:
    """Reads whole records from ``position`` on, across segments; safe beside a writer that goes on writing."""

    def __init__(self, directory: Path, journal_id: UUID, position: Position = START) -> None:
        self.directory = directory
        self.journal_id = journal_id
        self.position = position
        self._fd = -1
        self._fd_segment = -1

    def read(self, limit: int) -> list[Entry]:
        """At most ``limit`` records; fewer when the end is reached, which a torn last line is part of.

        Raises ``JournalDamaged`` for a line that is no record, a gap in the numbers, a missing or shortened segment.
        What was read before the damage is returned first; the next call raises.
        """
        entries: list[Entry] = []
        while len(entries) < limit:
            segment = self.position.segment
            complete = segment_path(self.directory, self.journal_id, segment + 1).exists()
            try:
                at_end = self._read_segment(entries, limit)
            except JournalDamaged:
                if entries:
                    return entries
                raise
            if not at_end or not complete:
                break
            if self._size() != self.position.offset:
                if entries:
                    return entries
                raise self._damaged("ends in the middle of a record although a later segment exists")
            self.position = Position(segment + 1, 0, self.position.sequence)
        return entries

    def check_later(self) -> None:
        """Raise ``JournalDamaged`` if the next segment is missing and a later one is there: this is not the end."""
        here = self.position.segment
        numbers = found(self.directory).get(self.journal_id, [])
        if numbers and numbers[-1] > here and here + 1 not in numbers:
            self.position = Position(here + 1, 0, self.position.sequence)
            raise self._damaged("is missing")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = self._fd_segment = -1

    def _read_segment(self, entries: list[Entry], limit: int) -> bool:
        """Add records of the present segment; whether its present end was reached."""
        self._open()
        if self._size() < self.position.offset:
            raise self._damaged("is shorter than what was already booked from it")
        while len(entries) < limit:
            wanted, data = _CHUNK_BYTES, b""
            while True:
                data = os.pread(self._fd, wanted, self.position.offset)
                end = data.rfind(b"\n") + 1
                if end or len(data) < wanted:
                    break
                wanted *= 2
            if not end:
                return True
            for line in data[:end].splitlines(keepends=True):
                entries.append(self._take(line))
                if len(entries) == limit:
                    return False
            if len(data) < wanted:
                return True
        return False

    def _take(self, line: bytes) -> Entry:
        try:
            record: Record = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._damaged(f"holds a line that is no record ({error})") from None
        start = self.position
        if record.n != start.sequence + 1:
            raise self._damaged(f"goes from record {start.sequence} to record {record.n}")
        if (start.offset == 0) != isinstance(record, Opened):
            raise self._damaged("does not begin with its opening record, or holds a second one")
        if isinstance(record, Opened) and (record.journal, record.segment) != (
            str(self.journal_id),
            start.segment,
        ):
            raise self._damaged(f"says that it is segment {record.segment} of journal {record.journal}")
        self.position = Position(start.segment, start.offset + len(line), record.n)
        return Entry(record, start)

    def _open(self) -> None:
        path = segment_path(self.directory, self.journal_id, self.position.segment)
        # A segment that was deleted and written again goes on in another file, with the same bytes up to here. One that is
        # missing is read on: its writer puts it back.
        if self._fd_segment == self.position.segment and (same_file(self._fd, path) or not path.exists()):
            return
        self.close()
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise self._damaged("is missing") from None
        self._fd_segment = self.position.segment

    def _size(self) -> int:
        return os.fstat(self._fd).st_size

    def _damaged(self, what: str) -> JournalDamaged:
        path = segment_path(self.directory, self.journal_id, self.position.segment)
        return JournalDamaged(f"{path.name} {what}, at byte {self.position.offset}.")
