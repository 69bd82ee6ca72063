"""``manage.py usage rebuild --day YYYY-MM-DD`` recomputes a day's figures, ``usage summarise`` makes what pages read of them;
``usage import`` takes a provider's export over."""

from __future__ import annotations

import math
from argparse import ArgumentParser
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from llmops.core.actors import command_actor
from llmops.core.errors import ConsoleError
from llmops.providers.models import Provider
from llmops.usage.models import Job
from llmops.usage.services import (
    alert_in_words,
    import_statement,
    renew_summaries,
    request_fetch,
    request_rebuild,
    run_job,
)


class Command(BaseCommand):
    help = "Work on usage figures."

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        rebuild = commands.add_parser("rebuild", help="recompute the rollups of a day (UTC) from its calls")
        rebuild.add_argument("--day", required=True, help="YYYY-MM-DD")
        rebuild.add_argument("--reason", default="")
        commands.add_parser(
            "summarise",
            help="make every summary that is behind, as workers do by and by; may be stopped and run again",
        )
        statement = commands.add_parser(
            "import",
            help="take over a provider's usage or cost export (CSV) and tell where the ledger drifts",
        )
        statement.add_argument("--provider", required=True, help="its slug")
        statement.add_argument("-f", "--file", type=Path, required=True)

        fetched = commands.add_parser(
            "fetch", help="ask a provider itself for its usage and costs, with the key chosen for that"
        )
        fetched.add_argument("--provider", required=True, help="its slug")
        fetched.add_argument("--from", dest="first", help="YYYY-MM-DD; a month back by default")
        fetched.add_argument("--to", dest="last", help="YYYY-MM-DD; yesterday by default (days are in UTC)")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["command"] == "import":
            self._import(options["provider"], options["file"])
        elif options["command"] == "fetch":
            self._fetch(options["provider"], options["first"], options["last"])
        elif options["command"] == "summarise":
            self.stdout.write(f"{renew_summaries(most_seconds=math.inf):,} summaries were made")
        else:
            self._rebuild(options)

    def _import(self, slug: str, path: Path) -> None:
        provider = Provider.objects.filter(slug=slug).first()
        if provider is None:
            raise CommandError(f"--provider: there is no provider {slug!r}.")
        try:
            text = path.read_text(encoding="utf-8-sig")
            made = import_statement(
                command_actor("usage import"), provider=provider, text=text, file_name=path.name
            )
        except OSError as failed:
            raise CommandError(f"{path}: {failed.strerror}") from None
        except UnicodeDecodeError:
            raise CommandError(f"{path}: this is not a text file in UTF-8.") from None
        except ConsoleError as refusal:
            raise CommandError(refusal.message) from None
        alerts = list(made.alerts.order_by("day", "model", "what"))
        self.stdout.write(f"{made}: {len(alerts)} drifts above 1 %")
        for alert in alerts:
            self.stdout.write(f"  {alert_in_words(alert)}")

    def _fetch(self, slug: str, first: str | None, last: str | None) -> None:
        provider = Provider.objects.filter(slug=slug).first()
        if provider is None:
            raise CommandError(f"--provider: there is no provider {slug!r}.")
        try:
            until = date.fromisoformat(last) if last else datetime.now(UTC).date() - timedelta(days=1)
            since = date.fromisoformat(first) if first else until - timedelta(days=30)
        except ValueError:
            raise CommandError("--from, --to: write days like 2026-11-20.") from None
        try:
            job = request_fetch(
                command_actor("usage fetch"), provider=provider, first=since, last=until, enqueue=False
            )
        except ConsoleError as refusal:
            raise CommandError(refusal.message) from None
        done = run_job(job.pk)
        if done is None or done.state != Job.DONE:
            raise CommandError(done.message if done else "Another worker has taken this job over.")
        self.stdout.write(done.message)

    def _rebuild(self, options: dict[str, Any]) -> None:
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
