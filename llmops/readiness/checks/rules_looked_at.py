"""Alert rules are looked at."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from llmops.alerts.selectors import last_evaluation
from llmops.readiness.finding import MONITORING, Check, Finding, lacking, met

_LATE = timedelta(minutes=5)


def look() -> Finding:
    last = last_evaluation()
    if last is None or last.ended_at is None:
        return lacking("They never were.")
    when = f"{last.ended_at:%Y-%m-%d %H:%M:%S} UTC"
    if timezone.now() - last.ended_at > _LATE:
        return lacking(f"Last at {when}.")
    if last.problems:
        return lacking(f"{len(last.problems)} could not be looked at: {last.problems[0]}.")
    return met(f"Last at {when}.")


CHECK = Check(
    "rules-looked-at",
    MONITORING,
    "Alert rules are looked at",
    fix="See that a worker and beat run; the page of alerts names the rules that cannot be looked at.",
    link="alerts:alerts",
    look=look,
)
