"""Removing calls past their retention; rollups stay."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from django.db import transaction

from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.core.actors import Actor
from llmops.usage import partitions
from llmops.usage.models import Call, RetentionMark

_BATCH = 2000


def apply_retention(
    actor: Actor, *, days: int, now: datetime | None = None, batch: int = _BATCH, most_seconds: float = 50.0
) -> int:
    """Remove calls that began more than ``days`` whole days (UTC) ago; how many went.

    On PostgreSQL the tables of whole days are dropped; what lies elsewhere, and everything on SQLite, is deleted in small
    transactions. Stops after ``most_seconds``; the next run goes on. 0 days keep calls for ever. One audit event a day on which
    anything is removed, before it is: the mark that moves with it tells others that the calls are no longer complete.
    """
    if days <= 0:
        return 0
    today = (now or database_now()).replace(hour=0, minute=0, second=0, microsecond=0)
    before = today - timedelta(days=days)
    if not Call.objects.filter(started_at__lt=before).exists():
        # Tables of days on which nobody called.
        return partitions.drop_before(before)
    _mark(actor, before, days)
    deadline = time.monotonic() + most_seconds
    removed = partitions.drop_before(before)
    while time.monotonic() < deadline:
        oldest = Call.objects.filter(started_at__lt=before).order_by("started_at", "id")
        count, _ = Call.objects.filter(pk__in=list(oldest.values_list("pk", flat=True)[:batch])).delete()
        removed += count
        if count < batch:
            break
    return removed


def calls_since() -> datetime | None:
    """From when on every call is still there; None when none were ever removed."""
    return RetentionMark.objects.filter(pk=1).values_list("calls_since", flat=True).first()


def _mark(actor: Actor, before: datetime, days: int) -> None:
    with transaction.atomic():
        mark, created = RetentionMark.objects.select_for_update().get_or_create(
            pk=1, defaults={"calls_since": before}
        )
        if not created:
            if mark.calls_since >= before:
                return
            mark.calls_since = before
            mark.save(update_fields=["calls_since"])
        record(
            actor,
            action="usage.calls_removed",
            object_type="usage.retentionmark",
            object_id=1,
            object_name=f"calls before {before:%Y-%m-%d}",
            after={"calls_since": before.isoformat(), "retention_days": days},
        )
