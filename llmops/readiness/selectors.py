"""Looking at this installation, and at how it was."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from llmops.readiness.checks import every_check
from llmops.readiness.finding import CATEGORIES, UNKNOWN, Check, Finding
from llmops.readiness.models import DayScore
from llmops.readiness.scoring import Score, of_category, together

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Looked:
    check: Check
    finding: Finding


@dataclass(frozen=True, slots=True)
class Assessment:
    looked: list[Looked]
    scores: dict[str, Score]
    whole: Score

    def of(self, category: str) -> list[Looked]:
        return [one for one in self.looked if one.check.category == category]


def assess(checks: Iterable[Check] | None = None) -> Assessment:
    """Every check, looked at now. A check that fails is unknown, and stops no other."""
    looked = [Looked(one, _look(one)) for one in (every_check() if checks is None else checks)]
    scores = {
        category: of_category(one.finding.state for one in looked if one.check.category == category)
        for category in CATEGORIES
    }
    return Assessment(looked, scores, together(scores.values()))


def _look(check: Check) -> Finding:
    try:
        return check.look()
    except Exception:
        log.exception("the check %s failed", check.id)
        return Finding(UNKNOWN, "It could not be looked at; the log says why.")


def history(*, today: date, days: int = 90) -> list[DayScore]:
    """Scores of the last days, oldest first."""
    return list(DayScore.objects.filter(day__gt=today - timedelta(days=days), day__lte=today).order_by("day"))
