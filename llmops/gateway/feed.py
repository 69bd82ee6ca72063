"""The thread that notices what changed and brings the new snapshot. A request never waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError

from llmops.base.live import LIVE_STATE, REVISION, versions
from llmops.gateway.database import drop_connection, use_own_connection
from llmops.serving.selectors import load_snapshot
from llmops.serving.snapshot import Snapshot

log = logging.getLogger(__name__)

POLL_S = 0.2


class Feed(threading.Thread):
    """Calls ``deliver`` with every new snapshot, beginning after ``first``. While the database is away the last one stays."""

    def __init__(self, first: Snapshot, deliver: Callable[[Snapshot], None], *, poll: float = POLL_S) -> None:
        super().__init__(name="gateway-feed", daemon=True)
        self._present = first
        self._deliver = deliver
        self._poll = poll
        self._stop_asked = threading.Event()
        self._away = False

    def run(self) -> None:
        use_own_connection()
        try:
            while not self._stop_asked.wait(self._poll):
                self._look()
        finally:
            drop_connection()

    def stop(self) -> None:
        self._stop_asked.set()

    def _look(self) -> None:
        try:
            numbers = versions()
            seen = (numbers.get(REVISION, 0), numbers.get(LIVE_STATE, 0))
            if seen != (self._present.revision_version, self._present.live_version):
                self._present = load_snapshot(self._present)
                self._deliver(self._present)
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
