"""Thresholds that were crossed: one event for each in a window and limit, and one e-mail to each address that is to know.

When the limit rises, thresholds count anew against it; when it comes down again, what was told once is not told again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmops.base.clock import database_now
from llmops.budgets.models import Budget, ThresholdCrossing, ThresholdNotice, Window


def note_crossings(window: Window, budget: Budget, limit: int) -> None:
    """Write down what thresholds of ``limit`` the amounts of a locked window have reached and had not; the caller saves the
    window.

    Written in the transaction that settles, under the window's lock: once, whatever is repeated. A threshold below one
    that is on record already was not crossed but set too late, and tells nothing.
    """
    reached = [
        percent
        for percent in budget.thresholds
        if window.settled_nano and window.settled_nano * 100 >= percent * limit
    ]
    if not reached:
        return
    told = _told(window, limit)
    crossed = [percent for percent in reached if percent > told]
    if crossed:
        _tell(window, budget, [_row(window, percent, limit) for percent in crossed])
        window.crossed_percent = max(window.crossed_percent, *crossed)


def note_refusal(window: Window, budget: Budget, limit: int) -> None:
    """Write down that a hard budget refused a call under ``limit``, unless that is on record."""
    if not window.crossings.filter(refusing=True, limit_nano__gte=limit).exists():
        _tell(window, budget, [_row(window, 100, limit, refusing=True)])


def still_to_tell(refusals: Mapping[int, int]) -> dict[int, int]:
    """Those refusals (window -> limit) that may not be on record. Locks nothing."""
    rows = ThresholdCrossing.objects.filter(window__in=list(refusals), refusing=True).order_by("limit_nano")
    told = dict(rows.values_list("window_id", "limit_nano"))
    return {pk: limit for pk, limit in refusals.items() if told.get(pk, -1) < limit}


def _told(window: Window, limit: int) -> int:
    """The highest threshold that is not to be told under ``limit``. What was told under a lower one counts as far as it
    was reached under this one, too."""
    rows = window.crossings.filter(refusing=False).order_by()
    return max(
        (
            percent if under >= limit else min(percent, settled * 100 // limit)
            for percent, under, settled in rows.values_list("percent", "limit_nano", "settled_nano")
        ),
        default=0,
    )


def _row(window: Window, percent: int, limit: int, *, refusing: bool = False) -> ThresholdCrossing:
    return ThresholdCrossing(
        window=window,
        percent=percent,
        settled_nano=window.settled_nano,
        limit_nano=limit,
        refusing=refusing,
        crossed_at=database_now(),
    )


def _tell(window: Window, budget: Budget, crossings: Sequence[ThresholdCrossing]) -> None:
    """Who settles much at once tells each address of the highest threshold only, the last of ``crossings``."""
    last = ThresholdCrossing.objects.bulk_create(crossings)[-1]
    ThresholdNotice.objects.bulk_create(
        ThresholdNotice(crossing=last, address=address, due_at=last.crossed_at) for address in budget.notify
    )
