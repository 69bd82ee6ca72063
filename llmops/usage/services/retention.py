"""Removing calls past their retention; rollups stay."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q

from llmops.access.models import Project
from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.core.actors import Actor
from llmops.usage import partitions
from llmops.usage.models import Call, KeptAnswer, KeptText, Replay, RetentionMark

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
    before = midnight(now or database_now()) - timedelta(days=days)
    if not Call.objects.filter(started_at__lt=before).exists():
        # Tables of days on which nobody called.
        return partitions.drop_before(before)
    move_mark(actor, calls_since=before, days=days)
    Replay.objects.filter(made_at__lt=before).delete()
    deadline = time.monotonic() + most_seconds
    removed = partitions.drop_before(before)
    while time.monotonic() < deadline:
        oldest = Call.objects.filter(started_at__lt=before).order_by("started_at", "id")
        count, _ = Call.objects.filter(pk__in=list(oldest.values_list("pk", flat=True)[:batch])).delete()
        removed += count
        if count < batch:
            break
    return removed


def remove_kept_texts(*, now: datetime | None = None, batch: int = _BATCH) -> int:
    """Remove texts and answers of calls past what their project says, and all of a project that keeps none any more; how many."""
    now = now or database_now()
    removed = 0
    projects = Project.objects.filter(keep_texts_percent__gt=0, archived_at=None)
    keeping = dict(projects.values_list("pk", "keep_texts_days"))
    past = [Q(project_id=pk, started_at__lt=now - timedelta(days=days)) for pk, days in keeping.items()]
    for which in [*past, ~Q(project_id__in=list(keeping))]:
        for rows in (KeptText.objects, KeptAnswer.objects):
            while True:
                found = list(rows.filter(which).values_list("pk", flat=True)[:batch])
                removed += rows.filter(pk__in=found).delete()[0]
                if len(found) < batch:
                    break
    return removed


def calls_since() -> datetime | None:
    """From when on every call is still there; None when none were ever removed."""
    return RetentionMark.objects.filter(pk=1).values_list("calls_since", flat=True).first()


def midnight(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0)


def move_mark(actor: Actor, *, days: int, **to: datetime) -> None:
    """Move ``calls_since`` or ``minutes_since`` forward, on the record; nothing when it is there already."""
    [(name, before)] = to.items()
    what = name.removesuffix("_since")
    with transaction.atomic():
        mark, _ = RetentionMark.objects.select_for_update().get_or_create(pk=1)
        since = getattr(mark, name)
        if since is not None and since >= before:
            return
        setattr(mark, name, before)
        mark.save(update_fields=[name])
        record(
            actor,
            action=f"usage.{what}_removed",
            object_type="usage.retentionmark",
            object_id=1,
            object_name=f"{what} before {before:%Y-%m-%d}",
            after={name: before.isoformat(), "retention_days": days},
        )
