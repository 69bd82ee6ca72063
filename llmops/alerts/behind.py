"""What the calls behind an incident came to: who carried them, and how they failed. From rollups alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Sum

from llmops.alerts.models import Incident
from llmops.usage.models import Call, Rollup
from llmops.usage.selectors.spans import floor

#: What a call fails as because others failed before it: never the cause.
CONSEQUENCES = ("circuit_open",)
#: An incident is opened some seconds after its first call.
LEAD = timedelta(minutes=1)
_LATELY = timedelta(minutes=15)
#: Longer ones are told by whole hours, so that their cost stays small.
_BY_MINUTES = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Carried:
    """What the calls of a route came to at one model. ``model`` is empty where no target was left to try."""

    model: str
    answered: int
    failed: int


@dataclass(frozen=True, slots=True)
class Failed:
    code: str
    calls: int


@dataclass(frozen=True, slots=True)
class Behind:
    """Calls from ``start`` to ``end`` that a model was to answer; refusals and hang-ups are left out. ``failed``: causes first."""

    start: datetime
    end: datetime
    carried: tuple[Carried, ...]
    failed: tuple[Failed, ...]
    cost_nano: int

    @property
    def answered(self) -> int:
        return sum(one.answered for one in self.carried)

    @property
    def missed(self) -> int:
        return sum(one.failed for one in self.carried)


def behind(incident: Incident, now: datetime, *, lately: bool = False) -> Behind | None:
    """The calls of an incident's place since it began, until it ended. None where it is about no calls. One query.

    ``lately``: of those the last quarter of an hour. Other models of its route count as well: they may carry its load.
    """
    facts = incident.facts
    narrowed: dict[str, Any] = {
        column: facts[name]
        for name, column in (("route", "route"), ("feature", "feature"), ("key", "key_id"))
        if facts.get(name)
    }
    if not narrowed and facts.get("model"):
        narrowed["model"] = facts["model"]
    project = facts.get("project") or incident.project_id
    if not narrowed and not incident.calls:
        return None
    if project:
        narrowed["project_id"] = project
    end = incident.resolved_at or now
    start = incident.opened_at - LEAD
    if lately:
        start = max(start, end - _LATELY)
    kept = start > now - timedelta(days=settings.MINUTE_ROLLUP_DAYS)
    step = Rollup.MINUTE if kept and end - start <= _BY_MINUTES else Rollup.HOUR
    start = floor(start, step)
    rows = Rollup.objects.filter(granularity=step, bucket__gte=start, bucket__lte=end, **narrowed).order_by()
    models: dict[str, list[int]] = {}
    codes: dict[str, int] = {}
    cost = 0
    for model, status, code, calls, nano in rows.values_list("model", "status", "error_code").annotate(
        Sum("calls"), Sum("cost_nano")
    ):
        cost += nano
        _count(models, model, status, calls)
        if code and status not in (Call.OK, Call.REFUSED, Call.CLIENT_CLOSED):
            codes[code] = codes.get(code, 0) + calls
    return Behind(start, end, _carried(models), causes_first(codes), cost)


def causes_first(codes: dict[str, int]) -> tuple[Failed, ...]:
    """Error codes with their calls: the commonest cause first, what follows from others last."""
    ordered = sorted(codes, key=lambda code: (code in CONSEQUENCES, -codes[code], code))
    return tuple(Failed(code, codes[code]) for code in ordered)


def carrying(
    routes: Iterable[str], project_id: UUID | None, now: datetime, *, minutes: int = 15
) -> dict[str, tuple[Carried, ...]]:
    """Route -> who answers its calls now and who fails them, the most used first. One query."""
    named = sorted(set(routes))
    if not named:
        return {}
    rows = Rollup.objects.filter(
        granularity=Rollup.MINUTE,
        bucket__gte=now - timedelta(minutes=minutes),
        bucket__lte=now,
        route__in=named,
    )
    if project_id is not None:
        rows = rows.filter(project_id=project_id)
    found: dict[str, dict[str, list[int]]] = {}
    counted = rows.order_by().values_list("route", "model", "status").annotate(Sum("calls"))
    for route, model, status, calls in counted:
        _count(found.setdefault(route, {}), model, status, calls)
    return {route: _carried(models) for route, models in found.items()}


def _count(models: dict[str, list[int]], model: str, status: str, calls: int) -> None:
    if status not in (Call.REFUSED, Call.CLIENT_CLOSED):
        models.setdefault(model, [0, 0])[status != Call.OK] += calls


def _carried(models: dict[str, list[int]]) -> tuple[Carried, ...]:
    rows = [Carried(model, answered, failed) for model, (answered, failed) in models.items()]
    return tuple(sorted(rows, key=lambda one: (-one.answered, -one.failed, one.model)))
