"""Who reads the answers of runs in this process, and writes down what is heard, so that any process can show it.

One thread writes for all runs: every tenth of a second what is new goes into the database in one transaction, and whether somebody
cancelled a run, or nobody looks at it any more, is read there. It ends when there is nothing to read.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections, connection, transaction
from django.utils import timezone

from llmops.base.master_keys import usable_for_sealing
from llmops.core.errors import RateLimited
from llmops.playground.hearing import joined
from llmops.playground.models import Piece, Run
from llmops.playground.reading import MOST_SECONDS, Order, Reading
from llmops.playground.sealed import piece_identity, seal
from llmops.playground.selectors import as_uuid

__all__ = ["DESK", "Desk", "Order"]

log = logging.getLogger(__name__)

#: Runs that one process reads at once.
MOST_RUNS = 40
WRITE_EVERY_S, LOOK_EVERY_S, BEAT_EVERY_S = 0.1, 0.4, 2.0
#: After a round that failed the next one comes so much later.
AWAY_S = 0.5
#: The thread waits so long for another run before it ends.
LINGER_S = 2.0


class Desk:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readings: dict[UUID, Reading] = {}
        self._thread: threading.Thread | None = None
        self._news = threading.Event()
        self._looked = 0.0

    def take_place(self) -> None:
        """Raises ``RateLimited`` when this process has as many runs as it reads at once."""
        if len(self._readings) >= MOST_RUNS:
            raise RateLimited(
                "The playground is busy: too many people are trying things. Wait a moment.", retry_after=5
            )

    def take(self, order: Order) -> None:
        """Make the call, and read its answer to the end."""
        with self._lock:
            self._readings[order.run_id] = Reading(order, settings.GATEWAY_URL, self._news.set)
            if self._thread is None:
                self._thread = threading.Thread(target=self._tend, name="playground-desk", daemon=True)
                self._thread.start()

    def cancel(self, run_id: UUID) -> None:
        """At once where this process reads it; another one sees it in the database."""
        reading = self._readings.get(run_id)
        if reading is not None:
            reading.stop("person")

    def _tend(self) -> None:
        idle_since = time.monotonic()
        try:
            while True:
                self._news.wait(LOOK_EVERY_S)
                self._news.clear()
                # Slept and not waited for: what comes meanwhile belongs into the same transaction, and nobody stops this thread.
                time.sleep(WRITE_EVERY_S)
                readings = list(self._readings.values())
                if readings:
                    idle_since = time.monotonic()
                    self._round(readings)
                with self._lock:
                    if not self._readings and time.monotonic() - idle_since > LINGER_S:
                        self._thread = None
                        return
        finally:
            connection.close()

    def _round(self, readings: list[Reading]) -> None:
        close_old_connections()
        try:
            self._write(readings)
            if time.monotonic() - self._looked >= LOOK_EVERY_S:
                self._looked = time.monotonic()
                self._look(readings)
        except (DatabaseError, InterfaceError) as error:
            # What was heard is kept, and written once the database is back.
            log.warning("runs of the playground cannot be written down at the moment: %s", error)
            connection.close()
            # News keep coming while the database is away, so that waiting for some would be no rest.
            time.sleep(AWAY_S)
        except Exception:
            log.exception("tending runs of the playground failed; it goes on")
            time.sleep(AWAY_S)

    def _write(self, readings: list[Reading]) -> None:
        now = time.monotonic()
        work: list[tuple[Reading, list[dict[str, Any]], bool]] = []
        for reading in readings:
            # In this order: what is heard last is there once it is over.
            over = reading.over
            events = reading.pending()
            if events or over or now - reading.beat >= BEAT_EVERY_S:
                work.append((reading, events, over))
        if not work:
            return
        gone = []
        with transaction.atomic():
            keys = usable_for_sealing()
            for reading, events, over in work:
                if not Run.objects.filter(pk=reading.run_id, state__in=Run.OPEN).update(
                    **_standing(reading, over)
                ):
                    gone.append(reading)
                elif events:
                    piece = Piece(run_id=reading.run_id, n=reading.n + 1)
                    piece.sealed = seal(joined(events), identity=piece_identity(piece.pk), keys=keys)
                    piece.save(force_insert=True)
        for reading, events, over in work:
            reading.beat = now
            reading.taken(len(events))
            reading.n += bool(events)
            if over or reading in gone:
                self._readings.pop(reading.run_id, None)
        for reading in gone:
            # Somebody gave it up, or removed it: there is nobody to read for.
            reading.stop("person")

    def _look(self, readings: list[Reading]) -> None:
        late = timezone.now() - timedelta(seconds=settings.PLAYGROUND_UNWATCHED_SECONDS)
        rows = Run.objects.filter(pk__in=[one.run_id for one in readings])
        asked = {
            pk: (cancelled, seen)
            for pk, cancelled, seen in rows.values_list("pk", "cancel_asked_at", "watched_at")
        }
        for reading in readings:
            cancelled, seen = asked.get(reading.run_id, (None, None))
            if cancelled is not None:
                reading.stop("person")
            elif seen is not None and seen < late:
                reading.stop("unwatched")
            elif time.monotonic() - reading.started > MOST_SECONDS:
                reading.stop("long")


def _standing(reading: Reading, over: bool) -> dict[str, Any]:
    now = timezone.now()
    standing: dict[str, Any] = {"beat_at": now, "state": Run.RUNNING}
    if (call := as_uuid(reading.call_id)) is not None:
        standing["call_id"] = call
    if over:
        standing["ended_at"] = now
        standing["state"] = Run.CANCELLED if reading.stopped else Run.FAILED if reading.failed else Run.DONE
    return standing


DESK = Desk()
