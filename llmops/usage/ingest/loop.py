"""Following every journal of a directory."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from django.db import DatabaseError, InterfaceError

from llmops.base.connections import forget
from llmops.usage import journal
from llmops.usage.ingest.follower import Follower

log = logging.getLogger(__name__)

#: Between two looks while nothing is left behind: each transaction has a price, however little it books.
POLL_S = 0.2
_LOOK_EVERY_S = 0.5
_FINISH_EVERY_S = 1.0
_TIDY_EVERY_S = 300.0
_BACK_OFF_S = (0.2, 5.0)


class Ingester:
    """Moves what the journals in ``directory`` hold into the database. Belongs to one thread.

    Any number of them may run on one directory at a time: the database decides which of them books a record.
    """

    def __init__(self, directory: Path, *, batch: int | None = None) -> None:
        self.directory = directory
        self._batch = batch or default_batch()
        self._followers: dict[UUID, Follower] = {}
        #: whether the last batches left something to book
        self.behind = False
        self._looked = self._finished = self._tidied = float("-inf")

    def run(self, stop: threading.Event, *, poll: float = POLL_S) -> None:
        """Until ``stop`` is set. While the database is away the journals keep what happened, and this keeps trying."""
        pause = _BACK_OFF_S[0]
        away = False
        while not stop.is_set():
            begun = time.monotonic()
            try:
                self.tick()
            except (DatabaseError, InterfaceError) as error:
                if not away:
                    log.error(
                        "The database cannot be used (%s). Calls stay in their journals; trying until it is back.",
                        " ".join(str(error).split())[:300],
                    )
                away = True
                self.forget()
                stop.wait(pause)
                pause = min(pause * 2, _BACK_OFF_S[1])
                continue
            if away:
                log.warning("The database is back; booking goes on.")
                away, pause = False, _BACK_OFF_S[0]
            if not self.behind:
                stop.wait(max(0.0, begun + poll - time.monotonic()))

    def run_once(self) -> int:
        """Book everything that is there, finish the journals of dead processes; the number of records booked."""
        booked = 0
        while True:
            self._looked = self._finished = float("-inf")
            count = self.tick()
            if not count:
                return booked
            booked += count

    def tick(self) -> int:
        """One batch of every journal; how many records were booked."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_EVERY_S:
            self._look()
            self._looked = now
        steps = [follower.step(self._batch) for follower in list(self._followers.values())]
        booked = sum(steps)
        self.behind = any(step >= self._batch for step in steps)
        if not booked and now - self._finished >= _FINISH_EVERY_S:
            self._finish()
            self._finished = now
        return booked

    def forget(self) -> None:
        for follower in self._followers.values():
            follower.reset()
        forget()

    def problems(self) -> list[UUID]:
        """Journals that cannot be read on."""
        return [journal_id for journal_id, follower in self._followers.items() if follower.blocked]

    def _look(self) -> None:
        found = journal.found(self.directory)
        for journal_id in found:
            if journal_id not in self._followers:
                self._followers[journal_id] = Follower(self.directory, journal_id)
        for journal_id in set(self._followers) - set(found):
            self._followers.pop(journal_id).reset()
        if time.monotonic() - self._tidied >= _TIDY_EVERY_S:
            journal.remove_leftovers(self.directory)
            self._tidied = time.monotonic()

    def _finish(self) -> None:
        for journal_id, follower in list(self._followers.items()):
            if follower.finish():
                del self._followers[journal_id]


def default_batch() -> int:
    """Records a transaction at most, which only who catches up needs: the more of them, the fewer rows of rollups a call.

    SQLite has one writer, which data planes that lease money must not wait for longer than some 50 ms.
    """
    from django.db import connection

    return 4000 if connection.vendor == "postgresql" else 1000


@contextmanager
def only_ingester(directory: Path) -> Iterator[bool]:
    """Whether this process is the directory's one ingester, for as long as the block lasts.

    Two would do no harm, only the work twice.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(directory / "ingester.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        yield True
    finally:
        os.close(fd)
