"""A data-plane process's journal: append-only segment files, written by one process and read by an ingester. Pure.

``<id>.<number>.jsonl`` are the segments (see ``records.py``); ``<id>.lock`` is held with an exclusive flock for the life
of the writer, so whoever gets that lock knows that the writer is gone. A segment is complete once the next one exists.
A plain write survives the death of the process, kill -9 included, but not the loss of power of the machine.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from uuid import UUID

import msgspec

from llmops.core.errors import ConfigurationRefused, ServiceUnavailable
from llmops.core.ids import uuid7
from llmops.usage.records import Ended, Held, Opened, Record, decode, encode

SEGMENT_BYTES = 64 * 1024 * 1024
#: Disk space kept aside, so that calls in flight can still write down their end on a full disk.
RESERVE_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_SEGMENT_NAME = re.compile(r"([0-9a-f-]{36})\.(\d+)\.jsonl")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class JournalDamaged(Exception):
    """A journal cannot be read on: the text names the file, the place and what is wrong there."""


def segment_path(directory: Path, journal_id: UUID, number: int) -> Path:
    return directory / f"{journal_id}.{number}.jsonl"


def lock_path(directory: Path, journal_id: UUID) -> Path:
    return directory / f"{journal_id}.lock"


def _reserve_path(directory: Path, journal_id: UUID) -> Path:
    return directory / f"{journal_id}.reserve"


class JournalWriter:
    """Belongs to one thread. Raises ``ConfigurationRefused`` when ``directory`` cannot hold a journal."""

    def __init__(
        self, directory: Path, *, journal_id: UUID | None = None, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self.journal_id = journal_id or uuid7()
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._host = socket.gethostname()
        self._n = 0
        self._fd = -1
        self._number = -1
        self._size = 0
        self._torn = False
        self._problem = ""
        self._lock_fd = -1
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_fd = os.open(
                lock_path(directory, self.journal_id), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600
            )
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(self._lock_fd, f"{self._host} {os.getpid()}\n".encode())
            self._open_segment(0)
        except OSError as error:
            self.close()
            raise ConfigurationRefused(
                f"The journal directory {directory} cannot be used ({error.strerror}). Set CONSOLE_JOURNAL_DIR to a "
                "directory on a local disk with free space that this process may write to."
            ) from error
        self._make_reserve()

    @property
    def healthy(self) -> bool:
        """Whether the next append is expected to succeed. Turns true again by itself when a full disk has space."""
        if self._fd >= 0 and not os.fstat(self._fd).st_nlink:
            return False
        if not self._problem:
            return True
        with suppress(OSError):
            space = os.statvfs(self._directory)
            if not self._torn and space.f_bavail * space.f_frsize >= 2 * RESERVE_BYTES:
                return True
        return False

    @property
    def problem(self) -> str:
        """Why the last append failed; empty when it did not."""
        return self._problem

    def append(self, record: Record) -> None:
        """Number ``record`` and write it with one system call.

        Raises ``ServiceUnavailable`` when it cannot be written; then nothing of it is in the file and its number is
        free. An ``Ended`` may use the reserved space, so on a full disk it fails later than a ``Held``; a caller whose
        ``Ended`` failed keeps it and appends it again later.
        """
        if self._size >= self._segment_bytes:
            # A segment that cannot be opened now (full disk, too many files) is tried again at the next record.
            with suppress(OSError):
                self._open_segment(self._number + 1)
        record.n = self._n + 1
        line = encode(record)
        try:
            # Nothing new begins in a file that somebody deleted. Ends are not looked at: a system call more is felt,
            # and their holds are lost with the same file.
            if isinstance(record, Held) and self._fd >= 0 and not os.fstat(self._fd).st_nlink:
                raise OSError(errno.ENOENT, "somebody deleted its file; restart this process")
            self._write(line)
        except OSError as error:
            if not (error.errno in _FULL and isinstance(record, Ended) and self._release_reserve()):
                raise self._unwritable(error) from error
            try:
                self._write(line)
            except OSError as again:
                raise self._unwritable(again) from again
        self._n += 1
        self._size += len(line)
        if self._problem:
            self._problem = ""
            self._make_reserve()

    def close(self) -> None:
        """End the journal; an ingester then finishes and removes it."""
        self._release_reserve()
        for fd in (self._fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock_fd = -1

    def _write(self, line: bytes) -> None:
        if self._fd < 0:
            raise OSError(errno.EBADF, "the journal is closed")
        if self._torn:
            os.ftruncate(self._fd, self._size)
            self._torn = False
        try:
            written = os.write(self._fd, line)
            if written == len(line):
                return
        except OSError:
            self._cut()
            raise
        self._cut()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _cut(self) -> None:
        """Take back what a failed write may have left behind."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._torn = True

    def _unwritable(self, error: OSError) -> ServiceUnavailable:
        self._problem = (
            f"The journal in {self._directory} cannot be written ({error.strerror}), and no call may go unrecorded. "
            "Free space on that volume, or set CONSOLE_JOURNAL_DIR to another one and restart."
        )
        return ServiceUnavailable(
            "This server cannot record calls at the moment and takes none until it can; its operators see the reason.",
            retry_after=5,
            data={"reason": "journal"},
        )

    def _open_segment(self, number: int) -> None:
        # Readers take the next segment's existence as the end of this one: it appears whole or not at all.
        path = segment_path(self._directory, self.journal_id, number)
        temporary = path.with_suffix(".new")
        opened = Opened(
            n=self._n + 1,
            at=time.time_ns(),
            journal=str(self.journal_id),
            segment=number,
            host=self._host,
            pid=os.getpid(),
        )
        line = encode(opened)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            if os.write(fd, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            temporary.rename(path)
        except OSError:
            os.close(fd)
            with suppress(OSError):
                temporary.unlink()
            raise
        previous, self._fd = self._fd, fd
        self._number, self._size, self._torn = number, len(line), False
        self._n += 1
        if previous >= 0:
            os.close(previous)

    def _make_reserve(self) -> None:
        with suppress(OSError):
            fd = os.open(
                _reserve_path(self._directory, self.journal_id), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
            )
            try:
                os.posix_fallocate(fd, 0, RESERVE_BYTES)
            finally:
                os.close(fd)

    def _release_reserve(self) -> bool:
        try:
            _reserve_path(self._directory, self.journal_id).unlink()
        except OSError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where a journal was read: bytes of ``segment``, and ``sequence``, the number of the last record read."""

    segment: int = 0
    offset: int = 0
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A record and where it begins: ``sequence`` is the number of the record before it."""

    record: Record
    start: Position


class JournalReader:
    """Reads whole records from ``position`` on, across segments; safe beside a writer that goes on writing."""

    def __init__(self, directory: Path, journal_id: UUID, position: Position = Position()) -> None:
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
        if self._fd_segment == self.position.segment:
            return
        self.close()
        try:
            self._fd = os.open(
                segment_path(self.directory, self.journal_id, self.position.segment), os.O_RDONLY
            )
        except FileNotFoundError:
            raise self._damaged("is missing") from None
        self._fd_segment = self.position.segment

    def _size(self) -> int:
        return os.fstat(self._fd).st_size

    def _damaged(self, what: str) -> JournalDamaged:
        path = segment_path(self.directory, self.journal_id, self.position.segment)
        return JournalDamaged(f"{path.name} {what}, at byte {self.position.offset}.")


class Claim:
    """The lock of a dead writer's journal, held until ``release`` (or the end of a ``with`` block)."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def claim(directory: Path, journal_id: UUID) -> Claim | None:
    """The lock of a journal whose writer is gone, or None while the writer (or another claimant) holds it."""
    fd = os.open(lock_path(directory, journal_id), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return Claim(fd)


def found(directory: Path) -> dict[UUID, list[int]]:
    """Journals with segments in ``directory``: their segment numbers, ascending; empty when it does not exist."""
    journals: dict[UUID, list[int]] = {}
    for name in _names(directory):
        if match := _SEGMENT_NAME.fullmatch(name):
            with suppress(ValueError):
                journals.setdefault(UUID(match[1]), []).append(int(match[2]))
    for numbers in journals.values():
        numbers.sort()
    return journals


def remove_segments(directory: Path, journal_id: UUID, *, below: int) -> int:
    """Delete segments with numbers less than ``below``; returns how many."""
    removed = 0
    for number in found(directory).get(journal_id, []):
        if number < below:
            segment_path(directory, journal_id, number).unlink(missing_ok=True)
            removed += 1
    return removed


def remove(directory: Path, journal_id: UUID) -> None:
    """Delete everything of a journal that is booked and closed; the caller holds its claim."""
    for name in _names(directory):
        if name.startswith(f"{journal_id}."):
            (directory / name).unlink(missing_ok=True)


def remove_leftovers(directory: Path, *, older_than_s: float = 300) -> None:
    """Delete locks and reserves of writers that died before their first segment was there."""
    journals = found(directory)
    now = time.time()
    for name in _names(directory):
        text, _, kind = name.partition(".")
        with suppress(ValueError, OSError):
            if kind != "lock" or (journal_id := UUID(text)) in journals:
                continue
            if now - (directory / name).stat().st_mtime > older_than_s and (
                held := claim(directory, journal_id)
            ):
                with held:
                    remove(directory, journal_id)


def _names(directory: Path) -> Iterator[str]:
    try:
        with os.scandir(directory) as entries:
            yield from sorted(entry.name for entry in entries)
    except FileNotFoundError:
        return
