"""Making summaries of what was booked since, and now and then of what was not."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from llmops.base.clock import database_now
from llmops.usage import summaries
from llmops.usage.models import Rollup
from llmops.usage.services.retention import midnight

_MOST_NOTES = 20_000


def renew_summaries(*, most_seconds: float = 15.0) -> int:
    """Make the summaries of buckets that are behind, newest first; how many were made.

    Each in a short transaction of its own. Stops after ``most_seconds``; the next run goes on. Any number may run at a time.
    """
    made, deadline = 0, time.monotonic() + most_seconds
    while found := list(summaries.stale(_MOST_NOTES)):
        before = made
        for bucket, notes in found:
            if time.monotonic() >= deadline:
                return made
            made += summaries.make(bucket, notes)
        if made == before:
            # Others are at it.
            return made
    return made


def recheck_summaries(*, days: int = 2, now: datetime | None = None) -> int:
    """Have the summaries of the last whole ``days`` and of today made anew, as if their rollups had changed; how many.

    For what was booked by an ingester that knew of no summaries yet, while the console was being upgraded.
    """
    end = now or database_now()
    start = midnight(end) - timedelta(days=days)
    found = [
        summaries.Bucket(*row)
        for row in Rollup.objects.filter(
            granularity__in=(Rollup.HOUR, Rollup.DAY), bucket__gte=start, bucket__lt=end
        )
        .order_by()
        .values_list("granularity", "bucket")
        .distinct()
    ]
    summaries.mark(found)
    return len(found)
