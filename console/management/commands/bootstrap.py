"""``manage.py bootstrap``: migrate and, the first time, fill an embedded installation."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from console.bootstrap import bootstrap


class Command(BaseCommand):
    help = "Migrate the database and make the demo's configuration, administrator and keys where they are missing."

    def handle(self, *args: Any, **options: Any) -> None:
        bootstrap(self.stdout.write)
