"""``manage.py prices update [-f FILE] [--dry-run]`` and ``manage.py prices unpriced``.

It stands in this room because its plan shows what the traffic there was would have cost.
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from llmops.core.actors import command_actor
from llmops.core.errors import ConsoleError
from llmops.core.money import format_usd
from llmops.providers import catalogue
from llmops.providers.models import Model
from llmops.providers.previews import NewPrice, Preview
from llmops.providers.selectors import unpriced_models
from llmops.providers.services import PlannedPrice, add_prices, plan_prices
from llmops.usage.repricing import preview

_MOST_LINES = 20


class Command(BaseCommand):
    help = "Prices of models."

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        update = commands.add_parser(
            "update", help="add what a price list says differently from the console; nothing is edited"
        )
        update.add_argument("-f", "--file", type=Path, help="a price list (default: the one that ships)")
        update.add_argument("--dry-run", action="store_true", help="show the plan and change nothing")
        update.add_argument("--reason", default="", help="why, for the audit trail")
        commands.add_parser("unpriced", help="list the models in use that have no price")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["command"] == "unpriced":
            self._unpriced()
            return
        try:
            price_list = catalogue.shipped() if options["file"] is None else _read(options["file"])
            planned = plan_prices(price_list)
            self._show(price_list, planned)
            if planned and not options["dry_run"]:
                add_prices(command_actor("prices update"), planned, reason=options["reason"])
                self.stdout.write(f"{len(planned)} prices were added. They are charged once published.")
            elif planned:
                self.stdout.write("Nothing was changed (--dry-run).")
        except ConsoleError as refusal:
            raise CommandError(refusal.message) from None
        self._unpriced(quiet=True)

    def _show(self, price_list: catalogue.PriceList, planned: list[PlannedPrice]) -> None:
        self.stdout.write(f"Price list of {price_list.dated} for providers of the kind {price_list.provider}")
        if not planned:
            self.stdout.write(
                "Nothing to add: every price that the list knows of the models in use is there."
            )
            return
        for one in planned:
            before = "none" if one.before is None else format_usd(one.before)
            self.stdout.write(
                f"  {one.model.slug}: {one.token_class} {before} -> {format_usd(one.nano_per_million)} USD per million "
                f"from {one.effective_from:%Y-%m-%d %H:%M} UTC ({one.source or 'no source'})"
            )
        found = preview(
            [
                NewPrice(one.model, one.token_class, one.nano_per_million, one.effective_from)
                for one in planned
            ]
        )
        self._show_preview(found)

    def _show_preview(self, found: Preview) -> None:
        self.stdout.write(
            f"On the traffic of {found.first} to {found.last}: {found.calls:,} calls, "
            f"{format_usd(found.before_nano)} USD at the prices now, {format_usd(found.after_nano)} at the new ones"
        )
        for line in found.lines[:_MOST_LINES]:
            self.stdout.write(
                f"  {line.model} by {line.route or 'no route'} for {line.project}: {line.calls:,} calls, "
                f"{format_usd(line.before_nano)} -> {format_usd(line.after_nano)} USD"
            )
        if len(found.lines) > _MOST_LINES:
            self.stdout.write(f"  and {len(found.lines) - _MOST_LINES} others")

    def _unpriced(self, *, quiet: bool = False) -> None:
        found = list(unpriced_models().select_related("current__provider"))
        if not found and not quiet:
            self.stdout.write("Every model in use has a price.")
        if found:
            self.stdout.write(f"Without a price: {', '.join(map(_named, found))}")


def _named(model: Model) -> str:
    return f"{model.slug} ({model.current.upstream_model})" if model.current else model.slug


def _read(path: Path) -> catalogue.PriceList:
    try:
        return catalogue.parse(path.read_text(encoding="utf-8"))
    except OSError as failed:
        raise CommandError(f"{path}: {failed.strerror}") from None
    except UnicodeDecodeError:
        raise CommandError(f"{path}: this is not a text file in UTF-8.") from None
