"""Beginning with what was approved at once, beside everything else that a worker does.

Whoever has just approved an action waits for it. So it stands behind nothing: not behind runs that work for minutes, nor behind the messages
of a broker that is far behind, or away. Each worker process has a lane. It looks into the database some times a second for what is due,
and claims it as everybody does who carries actions out (``services.claim``): of several lanes one gets it, and a message that is lost
holds nothing up. Claims are made one after the other, what was claimed is carried out by a thread of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connection

from llmops.tools.models import Action
from llmops.tools.selectors import Due, due, something_due
from llmops.tools.services import carry_out, claim
from llmops.tools.services.executing import Claimed

log = logging.getLogger(__name__)

#: Seconds between two looks; after a fault of the database; and until a tool that took no more calls is tried again.
LOOK_S, FAULT_S, AGAIN_S = 0.1, 1.0, 0.25
#: Carried out at once by one process, of those set free by one person or service, and claimed between two looks.
MOST, MOST_OF_ONE, AT_ONCE = 24, 12, 4


class Lane:
    """``start`` once; ``stop`` waits for what has begun."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        #: Under way, and who set each free.
        self._under_way: dict[UUID, str] = {}
        #: Tools that take no more calls at once, and until when (monotonic) that is taken for so.
        self._taken: dict[UUID, float] = {}
        self._pool = ThreadPoolExecutor(MOST, thread_name_prefix="action")
        self._thread = threading.Thread(target=self._tend, name="actions", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._pool.shutdown()

    def _tend(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    if something_due():
                        self._begin()
                except (DatabaseError, InterfaceError) as error:
                    log.warning("what was approved cannot be looked up: %s", error)
                    connection.close()
                    self._stopping.wait(FAULT_S)
                except Exception:
                    log.exception("Beginning with what was approved failed")
                    self._stopping.wait(FAULT_S)
                self._ended.wait(LOOK_S)
                self._ended.clear()
        finally:
            connection.close()

    def _begin(self) -> None:
        """Claim what there is room for, a few at a time: what is approved meanwhile may come before the rest."""
        while not self._stopping.is_set():
            now = time.monotonic()
            self._taken = {tool: at for tool, at in self._taken.items() if at > now}
            with self._lock:
                of_one, busy = Counter(self._under_way.values()), set(self._under_way)
            room = MOST - len(busy)
            full = [who for who, count in of_one.items() if count >= MOST_OF_ONE]
            found = due(min(room, AT_ONCE), without=busy, but_of=full, but=self._taken) if room > 0 else []
            if not found:
                return
            for one in found:
                self._claim(one)

    def _claim(self, one: Due) -> None:
        claimed = claim(one.action)
        if claimed is None:
            # Another lane was first, or the tool has as many under way as it may.
            if Action.objects.filter(pk=one.action, state=Action.APPROVED).exists():
                self._taken[one.tool] = time.monotonic() + AGAIN_S
            return
        with self._lock:
            self._under_way[one.action] = one.who
        self._pool.submit(self._carry_out, claimed)

    def _carry_out(self, claimed: Claimed) -> None:
        pk = claimed.action.pk
        try:
            carry_out(claimed)
        except Exception:
            # It stays claimed; after its deadline a person finds out (``services.settle_crashed``).
            log.exception("What came of the action %s could not be written down", pk)
        finally:
            connection.close()
            with self._lock:
                del self._under_way[pk]
            self._ended.set()
