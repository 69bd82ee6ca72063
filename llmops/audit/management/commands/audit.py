"""``manage.py audit verify``, ``manage.py audit export`` and ``manage.py audit checkpoint``."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from llmops.audit import checking, export
from llmops.core.actors import command_actor
from llmops.core.errors import ConsoleError


class Command(BaseCommand):
    help = "Check the audit trail, or write it to a file that outsiders can check."

    def add_arguments(self, parser: ArgumentParser) -> None:
        steps = parser.add_subparsers(dest="step", required=True)
        verify = steps.add_parser(
            "verify", help="check the chain of this database; exits with 1 if it is broken"
        )
        verify.add_argument(
            "--file",
            type=Path,
            help="check this export or checkpoint as well, and that the database still agrees with it",
        )
        write = steps.add_parser(
            "export", help="write events as JSON lines, with a checkpoint as the last line"
        )
        write.add_argument("--from", dest="first", type=int, default=1, help="first event (default 1)")
        write.add_argument("--to", dest="last", type=int, help="last event (default: the newest)")
        write.add_argument("-o", "--output", type=Path, help="a new file; default is standard output")
        steps.add_parser(
            "checkpoint",
            help="print the end of the chain as one line, to be kept where nobody here can change it",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["step"] == "verify":
                self._verify(options["file"])
            elif options["step"] == "checkpoint":
                self.stdout.write(export.checkpoint())
            else:
                self._export(options["first"], options["last"], options["output"])
        except ConsoleError as refused:
            raise CommandError(refused.message) from None
        except OSError as failed:
            raise CommandError(f"{failed.filename}: {failed.strerror}") from None

    def _verify(self, file: Path | None) -> None:
        verdict = checking.check_database()
        problems = [f"database: {problem}" for problem in verdict.problems]
        if file is not None:
            with file.open(encoding="utf-8", errors="replace") as lines:
                problems += [f"{file.name}: {problem}" for problem in checking.check_export(lines)]
        for problem in problems:
            self.stdout.write(problem)
        if problems:
            raise CommandError("The audit trail is NOT intact.")
        self.stdout.write(
            f"The audit trail is intact: {verdict.count} events, up to event {verdict.sequence}, hash {verdict.hash}"
        )

    def _export(self, first: int, last: int | None, output: Path | None) -> None:
        # "x": an export is evidence, so an older one is never overwritten.
        lines = export.lines(first=first, last=last)
        opened = nullcontext(self.stdout) if output is None else output.open("x", encoding="utf-8")
        with opened as stream:
            # On record before the first line leaves, and not in the file itself.
            export.on_record(command_actor("audit"), file="jsonl", narrowed={"first": first, "last": last})
            count = 0
            for line in lines:
                stream.write(f"{line}\n" if output is not None else line)
                count += 1
        if output is not None:
            sys.stderr.write(f"{count - 1} events and a checkpoint were written to {output}\n")
