"""``manage.py masterkey``: a fresh entry for CONSOLE_MASTER_KEYS, and the rotation of master keys while all goes on."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from llmops.base.crypto import new_master_key
from llmops.core.actors import command_actor
from llmops.core.errors import ConsoleError


class Command(BaseCommand):
    help = (
        "new: print a new entry for CONSOLE_MASTER_KEYS (it is kept nowhere; store it where your other secrets are). status: "
        "which keys there are, and what is sealed under each. reseal: seal everything anew under the first key. retire ID: "
        "declare that a key is needed no longer."
    )
    # It must work where no key is configured yet.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("what", choices=["new", "status", "reseal", "retire"])
        parser.add_argument("key", nargs="?", default="", metavar="ID", help="retire: the key")
        parser.add_argument("--id", default="", help="new: name of the key; by default k and today's date")
        parser.add_argument("--background", action="store_true", help="reseal: a worker does it")
        parser.add_argument(
            "--lost",
            action="store_true",
            help="retire: what is sealed under it is given up, for nobody has the key",
        )
        parser.add_argument("--reason", default="", help="retire: goes into the audit trail")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['what']}")(options)
        except ConsoleError as refused:
            raise CommandError(refused.message) from None

    def _new(self, options: dict[str, Any]) -> None:
        key_id = options["id"] or f"k{datetime.now(UTC):%Y%m%d}"
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,60}", key_id):
            raise CommandError("--id: use letters, digits, hyphens and underscores, at most 60.")
        self.stdout.write(new_master_key(key_id))

    def _status(self, options: dict[str, Any]) -> None:
        from llmops.access.selectors import master_key_rows, resealing

        for row in master_key_rows():
            self.stdout.write(f"{row.key_id}: {row.standing}; {row.values} values")
        if (run := resealing()) is not None:
            self.stdout.write(
                f"{run}: {run.get_state_display().lower()}, {run.done} of {run.total}. {run.message}"
            )

    def _reseal(self, options: dict[str, Any]) -> None:
        from llmops.access import services
        from llmops.access.selectors import resealing
        from llmops.base.models import Resealing

        actor = command_actor("masterkey")
        run = resealing()
        if run is None or run.state != Resealing.RUNNING:
            run = services.start_resealing(actor, background=options["background"])
        if options["background"]:
            self.stdout.write(f"{run}: {run.total} values, by a worker.")
            return
        run = services.reseal(actor, run_id=run.pk)
        if run.state != Resealing.DONE:
            raise CommandError(run.message)
        self.stdout.write(f"{run.done} values were sealed anew. {run.message}")

    def _retire(self, options: dict[str, Any]) -> None:
        from llmops.access import services

        if not options["key"]:
            raise CommandError("retire: name the key, as ./dev manage masterkey status does.")
        services.retire_master_key(
            command_actor("masterkey"), key_id=options["key"], reason=options["reason"], lost=options["lost"]
        )
        self.stdout.write(f"{options['key']} is retired: take it out of CONSOLE_MASTER_KEYS.")
