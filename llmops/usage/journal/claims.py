"""Who may finish a journal: whoever holds the locks that its writer held for as long as it lived."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from uuid import UUID

from llmops.usage.journal.files import found, lock_path, names_in, segment_path


class Claim:
    """The locks of a dead writer's journal, held until ``release`` (or the end of a ``with`` block)."""

    def __init__(self, fds: list[int]) -> None:
        self._fds = fds

    def release(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def claim(directory: Path, journal_id: UUID) -> Claim | None:
    """The locks of a journal whose writer is gone, or None while the writer (or another claimant) holds one of them.

    None too when no segment is there: a living writer puts back what was deleted, so that nothing can be concluded.
    """
    numbers = found(directory).get(journal_id)
    if not numbers:
        return None
    held = _claim_lock(directory, journal_id)
    if held is None:
        return None
    try:
        # Any segment tells: a writer holds the locks of all.
        fd = os.open(segment_path(directory, journal_id, numbers[-1]), os.O_RDONLY)
    except FileNotFoundError:
        os.close(held)
        return None
    if _locked(fd):
        return Claim([held, fd])
    os.close(held)
    return None


def _claim_lock(directory: Path, journal_id: UUID) -> int | None:
    fd = os.open(lock_path(directory, journal_id), os.O_RDWR | os.O_CREAT, 0o600)
    return fd if _locked(fd) else None


def _locked(fd: int) -> bool:
    """Lock ``fd``, or close it when somebody else holds its lock."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return False
    return True


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
    for name in names_in(directory):
        if name.startswith(f"{journal_id}."):
            (directory / name).unlink(missing_ok=True)


def remove_leftovers(directory: Path, *, older_than_s: float = 300) -> None:
    """Delete locks and reserves of writers that died before their first segment was there."""
    journals = found(directory)
    now = time.time()
    for name in names_in(directory):
        text, _, kind = name.partition(".")
        with suppress(ValueError, OSError):
            if kind != "lock" or (journal_id := UUID(text)) in journals:
                continue
            if now - (directory / name).stat().st_mtime <= older_than_s:
                continue
            if (fd := _claim_lock(directory, journal_id)) is not None:
                with Claim([fd]):
                    remove(directory, journal_id)
