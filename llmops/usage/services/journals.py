"""Journals as rows."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from llmops.base.clock import database_now
from llmops.usage.models import Journal

#: Held shared by whoever books calls into rollups, alone by whoever recomputes rollups from calls.
ROLLUPS_LOCK = "usage.rollups"


def open_journal(*, journal_id: UUID, host: str, path: str, opened_at: datetime | None = None) -> Journal:
    """Register a journal; harmless when it is registered already. ``path`` is its directory on ``host``."""
    now = database_now()
    return Journal.objects.get_or_create(
        pk=journal_id,
        defaults={"host": host[:200], "path": path[:500], "opened_at": opened_at or now, "seen_at": now},
    )[0]


def journal_closed(journal_id: UUID) -> bool:
    """Whether a journal was booked to its end: nothing that is written into it later counts."""
    return Journal.objects.filter(pk=journal_id, state=Journal.CLOSED).exists()


def booked_records(journal_id: UUID) -> int:
    """How many records of a journal are in the database."""
    return Journal.objects.filter(pk=journal_id).values_list("sequence", flat=True).first() or 0


def mark_lost(journal_ids: Collection[UUID]) -> int:
    """Note that nobody could read these journals before their leases ran out; booking one opens it again."""
    rows = Journal.objects.filter(pk__in=list(journal_ids), state=Journal.OPEN)
    return rows.update(state=Journal.LOST)
