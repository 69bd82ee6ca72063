"""Thresholds that were crossed: one event for each in a window, and one e-mail to each address that is to know."""

from __future__ import annotations

from llmops.base.clock import database_now
from llmops.budgets.models import Budget, ThresholdCrossing, ThresholdNotice, Window


def note_crossings(window: Window, budget: Budget) -> None:
    """Write down what thresholds the amounts of a locked window have reached and had not; the caller saves the window.

    Written in the transaction that settles, under the window's lock: once, whatever is repeated. A threshold below one
    that is on record already was not crossed but set too late, and tells nothing.
    """
    crossed = [
        percent
        for percent in budget.thresholds
        if percent > window.crossed_percent
        and window.settled_nano
        and window.settled_nano * 100 >= percent * window.limit_nano
    ]
    if not crossed:
        return
    now = database_now()
    rows = ThresholdCrossing.objects.bulk_create(
        ThresholdCrossing(
            window=window,
            percent=percent,
            settled_nano=window.settled_nano,
            limit_nano=window.limit_nano,
            crossed_at=now,
        )
        for percent in crossed
    )
    window.crossed_percent = max(crossed)
    # Who settles much at once tells each address of the highest threshold only.
    ThresholdNotice.objects.bulk_create(
        ThresholdNotice(crossing=rows[-1], address=address, due_at=now) for address in budget.notify
    )
