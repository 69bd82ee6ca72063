"""Telling data planes that something they hold in memory has changed."""

from __future__ import annotations

from datetime import datetime

from django.db.models import F, Max
from django.db.models.functions import Now

from llmops.base.models import LiveVersion

REVISION = "revision"
LIVE_STATE = "live_state"
NAMES = (REVISION, LIVE_STATE)


def touch(name: str) -> None:
    """Raise the counter of ``name``; call it inside the transaction that makes the change."""
    row = LiveVersion.objects.filter(name=name)
    if not row.update(number=F("number") + 1, changed_at=Now()):
        # Somebody else may insert the same name at this moment; whoever comes second waits, and then finds it.
        LiveVersion.objects.bulk_create([LiveVersion(name=name)], ignore_conflicts=True)
        row.update(number=F("number") + 1, changed_at=Now())


def versions() -> dict[str, int]:
    """The current counters; a name that was never touched is absent."""
    return dict(LiveVersion.objects.values_list("name", "number"))


def last_change() -> datetime | None:
    """When something changed last, by the database's clock; None before anything did."""
    found: datetime | None = LiveVersion.objects.aggregate(last=Max("changed_at"))["last"]
    return found
