"""``manage.py`` as Django has it, but that bad settings are one sentence: also where its checks have found them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.management import ManagementUtility
from django.core.management.base import BaseCommand, SystemCheckError

from console.startup import failed_checks
from llmops.core.errors import ConfigurationRefused


class _Commands(ManagementUtility):
    def fetch_command(self, subcommand: str) -> BaseCommand:
        command = super().fetch_command(subcommand)
        # The list that Django makes is what `check` is asked for.
        if subcommand != "check":
            command.check = _in_a_sentence(command.check)  # type: ignore[method-assign]
        return command


def run(argv: list[str]) -> None:
    """Run the command of ``argv``. Raises ``ConfigurationRefused`` with all that keeps it from being run."""
    _Commands(argv).execute()


def _in_a_sentence(check: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*args: Any, **options: Any) -> Any:
        try:
            return check(*args, **options)
        except SystemCheckError:
            # What its text is dressed in is for developers.
            raise ConfigurationRefused(failed_checks()) from None

    return checked
