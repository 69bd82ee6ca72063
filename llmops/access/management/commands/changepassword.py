"""Takes the place of Django's command, so that the change is made by a service and is on the record."""

from __future__ import annotations

import getpass
import os
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from llmops.access import services
from llmops.access.management.commands.createsuperuser import asked_password
from llmops.core.actors import command_actor
from llmops.core.errors import ConsoleError


class Command(BaseCommand):
    help = "Set an account's password; every session of the account ends."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "username", nargs="?", default=None, help="by default the name of your own account here"
        )
        parser.add_argument(
            "--noinput", action="store_true", help="take the password from DJANGO_SUPERUSER_PASSWORD"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        username = options["username"] or getpass.getuser()
        user = get_user_model().objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"There is no account {username!r}.")
        password = os.environ.get("DJANGO_SUPERUSER_PASSWORD", "") if options["noinput"] else asked_password()
        try:
            services.set_password(command_actor("changepassword"), user=user, password=password)
        except ConsoleError as refused:
            raise CommandError(refused.message) from None
        self.stdout.write(f"The password of {username} was changed.")
