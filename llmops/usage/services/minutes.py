"""Forgetting rollups by minute, which are for looking at what happened lately; those by hour and day stay."""

from __future__ import annotations

import time
from datetime import date, datetime, timedelta

from django.db import models, transaction

from llmops.base.clock import database_now
from llmops.base.locks import lock
from llmops.core.actors import Actor
from llmops.usage.models import Job, LatencyRollup, PromptRollup, Rollup, Summary
from llmops.usage.services.jobs import JOBS_LOCK, REBUILD
from llmops.usage.services.retention import midnight, move_mark

_BATCH = 5000


def forget_minutes(
    actor: Actor, *, days: int, now: datetime | None = None, batch: int = _BATCH, most_seconds: float = 50.0
) -> int:
    """Remove rollups by minute that are more than ``days`` whole days (UTC) old; how many went. 0 days keep them.

    In small transactions; stops after ``most_seconds``, the next run goes on. Waits for a later run while an old day is
    recomputed, whose hours are added up from its minutes. One audit event a day on which anything is removed, before it is.
    """
    if days <= 0:
        return 0
    before = midnight(now or database_now()) - timedelta(days=days)
    old: list[models.QuerySet[models.Model]] = [
        model._base_manager.filter(granularity=Rollup.MINUTE, bucket__lt=before)
        for model in (Rollup, LatencyRollup, PromptRollup, Summary)
    ]
    if not any(rows.exists() for rows in old):
        return 0
    move_mark(actor, minutes_since=before, days=days)
    removed, deadline = 0, time.monotonic() + most_seconds
    for rows in old:
        while time.monotonic() < deadline:
            with transaction.atomic():
                lock(JOBS_LOCK)
                if _recomputing(before.date()):
                    return removed
                found = list(rows.order_by("bucket").values_list("pk", flat=True)[:batch])
                removed += rows.model._base_manager.filter(pk__in=found).delete()[0]
            if len(found) < batch:
                break
    return removed


def _recomputing(before: date) -> bool:
    moving = Job.objects.filter(kind=REBUILD, state__in=(Job.QUEUED, Job.RUNNING))
    return any(
        date.fromisoformat(arguments["day"]) < before
        for arguments in moving.values_list("arguments", flat=True)
    )
