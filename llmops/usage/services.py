"""What changes usage: journals that open, jobs that people ask for, calls past their retention."""

from __future__ import annotations

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
