"""Journals that are not booked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Q

from llmops.alerts.figures import Figures
from llmops.alerts.kinds.base import Asked, Finding, Kind, Setting
from llmops.usage.models import Journal


def _look(asked: Asked, figures: Figures) -> Iterator[Finding]:
    bound = asked.settings["seconds"]
    silent = Q(seen_at__lt=figures.now - timedelta(seconds=bound))
    for journal in Journal.objects.filter(silent | ~Q(problem=""), state=Journal.OPEN)[:50]:
        age = max(0.0, (figures.now - journal.seen_at).total_seconds())
        yield Finding(
            subject=f"journal:{journal.pk}",
            title=f"A journal is not booked: {journal.host}",
            says=f"Journal {journal.pk} on {journal.host} was last read {age:,.0f} s ago"
            + (f": {journal.problem}" if journal.problem else ". Figures and budgets are behind by as much."),
            value=age,
            bound=bound,
            facts={},
        )


KIND = Kind(
    name="journal_lag",
    title="A journal is not booked",
    says="Journals of data planes that nobody reads, or that cannot be read.",
    look=_look,
    runbook="journal-backlog",
    settings=(Setting("seconds", "Not read for", 120, "s", 10, 86_400),),
)
