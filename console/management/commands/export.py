"""``manage.py export``: what is configured, as a declarative file without secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from console.declarative.export import export_text, note_export
from console.declarative.state import read_state
from llmops.base.reads import consistent_read
from llmops.core.actors import command_actor


class Command(BaseCommand):
    help = "Write what is configured as a YAML file for `apply`. Secrets are references or placeholders, never values."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "-o", "--output", default="-", help="the file to write; standard output by default"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with consistent_read():
            state = read_state()
        text = export_text(state)
        # Before anybody has it, and committed: whoever reads a pipe slowly may not hold up the trail.
        note_export(command_actor("export"), text)
        if options["output"] == "-":
            self.stdout.write(text, ending="")
            return
        try:
            Path(options["output"]).write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{options['output']} cannot be written: {error.strerror}.") from None
        self.stdout.write(f"Wrote {options['output']}.")
