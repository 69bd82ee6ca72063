"""``manage.py doctor``: how ready this installation is for production, with evidence and fixes."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from llmops.readiness import selectors, services
from llmops.readiness.addresses import address
from llmops.readiness.finding import CATEGORIES, LACKING, MET, NOTHING, UNKNOWN, Check
from llmops.readiness.scoring import POINTS

_MARKS = {MET: "ok  ", LACKING: "FIX ", NOTHING: "-   ", UNKNOWN: "?   "}


def _address(check: Check) -> str:
    return settings.PUBLIC_URL.rstrip("/") + address(check)


class Command(BaseCommand):
    help = "Score this installation against the checklist for production. Exits with 1 below --fail-under."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--fail-under", type=float, metavar="POINTS", help=f"exit with 1 below so many of {POINTS} points"
        )
        parser.add_argument(
            "--require",
            action="append",
            default=[],
            metavar="CHECK",
            help="exit with 1 unless this check is met; may be repeated",
        )
        parser.add_argument("--json", action="store_true", help="for machines")
        parser.add_argument("--keep", action="store_true", help="keep it as the score of today")

    def handle(self, *args: Any, **options: Any) -> None:
        found = selectors.assess()
        states = {one.check.id: one.finding.state for one in found.looked}
        if strange := [name for name in options["require"] if name not in states]:
            raise CommandError(f"There is no check {', '.join(strange)}.")
        least = options["fail_under"]
        if least is not None and not 0 <= least <= POINTS:
            raise CommandError(f"--fail-under takes 0 to {POINTS} points.")
        if options["keep"]:
            services.keep(found, day=timezone.now().date())
        self._tell_machines(found) if options["json"] else self._tell_people(found)
        missing = [name for name in options["require"] if states[name] != MET]
        if missing:
            raise CommandError(f"Not met: {', '.join(missing)}.")
        if least is not None and found.whole.tenths < least * 10:
            raise CommandError(f"{found.whole.points} of {POINTS} points are fewer than {least:g}.")

    def _tell_people(self, found: selectors.Assessment) -> None:
        for category, title in CATEGORIES.items():
            score = found.scores[category]
            self.stdout.write(f"{title}: {score.points} of 5 ({score.met} of {score.judged} met)")
            for one in found.of(category):
                state = one.finding.state
                self.stdout.write(
                    f"  {_MARKS[state]} {one.check.title}: {one.finding.evidence} [{one.check.id}]"
                )
                if state == LACKING:
                    self.stdout.write(f"         {one.check.fix} {_address(one.check)}")
        self.stdout.write(f"{found.whole.points} of {POINTS} points")

    def _tell_machines(self, found: selectors.Assessment) -> None:
        told = {
            "points": found.whole.tenths / 10,
            "of": POINTS,
            "categories": {name: score.tenths / 10 for name, score in found.scores.items()},
            "checks": [
                {
                    "id": one.check.id,
                    "category": one.check.category,
                    "title": one.check.title,
                    "state": one.finding.state,
                    "evidence": one.finding.evidence,
                    "fix": one.check.fix,
                    "link": _address(one.check),
                }
                for one in found.looked
            ],
        }
        self.stdout.write(json.dumps(told, indent=2))
