"""Starting and stopping a data-plane process: the only place where its parts meet Django, beside feed and keeper."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType

from django.conf import settings

from llmops.base.master_keys import master_keys
from llmops.core.cancelling import cancel
from llmops.core.portions import SharedBytes
from llmops.core.tokens import TokenDataUnusable, count_text, use_cache_dir
from llmops.gateway.app import Gateway
from llmops.gateway.assembly import DataPlane
from llmops.gateway.cache import Cache
from llmops.gateway.database import drop_connection, use_own_connection
from llmops.gateway.feed import Feed
from llmops.gateway.idempotency.flights import Flights
from llmops.gateway.idempotency.on_disk import OnDisk
from llmops.gateway.kept.shelf import DatabaseShelf
from llmops.gateway.money.bank import Command
from llmops.gateway.money.keeper import Keeper
from llmops.gateway.money.purse import TICK_S, Purse
from llmops.gateway.plane import digest_key
from llmops.gateway.telemetry import pushing, tracing
from llmops.providers.services import report_unreadable, report_uses
from llmops.serving.selectors import load_snapshot
from llmops.serving.snapshot import Snapshot
from llmops.usage.journal import JournalWriter
from llmops.usage.services import booked_records, open_journal

log = logging.getLogger(__name__)

#: What is left to do when calls had their time to end: settle those that have not, give leases back.
WIND_UP_S = 1.5


def gateway(*, ready_to_count: bool = False) -> Gateway:
    """The data plane's application. Django must be set up.

    ``ready_to_count``: load what tokens are counted with before any call comes. Otherwise the first call that needs it does,
    and for some 200 ms all others stand still; but it takes 45 MB that a small installation may never need.
    """
    return Gateway(partial(Runtime, ready_to_count=ready_to_count))


class Runtime:
    """One data-plane process. ``plane`` is there after ``start``."""

    plane: DataPlane

    def __init__(self, *, ready_to_count: bool = False) -> None:
        self._ready_to_count = ready_to_count
        self._feed: Feed | None = None
        self._keeper: Keeper | None = None
        self._journal: JournalWriter | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._pushing: pushing.Pushing | None = None

    async def start(self) -> None:
        """Raises ``ConfigurationRefused`` when the journal cannot be written, or what the database raises."""
        loop = asyncio.get_running_loop()
        use_cache_dir(settings.TOKENIZER_DIR)
        journal = self._journal = JournalWriter(settings.JOURNAL_DIR)
        snapshot = await asyncio.to_thread(_register, journal)
        if self._ready_to_count:
            await asyncio.to_thread(_load_encodings, snapshot)
        purse = Purse(self._submit)
        self.plane = DataPlane(
            journal=journal,
            purse=purse,
            max_body=settings.MAX_REQUEST_BYTES,
            max_upload=settings.MAX_UPLOAD_BYTES,
            digest_key=digest_key(settings.SECRET_KEY),
            max_media=settings.MAX_MEDIA_BYTES,
            spool_directory=settings.SPOOL_DIR,
            bodies=SharedBytes(settings.BODY_BYTES),
            spooled=SharedBytes(settings.SPOOL_BYTES),
            cache=Cache(settings.CACHE_BYTES),
            seal=lambda text, identity: master_keys().seal(text, identity=identity),
        )
        bounds = {"seconds": settings.IDEMPOTENCY_SECONDS, "max_bytes": settings.IDEMPOTENCY_BYTES}
        if settings.REDIS_URL:
            # Redis's client (9 MB) is loaded where there is a Redis.
            from llmops.gateway.idempotency.shared import Shared
            from llmops.gateway.throttling.shared_limits import SharedLimits

            self.plane.flights = Flights(Shared(settings.REDIS_URL, **bounds))
            self.plane.shared_limits = SharedLimits(settings.REDIS_URL, self.plane.limits)
        else:
            self.plane.flights = Flights(OnDisk(settings.IDEMPOTENCY_DIR / "answers.sqlite3", **bounds))
        self.plane.tracing = tracing.from_environment()
        self._pushing = pushing.from_environment(self.plane)
        self.plane.log_calls = settings.LOG_CALLS
        shelf = DatabaseShelf()
        self.plane.objects.shelf = self.plane.metering.desk = shelf
        self.plane.swap(snapshot)
        if settings.REDIS_URL:
            self.plane.share_breakers(settings.REDIS_URL)
        self._keeper = Keeper(
            loop,
            purse,
            journal_id=journal.journal_id,
            lease_seconds=settings.LEASE_SECONDS,
            on_closed=self._give_up,
        )
        self._feed = Feed(
            snapshot,
            partial(_on_loop, loop, self.plane.swap),
            booked=partial(booked_records, journal.journal_id),
            heard=self.plane.heard,
            report=partial(report_unreadable, process=journal.journal_id, host=socket.gethostname()),
            uses=lambda: self.plane.uses,
            say_uses=partial(report_uses, process=journal.journal_id, host=socket.gethostname()),
        )
        self._keeper.start()
        self._feed.start()
        if self._pushing is not None:
            self._pushing.start()
        self._ticking = loop.create_task(self._tick())
        self._drain_when_asked_to_stop(loop)
        # What is loaded by now stays: the collector need not look at it again and again. Looking once more before would take
        # a tenth of a second, for a hundred objects.
        gc.freeze()
        # A request makes hundreds of short-lived objects, next to none of them in cycles.
        gc.set_threshold(20_000, 20, 50)

    def _submit(self, command: Command) -> None:
        assert self._keeper is not None
        self._keeper.submit(command)

    async def _tick(self) -> None:
        plane = self.plane
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await plane.tick()
            except Exception:
                log.exception("the data plane's housekeeping failed; it goes on")

    async def stop(self) -> None:
        """Take no more calls, let those under way end, settle the rest, give the leases back, close the journal."""
        plane = self.plane
        self._begin_draining()
        assert self._draining is not None
        await self._draining
        if self._ticking is not None:
            await cancel(self._ticking)
        if self._feed is not None:
            self._feed.stop()
        await plane.background.close()
        plane.write_kept()
        plane.purse.close()
        if self._keeper is not None:
            self._keeper.stop()
            await asyncio.to_thread(self._keeper.join, WIND_UP_S)
        if self._pushing is not None:
            await asyncio.to_thread(self._pushing.close)
        await plane.close()
        if self._journal is not None:
            self._journal.close()

    def _drain_when_asked_to_stop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to drain with the signal itself: a server may wait for its requests before it says that it shuts down."""
        if threading.current_thread() is not threading.main_thread():
            return
        previous = signal.getsignal(signal.SIGTERM)

        def asked(number: int, frame: FrameType | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._begin_draining)
            if callable(previous):
                previous(number, frame)

        signal.signal(signal.SIGTERM, asked)
        signal.siginterrupt(signal.SIGTERM, False)

    def _give_up(self) -> None:
        """Somebody closed the journal of this living process: end it, so that its supervisor starts one with a new journal."""
        log.critical(
            "The journal %s was closed while its process lives; what is written into it is not booked any more. Ending "
            "this process, to be started again. Does CONSOLE_JOURNAL_DIR lie on a file system without locks, such as NFS?",
            self._journal.journal_id if self._journal else "",
        )
        self._begin_draining()
        assert self._draining is not None
        self._draining.add_done_callback(lambda _: os.kill(os.getpid(), signal.SIGTERM))

    def _begin_draining(self) -> None:
        if self._draining is None:
            self.plane.draining = True
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        calls = self.plane.calls
        await _until(lambda: not calls, settings.DRAIN_SECONDS)
        for call in list(calls):
            call.watch.fire("shutdown")
        await _until(lambda: not calls, WIND_UP_S)


def _register(journal: JournalWriter) -> Snapshot:
    use_own_connection()
    try:
        open_journal(journal_id=journal.journal_id, host=socket.gethostname(), path=str(settings.JOURNAL_DIR))
        return load_snapshot(None)
    finally:
        drop_connection()


def _load_encodings(snapshot: Snapshot) -> None:
    for model in {entry.upstream_model for entry in snapshot.models.values()}:
        # Without them calls are bounded by their bytes.
        with suppress(TokenDataUnusable):
            count_text("", model)


def _on_loop(
    loop: asyncio.AbstractEventLoop, deliver: Callable[[Snapshot], None], snapshot: Snapshot
) -> None:
    loop.call_soon_threadsafe(deliver, snapshot)


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110 - polling is enough once, at the end
        await asyncio.sleep(0.02)
