"""``manage.py ingest``: the process that moves journals into the database, beside the data planes of a host."""

from __future__ import annotations

import gc
import logging
import signal
import threading
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError

from llmops.base.pending_migrations import pending_migrations
from llmops.usage.ingest.loop import POLL_S, Ingester, only_ingester

log = logging.getLogger(__name__)
_STAND_BY_S = 1.0


class Command(BaseCommand):
    help = "Book the calls that data planes wrote into their journals. Runs until it is stopped."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="book what is there, then end")
        parser.add_argument(
            "--poll", type=float, default=POLL_S, help="seconds between looks at idle journals"
        )
        parser.add_argument("--directory", type=Path, default=None, help="default: CONSOLE_JOURNAL_DIR")

    def handle(self, *args: Any, **options: Any) -> None:
        directory: Path = (options["directory"] or settings.JOURNAL_DIR).absolute()
        _refuse_pending_migrations()
        # The ingester says once that the database is away; its pool would say so every second.
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
        # What is loaded stays, and what calls are made of has no cycles: the collector would look at it for nothing.
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        if options["once"]:
            self._once(Ingester(directory))
            return
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        standing_by = False
        while not stop.is_set():
            with only_ingester(directory) as ours:
                if ours:
                    log.info("Booking the journals in %s", directory)
                    Ingester(directory).run(stop, poll=options["poll"])
                    return
            if not standing_by:
                log.info("Another ingester books the journals in %s; standing by", directory)
                standing_by = True
            stop.wait(_STAND_BY_S)

    def _once(self, ingester: Ingester) -> None:
        booked = ingester.run_once()
        self.stdout.write(f"{booked} records booked")
        if problems := ingester.problems():
            listed = ", ".join(map(str, problems))
            raise CommandError(f"These journals cannot be read to their end; the log says why: {listed}")


def _refuse_pending_migrations() -> None:
    try:
        pending = pending_migrations()
    except (DatabaseError, InterfaceError):
        # A database that is away is waited for.
        return
    if pending:
        raise CommandError(
            f"The database lacks {len(pending)} migrations of this version. Run: ./dev manage migrate"
        )
