"""Reading budgets: where each stands now."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from llmops.base.clock import database_now
from llmops.budgets.models import Budget, Raise, ThresholdCrossing, Window
from llmops.budgets.periods import bounds
from llmops.budgets.scopes import ORGANISATION, PROJECT


@dataclass(frozen=True, slots=True)
class Gauge:
    """A budget in its present period. Amounts are nanodollars; ``held_nano`` is leased to data planes, so may be spent.

    ``limit_nano`` is that of the period, with what was carried over from the one before and what it is raised by now. ``percent`` is what is settled and
    held of it, rounded down; None where the limit is zero. ``resets_at`` is None for a budget that never resets.
    """

    budget_id: UUID
    slug: str
    scope: str
    project_id: UUID | None
    project_slug: str | None
    period: str
    timezone: str
    hard: bool
    limit_nano: int
    settled_nano: int
    held_nano: int
    overrun_nano: int
    unattributed_nano: int
    thresholds: tuple[int, ...]
    starts_at: datetime
    resets_at: datetime | None
    carried_nano: int = 0
    raised_nano: int = 0
    at_limit_route: str = ""
    #: of the first refusal under the limit, read only where next to nothing is left
    refused_at: datetime | None = None

    @property
    def used_nano(self) -> int:
        return self.settled_nano + self.held_nano

    @property
    def next_to_nothing_left(self) -> bool:
        """Whether calls that were refused lately would be so again: at most a twentieth of the limit is left."""
        return self.left_nano * 20 <= self.limit_nano

    @property
    def used_up(self) -> bool:
        """Whether it refuses calls. What data planes hold may come back unspent, so that alone does not use it up."""
        spent = self.settled_nano >= self.limit_nano or self.refused_at is not None
        return self.hard and self.limit_nano > 0 and self.next_to_nothing_left and spent

    @property
    def left_nano(self) -> int:
        return max(0, self.limit_nano - self.used_nano)

    @property
    def percent(self) -> int | None:
        return self.used_nano * 100 // self.limit_nano if self.limit_nano else None

    @property
    def passed(self) -> tuple[int, ...]:
        """Thresholds that what is settled has reached."""
        return tuple(one for one in self.thresholds if self.settled_nano * 100 >= one * self.limit_nano)


def active_budgets() -> QuerySet[Budget]:
    return Budget.objects.filter(archived_at=None).select_related("project")


def gauges(project_ids: Collection[UUID] | None, now: datetime) -> list[Gauge]:
    """Every budget in force in these projects (None: all, and the organisation's own), by name. Two queries, as ``gauges_of``."""
    budgets = active_budgets()
    if project_ids is not None:
        budgets = budgets.filter(project_id__in=list(project_ids))
    found = list(budgets.order_by("slug"))
    return list(gauges_of(found, now).values())


def gauges_of(budgets: Collection[Budget], now: datetime) -> dict[UUID, Gauge]:
    """Gauges of these budgets, by their ids in the same order. One query, one more with a raise, and one more where a hard one
    has next to nothing left."""
    current = Window.objects.filter(starts_at__lte=now, budget__in=[one.pk for one in budgets]).filter(
        Q(ends_at=None) | Q(ends_at__gt=now)
    )
    windows = {window.budget_id: window for window in current.order_by("starts_at")}
    raised = [one for one in budgets if one.raised_until is not None and one.raised_until > now]
    raises = open_raises(raised) if raised else {}
    found = {
        budget.pk: gauge(budget, windows.get(budget.pk), now, raises.get(budget.pk, ())) for budget in budgets
    }
    short = {
        windows[one.budget_id].pk: one
        for one in found.values()
        if one.hard and one.next_to_nothing_left and one.budget_id in windows
    }
    for window_id, at in _first_refusals({pk: one.limit_nano for pk, one in short.items()}).items():
        found[short[window_id].budget_id] = replace(short[window_id], refused_at=at)
    return found


def _first_refusals(limits: Mapping[int, int]) -> dict[int, datetime]:
    """Window -> when it refused a call for the first time under its limit or a higher one, of those that did."""
    rows = ThresholdCrossing.objects.filter(window__in=list(limits), refusing=True) if limits else ()
    found: dict[int, datetime] = {}
    for row in rows:
        if row.limit_nano >= limits[row.window_id]:
            found[row.window_id] = min(row.crossed_at, found.get(row.window_id, row.crossed_at))
    return found


def open_raises(budgets: Collection[Budget]) -> dict[UUID, list[Raise]]:
    """Raises of these budgets that are in force or to come, by budget."""
    found: dict[UUID, list[Raise]] = {}
    if budgets:
        rows = Raise.objects.filter(budget__in=[one.pk for one in budgets], ends_at__gt=database_now())
        for one in rows.order_by("starts_at"):
            found.setdefault(one.budget_id, []).append(one)
    return found


def gauge(budget: Budget, window: Window | None, now: datetime, raises: Collection[Raise] = ()) -> Gauge:
    """The gauge of one budget; ``window`` is the one that holds ``now``, None when nothing was spent in it yet."""
    carried = window.carried_nano if window else 0
    raised = sum(one.amount_nano for one in raises if one.starts_at <= now < one.ends_at)
    starts_at, resets_at = bounds(budget.period, budget.timezone, now)
    return Gauge(
        budget_id=budget.pk,
        slug=budget.slug,
        scope=scope_text(budget),
        project_id=budget.project_id,
        project_slug=budget.project.slug if budget.project else None,
        period=budget.period,
        timezone=budget.timezone,
        hard=budget.hard,
        limit_nano=budget.limit_nano + carried + raised,
        settled_nano=window.settled_nano if window else 0,
        held_nano=window.leased_nano if window else 0,
        overrun_nano=window.overrun_nano if window else 0,
        unattributed_nano=window.unattributed_nano if window else 0,
        thresholds=tuple(budget.thresholds),
        starts_at=starts_at,
        resets_at=resets_at,
        carried_nano=carried,
        raised_nano=raised,
        at_limit_route=budget.at_limit_route,
    )


def recent_crossings(budget_ids: Collection[UUID], since: datetime) -> list[ThresholdCrossing]:
    """What each of these budgets crossed last since then in its present period, the highest threshold at that time or its
    first refusal; the latest first. A refusal under a limit that was raised since is none of them."""
    present = Q(window__ends_at=None) | Q(window__ends_at__gt=database_now())
    rows = ThresholdCrossing.objects.filter(
        present, window__budget__in=list(budget_ids), crossed_at__gte=since
    ).select_related("window__budget")
    last: dict[int, ThresholdCrossing] = {}
    for row in rows.order_by("-crossed_at", "-refusing", "-percent"):
        if row.window_id not in last and not (row.refusing and row.limit_nano < row.window.limit_nano):
            last[row.window_id] = row
    return list(last.values())


def current_window(budget: Budget, now: datetime) -> Window | None:
    starts_at, _ = bounds(budget.period, budget.timezone, now)
    return Window.objects.filter(budget=budget, starts_at=starts_at).first()


def window_names(window_ids: Collection[int]) -> dict[int, dict[str, Any]]:
    """Budget and period of windows, for showing what a call was charged to."""
    rows = Window.objects.filter(pk__in=list(window_ids)).select_related("budget")
    return {
        row.pk: {
            "budget_id": row.budget_id,
            "budget": row.budget.slug,
            "starts_at": row.starts_at,
            "ends_at": row.ends_at,
        }
        for row in rows
    }


def scope_text(budget: Budget) -> str:
    """The scope in words, such as ``feature search in project support``."""
    if budget.scope_kind == ORGANISATION:
        return "organisation"
    text = f"{budget.scope_kind} {budget.scope_value}"
    if budget.project and budget.scope_kind != PROJECT:
        text += f" in project {budget.project.slug}"
    return text
