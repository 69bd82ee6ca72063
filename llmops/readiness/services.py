"""Keeping what was found. Scores are measured, not configured: they leave no event on the trail."""

from __future__ import annotations

from datetime import date

from llmops.readiness.finding import LACKING, UNKNOWN
from llmops.readiness.models import DayScore
from llmops.readiness.selectors import Assessment


def keep(assessment: Assessment, *, day: date) -> DayScore:
    """The day's score from now on; an earlier one of the same day gives way."""
    kept, _ = DayScore.objects.update_or_create(
        day=day,
        defaults={
            "tenths": assessment.whole.tenths,
            "categories": {name: score.tenths for name, score in assessment.scores.items()},
            "lacking": [one.check.id for one in assessment.looked if one.finding.state in (LACKING, UNKNOWN)],
        },
    )
    return kept
