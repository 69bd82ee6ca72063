"""Takes the place of Django's command, so that the account is made by a service and is on the record."""

from __future__ import annotations

import getpass
import os
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from llmops.access import services
from llmops.core.actors import command_actor
from llmops.core.errors import ConsoleError


class Command(BaseCommand):
    help = "Make an account that may do everything."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--username", required=True)
        parser.add_argument("--email", default="")
        parser.add_argument(
            "--noinput",
            action="store_true",
            help="take the password from DJANGO_SUPERUSER_PASSWORD; without it nobody can sign in until one is set",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        password = os.environ.get("DJANGO_SUPERUSER_PASSWORD") if options["noinput"] else asked_password()
        try:
            user = services.create_user(
                command_actor("createsuperuser"),
                username=options["username"],
                email=options["email"],
                password=password,
                is_superuser=True,
            )
        except ConsoleError as refused:
            raise CommandError(refused.message) from None
        except ValidationError as refused:
            raise CommandError("; ".join(refused.messages)) from None
        self.stdout.write(f"The superuser {user.get_username()} was made.")


def asked_password() -> str:
    """A password typed twice at the terminal."""
    first = getpass.getpass("Password: ")
    if first != getpass.getpass("Password (again): "):
        raise CommandError("The two passwords differ. Nothing was changed.")
    return first
