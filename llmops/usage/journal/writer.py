"""The side of a journal that writes."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from llmops.core.errors import ConfigurationRefused, ServiceUnavailable
from llmops.core.ids import uuid7
from llmops.usage.journal.files import lock_path, same_file, segment_path
from llmops.usage.records import Ended, Held, Opened, Record, encode

SEGMENT_BYTES = 64 * 1024 * 1024
#: Disk space kept aside, so that calls in flight can still write down their end on a full disk.
RESERVE_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)


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
        #: segments before the present one, kept for their locks until an ingester has deleted them
        self._complete: list[int] = []
        try:
            self._take_lock()
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
        if self._fd >= 0 and self._missing():
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

    @property
    def sequence(self) -> int:
        """How many records were written."""
        return self._n

    def append(self, record: Record) -> None:
        """Number ``record`` and write it with one system call.

        Raises ``ServiceUnavailable`` when it cannot be written; then nothing of it is in the file and its number is
        free. An ``Ended`` may use the reserved space, so on a full disk it fails later than a ``Held``; a caller whose
        ``Ended`` failed keeps it and appends it again later.
        """
        if self._size >= self._segment_bytes:
            # A segment that cannot be opened now (full disk, too many files) is tried again at the next record.
            with suppress(OSError):
                if self._missing():
                    self._restore()
                self._open_segment(self._number + 1)
        record.n = self._n + 1
        line = encode(record)
        try:
            # Nothing new begins in a file that somebody deleted. Ends are not looked at: a system call more is felt,
            # and what they write is put back with the rest.
            if isinstance(record, Held) and self._fd >= 0 and not os.fstat(self._fd).st_nlink:
                self._restore()
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

    def tend(self) -> str:
        """Put back what somebody deleted or moved away; to be called about once a second.

        Returns what was missing and is there again, as a sentence; empty when nothing was. What cannot be put back yet
        (a full disk) is tried again, and until then ``healthy`` is false.
        """
        if self._fd < 0:
            return ""
        self._let_go_of_deleted()
        restored = []
        with suppress(OSError):
            if self._missing():
                name = segment_path(self._directory, self.journal_id, self._number).name
                self._restore()
                restored.append(name)
        with suppress(OSError):
            # Refused while somebody tries whether the writer is gone: the segments' locks tell them that it is not.
            if not same_file(self._lock_fd, lock_path(self._directory, self.journal_id)):
                self._take_lock()
                restored.append(lock_path(self._directory, self.journal_id).name)
        return f"{' and '.join(restored)} had been removed from {self._directory}" if restored else ""

    def close(self) -> None:
        """End the journal; an ingester then finishes and removes it."""
        self._release_reserve()
        for fd in (self._fd, *self._complete, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock_fd = -1
        self._complete = []

    def _take_lock(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = lock_path(self._directory, self.journal_id)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(fd, f"{self._host} {os.getpid()}\n".encode())
        except OSError:
            os.close(fd)
            raise
        previous, self._lock_fd = self._lock_fd, fd
        if previous >= 0:
            os.close(previous)

    def _missing(self) -> bool:
        """Whether the present segment is not where an ingester looks for it."""
        return not same_file(self._fd, segment_path(self._directory, self.journal_id, self._number))

    def _restore(self) -> None:
        """Write the present segment again, from the file that is still open, and go on there."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = segment_path(self._directory, self.journal_id, self._number)
        temporary = path.with_suffix(".new")
        fd = _new_segment(temporary)
        try:
            copied = 0
            while copied < self._size:
                data = os.pread(self._fd, min(_CHUNK_BYTES, self._size - copied), copied)
                if not data:
                    raise OSError(errno.EIO, "its file was cut short by somebody")
                written = os.write(fd, data)
                if written != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                copied += written
            temporary.rename(path)
        except OSError:
            os.close(fd)
            with suppress(OSError):
                temporary.unlink()
            raise
        previous, self._fd = self._fd, fd
        self._torn = False
        os.close(previous)

    def _let_go_of_deleted(self) -> None:
        for fd in list(self._complete):
            if not os.fstat(fd).st_nlink:
                os.close(fd)
                self._complete.remove(fd)

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
        fd = _new_segment(temporary)
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
            self._complete.append(previous)
            self._let_go_of_deleted()

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


def _new_segment(path: Path) -> int:
    """A new file that is readable (to be written again should it be deleted) and locked before it has its name."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def _reserve_path(directory: Path, journal_id: UUID) -> Path:
    return directory / f"{journal_id}.reserve"
