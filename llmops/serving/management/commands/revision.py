"""``manage.py revision``: what is live and was, publishing, going back, and carrying a revision to another console."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from llmops.approvals.models import Request
from llmops.core.actors import command_actor
from llmops.core.errors import ConsoleError
from llmops.serving import rules, services
from llmops.serving.models import LivePointer, Revision
from llmops.serving.selectors import exported, live_revision, pending

_SHOWN = 20


class Command(BaseCommand):
    help = (
        "Revisions: list, pending (what would be published), publish, restore (go back to one), export (as a file), import "
        "(make one of another console live: its very bytes, or nothing)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
        steps.add_parser("list", help=f"the newest {_SHOWN} revisions, the live one marked")
        steps.add_parser("pending", help="what would be published, and what stands in the way")
        publish = steps.add_parser("publish", help="make what is configured live")
        publish.add_argument(
            "--digest", default="", help="refuse anything but what `pending` showed with this digest"
        )
        restore = steps.add_parser("restore", help="make the very bytes of an earlier revision live again")
        restore.add_argument("number", type=int)
        export = steps.add_parser("export", help="write a revision as a file")
        export.add_argument("number", type=int, nargs="?", help="the live one if none is given")
        export.add_argument("-o", "--output", default="-", help="the file, or - for standard output")
        bring = steps.add_parser("import", help="make a revision of another console live here")
        bring.add_argument("file", help="the file, or - for standard input")
        bring.add_argument(
            "--digest", default="", help="refuse a file that holds another revision than this one"
        )
        for step in (publish, restore, bring):
            step.add_argument("--reason", required=True, help="kept with the revision and in the audit trail")
            step.add_argument(
                "--expected",
                type=int,
                metavar="NUMBER",
                help="refuse when another revision is live (0: none)",
            )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['step']}")(options)
        except ConsoleError as refused:
            raise CommandError(refused.message) from None

    def _list(self, options: Any) -> None:
        live = LivePointer.objects.values_list("revision_id", flat=True).first()
        for one in Revision.objects.defer("document")[:_SHOWN]:
            mark = "live" if one.number == live else "    "
            by = one.author + (f", approved by {one.approved_by}" if one.approved_by else "")
            back = f" (back to {one.restores})" if one.restores is not None else ""
            self.stdout.write(
                f"{one.number:>6} {mark} {one.digest[:12]} {one.published_at:%Y-%m-%d %H:%M} UTC {by}: {one.reason}{back}"
            )

    def _pending(self, options: Any) -> None:
        found = pending()
        for line in found.changes or ["Nothing would change."]:
            self.stdout.write(line)
        for problem in found.problems:
            self.stdout.write(f"{problem.level}: {problem.message}")
        self.stdout.write(f"digest: {found.digest}; live: revision {found.live or 'none'}")

    def _publish(self, options: Any) -> None:
        self._tell(
            services.propose(
                command_actor("revision"),
                reason=options["reason"],
                expected_revision=options["expected"],
                expected_digest=options["digest"],
            )
        )

    def _restore(self, options: Any) -> None:
        self._tell(
            services.propose(
                command_actor("revision"),
                what=rules.RESTORE,
                object_id=str(options["number"]),
                reason=options["reason"],
                expected_revision=options["expected"],
            )
        )

    def _export(self, options: Any) -> None:
        number = options["number"]
        found = Revision.objects.filter(number=number).first() if number is not None else live_revision()
        if found is None:
            raise CommandError(f"There is no revision {number}." if number else "Nothing is live yet.")
        data = exported(found)
        services.note_export(command_actor("revision"), revision=found)
        if options["output"] == "-":
            self.stdout.write(data.decode(), ending="")
            return
        try:
            Path(options["output"]).write_bytes(data)
        except OSError as error:
            raise CommandError(f"{options['output']} cannot be written: {error.strerror}.") from None
        self.stdout.write(f"Revision {found.number} is in {options['output']}. Its digest is {found.digest}")

    def _import(self, options: Any) -> None:
        self._tell(
            services.import_revision(
                command_actor("revision"),
                data=_read(options["file"]),
                digest=options["digest"],
                reason=options["reason"],
                expected_revision=options["expected"],
            )
        )

    def _tell(self, made: Revision | Request) -> None:
        if isinstance(made, Request):
            self.stdout.write(
                f"Asked for; nothing is live yet. {made.required} people must approve it under Approvals: {made.title}"
            )
            return
        for line in made.changes:
            self.stdout.write(line)
        self.stdout.write(f"Revision {made.number} is live. Its digest is {made.digest}")


def _read(source: str) -> bytes:
    if source == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise CommandError(f"{source} cannot be read: {error.strerror}.") from None
