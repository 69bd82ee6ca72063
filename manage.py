#!/usr/bin/env python
"""Entry point of the project's commands: ``python manage.py help``."""

import os
import sys

#: Commands that must see every app, also where the environment says that a process serves no pages.
ABOUT_EVERY_APP = frozenset(("bootstrap", "check", "makemigrations", "migrate", "showmigrations"))


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
    if ABOUT_EVERY_APP.intersection(sys.argv[1:2]):
        os.environ["CONSOLE_BACKGROUND"] = "false"
    from console.process import EXIT_REFUSED, collect_seldom

    collect_seldom()
    from django.core.exceptions import ImproperlyConfigured

    from console.commands import run
    from llmops.core.errors import ConfigurationRefused

    try:
        run(sys.argv)
    except ConfigurationRefused as refusal:
        said = refusal.message
    except ImproperlyConfigured as refusal:
        said = str(refusal)
    else:
        return
    sys.stderr.write(f"Refused: {said}\n")
    sys.exit(EXIT_REFUSED)


if __name__ == "__main__":
    main()
