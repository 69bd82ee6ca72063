"""Forgetting what providers keep no longer."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from django.db.models import Q

from llmops.base.clock import database_now
from llmops.usage.models import KeptItem, KeptObject

#: Kinds that providers remove by themselves after a while (OpenAI: 30 days).
PASSING = ("response", "chat.completion", "audio")
#: A deleted object is remembered so long, so that who asks for it is told at once.
_GONE_DAYS = 7
_BATCH = 2000


def forget_objects(
    *, days: int, now: datetime | None = None, batch: int = _BATCH, most_seconds: float = 50.0
) -> int:
    """Remove the rows of objects that were deleted a week ago, and of responses and stored chats older than ``days``
    (0 keeps them); how many went. Files, batches and everything else stay until they are deleted.

    In small transactions; stops after ``most_seconds``, the next run goes on.
    """
    now = now or database_now()
    over = Q(gone_at__lt=now - timedelta(days=_GONE_DAYS))
    if days > 0:
        over |= Q(kind__in=PASSING, made_at__lt=now - timedelta(days=days))
    removed, deadline = 0, time.monotonic() + most_seconds
    while time.monotonic() < deadline:
        found = list(KeptObject.objects.filter(over).values_list("pk", flat=True)[:batch])
        KeptItem.objects.filter(kept__in=found).delete()
        removed += KeptObject.objects.filter(pk__in=found).delete()[0]
        if len(found) < batch:
            break
    return removed
