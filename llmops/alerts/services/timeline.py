"""Adding to an incident's timeline."""

from __future__ import annotations

from datetime import datetime

from llmops.alerts.models import Entry, Incident


def add(incident: Incident, kind: str, text: str, *, at: datetime, who: str = "") -> Entry:
    return Entry.objects.create(incident=incident, kind=kind, text=text[:1000], at=at, who=who[:200])
