"""Reading budgets: where each stands now."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
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

    @property
    def left_nano(self) -> int:
        return max(0, self.limit_nano - self.settled_nano - self.held_nano)

    @property
    def percent(self) -> int | None:
        return (self.settled_nano + self.held_nano) * 100 // self.limit_nano if self.limit_nano else None

    @property
    def passed(self) -> tuple[int, ...]:
        """Thresholds that what is settled has reached."""
        return tuple(one for one in self.thresholds if self.settled_nano * 100 >= one * self.limit_nano)


def active_budgets() -> QuerySet[Budget]:
    return Budget.objects.filter(archived_at=None).select_related("project")


def gauges(project_ids: Collection[UUID] | None, now: datetime) -> list[Gauge]:
    """Every budget in force in these projects (None: all, and the organisation's own), by name. Two queries."""
    budgets = active_budgets()
    if project_ids is not None:
        budgets = budgets.filter(project_id__in=list(project_ids))
    found = list(budgets.order_by("slug"))
    return list(gauges_of(found, now).values())


def gauges_of(budgets: Collection[Budget], now: datetime) -> dict[UUID, Gauge]:
    """Gauges of these budgets, by their ids in the same order. One query, two with a raise."""
    current = Window.objects.filter(starts_at__lte=now, budget__in=[one.pk for one in budgets]).filter(
        Q(ends_at=None) | Q(ends_at__gt=now)
    )
    windows = {window.budget_id: window for window in current.order_by("starts_at")}
    raised = [one for one in budgets if one.raised_until is not None and one.raised_until > now]
    raises = open_raises(raised) if raised else {}
    return {
        budget.pk: gauge(budget, windows.get(budget.pk), now, raises.get(budget.pk, ())) for budget in budgets
    }


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
