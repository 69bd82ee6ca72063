"""The sign-in guard's own commands, on the record."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from llmops.audit.services import record
from llmops.core.actors import command_actor


def audited(name: str) -> type[BaseCommand]:
    """The command ``name`` of django-axes, whose effect leaves one audit event in the same transaction."""
    original: type[BaseCommand] = import_module(f"axes.management.commands.{name}").Command

    class Command(original):  # type: ignore[valid-type, misc]
        def handle(self, *args: Any, **options: Any) -> None:
            with transaction.atomic():
                super().handle(*args, **options)
                asked = {key: options[key] for key in ("username", "ip", "age", "limit") if options.get(key)}
                record(
                    command_actor(name),
                    action="sign_in_guard.reset",
                    object_type="axes.accessattempt",
                    object_id="",
                    object_name="failed attempts to sign in",
                    after=asked or {"all": True},
                )

    return Command
