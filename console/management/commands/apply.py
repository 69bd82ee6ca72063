"""``manage.py apply -f FILE``: bring what a declarative file names to what it says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from console.declarative import schema
from console.declarative.apply import Applied, apply_text
from console.declarative.checks import BadFile
from llmops.base.master_keys import verify_master_keys
from llmops.base.pending_migrations import pending_migrations
from llmops.core.actors import command_actor
from llmops.core.errors import ConfigurationRefused, ConsoleError


class Command(BaseCommand):
    help = (
        "Bring all that a YAML file names to what it says, and publish what came of it; what it does not name is left alone. "
        "Nothing is applied if anything is wrong."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("-f", "--file", required=True, help="the file, or - for standard input")
        parser.add_argument("--dry-run", action="store_true", help="show the plan, change nothing")
        parser.add_argument("--no-publish", action="store_true", help="leave what changed as a draft")
        parser.add_argument("--reason", default="", help="kept with the revision and in the audit trail")

    def handle(self, *args: Any, **options: Any) -> None:
        source = options["file"]
        text = _read(source)
        try:
            # Before anything else: what is wrong with the file can be told without a database.
            schema.read(text)
            _refuse_unprepared()
            verify_master_keys()
            applied = apply_text(
                command_actor("apply"),
                text=text,
                reason=options["reason"]
                or f"applied {Path(source).name if source != '-' else 'standard input'}",
                with_publish=not options["no_publish"],
                dry_run=options["dry_run"],
            )
        except BadFile as bad:
            lines = [f"{source}:{str(found).removeprefix('line ')}" for found in bad.found]
            raise CommandError("\n".join([*lines, "Nothing was applied."])) from None
        except ConfigurationRefused:
            raise
        except ConsoleError as refused:
            raise CommandError(refused.message) from None
        self._tell(applied, dry_run=options["dry_run"], no_publish=options["no_publish"])

    def _tell(self, applied: Applied, *, dry_run: bool, no_publish: bool) -> None:
        for step in applied.plan.steps:
            self.stdout.write(str(step))
        for note in (*applied.plan.notes, *applied.warnings):
            self.stdout.write(f"note: {note}")
        if applied.nothing_to_do:
            self.stdout.write("Nothing to do: all that the file names is as it says.")
            return
        count = len(applied.plan.steps)
        changes = f"{count} change{'' if count == 1 else 's'}"
        if applied.revision is not None:
            for line in applied.published:
                self.stdout.write(f"publish: {line}")
        if dry_run:
            publishing = "and published" if applied.revision is not None else "and nothing published"
            if applied.waits:
                publishing = "and publishing them asked for"
            self.stdout.write(f"Dry run: {changes} would be made {publishing}. Nothing was changed.")
        elif applied.revision is not None:
            self.stdout.write(f"Applied {changes}; revision {applied.revision} is live.")
        elif applied.waits:
            self.stdout.write(f"Applied {changes}; not live before another person approves: {applied.waits}")
        elif no_publish:
            self.stdout.write(f"Applied {changes}; not published (--no-publish).")
        else:
            self.stdout.write(f"Applied {changes}; there was nothing to publish.")


def _refuse_unprepared() -> None:
    try:
        pending = pending_migrations()
    except DatabaseError as error:
        raise CommandError(f"The database cannot be used ({' '.join(str(error).split())}).") from None
    if pending:
        raise CommandError("The database is not up to date. Run first: ./dev manage migrate")


def _read(source: str) -> str:
    try:
        if source == "-":
            return sys.stdin.read()
        return Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{source} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise CommandError(f"{source} is not UTF-8 text.") from None
