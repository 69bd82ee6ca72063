"""``manage.py usage rebuild --day YYYY-MM-DD``: recompute a day's figures here and now."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from llmops.core.actors import command_actor
from llmops.core.errors import ConsoleError
from llmops.usage.models import Job
from llmops.usage.services import request_rebuild, run_job


class Command(BaseCommand):
    help = "Work on usage figures."

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        rebuild = commands.add_parser("rebuild", help="recompute the rollups of a day (UTC) from its calls")
        rebuild.add_argument("--day", required=True, help="YYYY-MM-DD")
        rebuild.add_argument("--reason", default="")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            day = date.fromisoformat(options["day"])
        except ValueError:
            raise CommandError(f"--day: {options['day']!r} is not a date such as 2026-11-20.") from None
        try:
            job = request_rebuild(
                command_actor("usage rebuild"), day, reason=options["reason"], enqueue=False
            )
        except ConsoleError as refusal:
            raise CommandError(refusal.message) from None
        done = run_job(job.pk, told=self._tell)
        if done is None or done.state != Job.DONE:
            raise CommandError(done.message if done else "Another worker has taken this job over.")
        self.stdout.write(done.message)
        for line in (done.result or {}).get("differences", []):
            self.stdout.write(f"  {line}")

    def _tell(self, job: Job) -> None:
        if self.stdout.isatty():
            self.stdout.write(f"\r{job.done}/{job.total}", ending="\n" if job.done == job.total else "")
