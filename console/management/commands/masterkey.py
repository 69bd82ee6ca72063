"""``manage.py masterkey new``: a fresh entry for CONSOLE_MASTER_KEYS."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from llmops.base.crypto import new_master_key


class Command(BaseCommand):
    help = "Print a new entry for CONSOLE_MASTER_KEYS. It is kept nowhere; store it where your other secrets are."
    # It must work where no key is configured yet.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("what", choices=["new"])
        parser.add_argument("--id", default="", help="name of the key; by default k and today's date")

    def handle(self, *args: Any, **options: Any) -> None:
        key_id = options["id"] or f"k{datetime.now(UTC):%Y%m%d}"
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,60}", key_id):
            raise CommandError("--id: use letters, digits, hyphens and underscores, at most 60.")
        self.stdout.write(new_master_key(key_id))
