"""Commands of Django that would change rows past their services, and so past the audit trail."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError


def refused(name: str) -> type[BaseCommand]:
    """A command that only says why it does nothing."""

    class Command(BaseCommand):
        help = "Refused: it would change rows without a trace in the audit trail."
        requires_system_checks = []

        def run_from_argv(self, argv: list[str]) -> None:
            raise SystemExit(f"{self._sentence()}")

        def execute(self, *args: Any, **options: Any) -> None:
            raise CommandError(self._sentence())

        def _sentence(self) -> str:
            return (
                f"{name} is refused here: it would change rows without a trace in the audit trail. "
                "Use `manage.py apply -f FILE` for configuration, and the database's own tools for backups."
            )

    return Command
