"""The thread that notices what changed and brings the new snapshot. A request never waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from django.db import DatabaseError, InterfaceError

from llmops.base.live import LIVE_STATE, REVISION, versions
from llmops.gateway.database import drop_connection, use_own_connection
from llmops.prompts.published import prepare_more
from llmops.providers.secret_stores.remembered import MEMORY
from llmops.serving.selectors import load_snapshot
from llmops.serving.snapshot import Snapshot

log = logging.getLogger(__name__)

POLL_S = 0.2
#: How often it is read how many records are in the database.
COUNT_EVERY_S = 2.0
#: So long each look goes on compiling prompts that were published many at once: requests need the processor as well.
PREPARE_S = 0.05
#: Provider keys that could not be read are tried again this often, ...
READ_AGAIN_S = 10.0
#: ... and what still cannot be read is said again this often.
SAY_AGAIN_S = 30.0
#: What is still done on credentials that drain is said this often.
SAY_USES_S = 2.0


class Feed(threading.Thread):
    """Calls ``deliver`` with every new snapshot, beginning after ``first``. While the database is away the last one stays.

    ``report`` is told which provider keys this process cannot read, as credential id -> sentence: when that changes, and
    again while it lasts. ``booked`` reads how many records of this process are in the database; ``heard`` is told that after
    every look, or None when it was not read this time. ``report`` and ``booked`` may raise what the database raises.
    """

    def __init__(
        self,
        first: Snapshot,
        deliver: Callable[[Snapshot], None],
        *,
        poll: float = POLL_S,
        report: Callable[[Mapping[str, str]], None] = lambda unreadable: None,
        booked: Callable[[], int | None] = lambda: None,
        heard: Callable[[int | None], None] = lambda booked: None,
        uses: Callable[[], Mapping[str, tuple[int, int]]] = dict,
        say_uses: Callable[[Mapping[str, tuple[int, int]]], None] = lambda uses: None,
    ) -> None:
        super().__init__(name="gateway-feed", daemon=True)
        self._present = first
        self._deliver = deliver
        self._poll = poll
        self._report = report
        self._booked = booked
        self._heard = heard
        self._store_changes = MEMORY.changes
        self._uses = uses
        self._say_uses = say_uses
        self._said: Mapping[str, tuple[int, int]] = {}
        self._said_at = 0.0
        self._counted_at = 0.0
        self._reported: Mapping[str, str] = {}
        self._reported_at = self._read_at = time.monotonic()
        self._stop_asked = threading.Event()
        self._away = False

    def run(self) -> None:
        use_own_connection()
        try:
            while not self._stop_asked.wait(self._poll):
                self._look()
            with suppress(DatabaseError, InterfaceError):
                if self._reported:
                    self._report({})
                if self._said:
                    self._say_uses({})
        finally:
            drop_connection()

    def stop(self) -> None:
        self._stop_asked.set()

    def _look(self) -> None:
        try:
            numbers = versions()
            seen = (numbers.get(REVISION, 0), numbers.get(LIVE_STATE, 0))
            if seen != (self._present.revision_version, self._present.live_version):
                self._store_changes = MEMORY.changes
                self._take(load_snapshot(self._present))
            elif MEMORY.changes != self._store_changes or (
                self._present.unreadable and time.monotonic() - self._read_at >= READ_AGAIN_S
            ):
                self._read_again()
            prepare_more(PREPARE_S)
            self._tell_unreadable()
            self._tell_heard()
            self._tell_uses()
        except (DatabaseError, InterfaceError) as error:
            if not self._away:
                log.warning("the database is away; serving what is known: %s", error)
            self._away = True
            drop_connection()
        except Exception:
            # A snapshot that cannot be built must not end the feed: the next change may mend it.
            log.exception("the new snapshot cannot be loaded; serving the last one")
        else:
            if self._away:
                log.warning("the database is back")
            self._away = False

    def _take(self, snapshot: Snapshot) -> None:
        self._present = snapshot
        self._read_at = time.monotonic()
        self._deliver(snapshot)

    def _read_again(self) -> None:
        """A file or a store that a reference leads to may be there, or hold another key by now, without a change in the
        database."""
        self._store_changes = MEMORY.changes
        again = load_snapshot(self._present)
        self._read_at = time.monotonic()
        present = self._present
        if (again.unreadable, again.live.credentials) != (present.unreadable, present.live.credentials):
            self._take(again)

    def _tell_heard(self) -> None:
        due = time.monotonic() - self._counted_at >= COUNT_EVERY_S
        if due:
            self._counted_at = time.monotonic()
        self._heard(self._booked() if due else None)

    def _tell_uses(self) -> None:
        uses = self._uses()
        if uses == self._said and not (uses and time.monotonic() - self._said_at >= SAY_USES_S):
            return
        if time.monotonic() - self._said_at < SAY_USES_S / 4:
            # They change with every call; nobody looks that often.
            return
        self._say_uses(uses)
        self._said, self._said_at = uses, time.monotonic()

    def _tell_unreadable(self) -> None:
        unreadable = self._present.unreadable
        due = bool(unreadable) and time.monotonic() - self._reported_at >= SAY_AGAIN_S
        if due or unreadable != self._reported:
            self._report(unreadable)
            self._reported, self._reported_at = unreadable, time.monotonic()
