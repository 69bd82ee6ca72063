"""The ledger of one host: a file of SQLite that all its data planes share, and that survives them.

Not the console's database, and not asked by a call without the header: a thread of its own does what there is to do, some
0.2 ms a turn. What was written survives the death of a process; the last moments before a power cut may be lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from llmops.gateway.idempotency.ledger import (
    ALIVE_S,
    DEFAULT_BYTES,
    DEFAULT_SECONDS,
    DONE,
    LOST,
    RUNNING,
    TIDY_ENTRIES,
    Entry,
    LedgerAway,
    Name,
)

log = logging.getLogger(__name__)
Result = TypeVar("Result")

BUSY_S = 5.0
#: Entries that make room for another at once.
_MAKE_ROOM = 16
# ``alive`` is until when its owner counts as alive, in Unix seconds; the totals follow the entries by themselves.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
  project TEXT NOT NULL, id BLOB NOT NULL, owner TEXT NOT NULL, at REAL NOT NULL, alive REAL NOT NULL,
  done INTEGER NOT NULL DEFAULT 0, request BLOB NOT NULL, answer BLOB NOT NULL DEFAULT x'',
  UNIQUE (project, id)
);
CREATE INDEX IF NOT EXISTS entry_at ON entry (at);
CREATE INDEX IF NOT EXISTS entry_of ON entry (project, done, at);
CREATE TABLE IF NOT EXISTS total (project TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS entry_in AFTER INSERT ON entry BEGIN
  INSERT INTO total VALUES (new.project, length(new.request) + length(new.answer))
  ON CONFLICT (project) DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER IF NOT EXISTS entry_changes AFTER UPDATE OF answer ON entry BEGIN
  UPDATE total SET bytes = bytes + length(new.answer) - length(old.answer) WHERE project = new.project;
END;
CREATE TRIGGER IF NOT EXISTS entry_out AFTER DELETE ON entry BEGIN
  UPDATE total SET bytes = bytes - length(old.request) - length(old.answer) WHERE project = old.project;
  DELETE FROM total WHERE project = old.project AND bytes <= 0;
END;
"""
_RELEASE = "DELETE FROM entry WHERE project = ? AND id = ? AND owner = ? AND NOT done"
_RENEW = "UPDATE entry SET alive = ? WHERE project = ? AND id = ? AND owner = ? AND NOT done"
_CONCLUDE = "UPDATE entry SET answer = ?, done = 1 WHERE project = ? AND id = ? AND owner = ? AND NOT done"


class OnDisk:
    """``path`` None: in memory, for as long as the process lives. Nothing is opened before somebody asks."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        seconds: float = DEFAULT_SECONDS,
        max_bytes: int = DEFAULT_BYTES,
    ) -> None:
        self._path = path
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    async def claim(self, name: Name, owner: str, request: bytes) -> Entry | None:
        return await self._in_thread(partial(self._claim, name, owner, request))

    async def conclude(self, name: Name, owner: str, answer: bytes) -> None:
        await self._in_thread(partial(self._conclude, name, owner, answer))

    async def release(self, name: Name, owner: str) -> None:
        await self._in_thread(partial(self._execute, _RELEASE, [(*name, owner)]))

    async def renew(self, running: Sequence[tuple[Name, str]]) -> None:
        until = time.time() + ALIVE_S
        rows = [(until, *name, owner) for name, owner in running]
        await self._in_thread(partial(self._execute, _RENEW, rows))

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.submit(self._disconnect)
            thread.shutdown(wait=False)

    # ------------------------------------------------------------------ in the thread

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gateway-idempotency")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._asked, work)

    def _asked(self, work: Callable[[], Result]) -> Result:
        try:
            connection = self._connection or self._connect()
            try:
                connection.execute("BEGIN IMMEDIATE")
                found = work()
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError) as error:
            log.error("the file of idempotency keys, %s, cannot be used: %s", self._path, error)
            self._disconnect()
            raise LedgerAway from error
        return found

    def _connect(self) -> sqlite3.Connection:
        if self._path is not None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(
            self._path or ":memory:", timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        self._connection = connection
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _execute(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        assert self._connection is not None
        self._connection.executemany(statement, rows)

    def _claim(self, name: Name, owner: str, request: bytes) -> Entry | None:
        connection, now = self._connection, time.time()
        assert connection is not None
        too_old = now - self._seconds
        connection.execute(
            "DELETE FROM entry WHERE rowid IN (SELECT rowid FROM entry WHERE at <= ? ORDER BY at LIMIT ?)",
            (too_old, TIDY_ENTRIES),
        )
        connection.execute("DELETE FROM entry WHERE project = ? AND id = ? AND at <= ?", (*name, too_old))
        found = connection.execute(
            "SELECT done, alive, request, answer FROM entry WHERE project = ? AND id = ?", name
        ).fetchone()
        if found is None:
            connection.execute(
                "INSERT INTO entry (project, id, owner, at, alive, request) VALUES (?, ?, ?, ?, ?, ?)",
                (*name, owner, now, now + ALIVE_S, request),
            )
            return None
        done, alive, asked, answer = found
        return Entry(DONE if done else RUNNING if alive >= now else LOST, asked, answer)

    def _conclude(self, name: Name, owner: str, answer: bytes) -> None:
        connection = self._connection
        assert connection is not None
        connection.execute(_CONCLUDE, (answer, *name, owner))
        while connection.execute("SELECT coalesce(sum(bytes), 0) FROM total").fetchone()[0] > self._max_bytes:
            [heaviest] = connection.execute(
                "SELECT project FROM total ORDER BY bytes DESC LIMIT 1"
            ).fetchone()
            gone = connection.execute(
                "DELETE FROM entry WHERE rowid IN "
                "(SELECT rowid FROM entry WHERE project = ? AND done ORDER BY at LIMIT ?)",
                (heaviest, _MAKE_ROOM),
            )
            if not gone.rowcount:
                return


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Of two processes that make the file at once one is refused the mode at once: the busy time-out is not for this."""
    until = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        time.sleep(0.01)
