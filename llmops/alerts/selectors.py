"""Reading alerts: what is open, what is silenced, and how much of each error budget is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Case, Count, IntegerField, QuerySet, When

from llmops.access.selectors import visible
from llmops.alerts import burn
from llmops.alerts.figures import Figures, Scope
from llmops.alerts.kinds import kind_named
from llmops.alerts.models import Channel, Evaluation, Incident, Rule, Silence, Slo
from llmops.alerts.objectives import counted, words

VIEW = "alert.view"
_BY_SEVERITY = Case(
    When(severity="critical", then=0), When(severity="warning", then=1), default=2, output_field=IntegerField()
)  # fmt: skip


def silences_now(rule: Rule, now: datetime) -> list[Silence]:
    return list(Silence.objects.filter(rule=rule, ended_at=None, until__gt=now))


def silences_everywhere(now: datetime) -> dict[tuple[UUID, str], datetime]:
    """(Rule, subject) -> until when it is silenced; an empty subject is the whole rule."""
    rows = Silence.objects.filter(ended_at=None, until__gt=now).order_by("until")
    return {
        (rule, subject): until for rule, subject, until in rows.values_list("rule_id", "subject", "until")
    }


def silence_of(incident: Incident, now: datetime) -> Silence | None:
    """The one that ends last."""
    return (
        Silence.objects.filter(
            rule_id=incident.rule_id, subject__in=("", incident.subject), ended_at=None, until__gt=now
        )
        .order_by("-until")
        .first()
    )


def is_silenced(incident: Incident, now: datetime) -> bool:
    return silence_of(incident, now) is not None


def unresolved(who: Any) -> QuerySet[Incident]:
    """Incidents that are not over, the worst first, that ``who`` may see."""
    rows = visible(Incident.objects.exclude(state=Incident.RESOLVED), who, VIEW)
    return rows.select_related("rule", "project").order_by(_BY_SEVERITY, "-state", "opened_at")


def resolved(who: Any) -> QuerySet[Incident]:
    rows = visible(Incident.objects.filter(state=Incident.RESOLVED), who, VIEW)
    return rows.select_related("rule", "project").order_by("-resolved_at")


def silenced_among(incidents: Iterable[Incident], now: datetime) -> dict[UUID, Silence]:
    """Those of ``incidents`` that are silenced. One query."""
    known = list(incidents)
    rows: dict[UUID, list[Silence]] = {}
    for one in Silence.objects.filter(rule__in={row.rule_id for row in known}, ended_at=None, until__gt=now):
        rows.setdefault(one.rule_id, []).append(one)
    return {
        row.pk: one for row in known for one in rows.get(row.rule_id, ()) if one.subject in ("", row.subject)
    }


def open_by_severity(incidents: QuerySet[Incident]) -> dict[str, int]:
    """How many of ``incidents`` are not over; every severity is there."""
    rows = incidents.exclude(state=Incident.RESOLVED).order_by().values_list("severity").annotate(Count("pk"))
    return {"critical": 0, "warning": 0, "info": 0, **dict(rows)}


def last_evaluation() -> Evaluation | None:
    return Evaluation.objects.filter(pk=1).first()


def told_to_anybody() -> bool:
    return Channel.objects.filter(enabled=True, archived_at=None).exists()


@dataclass(frozen=True, slots=True)
class Burn:
    """One of the policies' pairs of windows. ``alerts``: both are at its rate."""

    policy: burn.Policy
    long_rate: float
    short_rate: float
    alerts: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """``left`` is the share of the error budget that is left (below 0: missed), ``ratio`` the share of calls that did well."""

    slo: Slo
    words: str
    count: burn.Count
    left: float
    ratio: float | None
    burns: tuple[Burn, ...]


def standings(slos: Sequence[Slo], figures: Figures) -> list[Standing]:
    """How objectives stand over their windows, and how fast their budgets burn. They are read together: queries do not grow with
    them."""
    windows = {seconds for policy in burn.POLICIES for seconds in (policy.long_s, policy.short_s)}
    windows |= {_whole(slo) for slo in slos}
    counts = counted(slos, windows, figures)
    return [_standing(slo, counts[slo.pk]) for slo in slos]


def _whole(slo: Slo) -> int:
    return slo.window_days * burn.DAY


def _standing(slo: Slo, counts: Mapping[int, burn.Count]) -> Standing:
    whole = counts[_whole(slo)]
    burns = []
    for policy in burn.POLICIES:
        long, short = (
            burn.burn_rate(counts[seconds], slo.target) for seconds in (policy.long_s, policy.short_s)
        )
        alerts = burn.reaches(long, policy.rate) and burn.reaches(short, policy.rate)
        burns.append(Burn(policy, long, short, alerts))
    return Standing(
        slo=slo,
        words=words(slo),
        count=whole,
        left=burn.budget_left(whole, slo.target),
        ratio=1 - whole.ratio if whole.valid else None,
        burns=tuple(burns),
    )


@dataclass(frozen=True, slots=True)
class Preview:
    """How often a rule would have fired, hour by hour. ``fired`` holds the beginning of each time."""

    fired: tuple[tuple[str, datetime], ...]
    hours: int


def preview(rule: Rule, now: datetime, *, days: int = 7) -> Preview | None:
    """How often the rule as it stands would have fired in the last days; None for kinds of which no past figures are kept.

    By whole hours, so that its cost follows from the days: what went by within minutes may be missed, and a rule of seconds is
    seen through a coarser glass.
    """
    kind = kind_named(rule.kind)
    if kind.measure is None:
        return None
    numbers = {one.name: float(rule.settings.get(one.name, one.default)) for one in kind.settings}
    scope = Scope(project_id=rule.project_id, route=rule.route, model=rule.model, feature=rule.feature)
    series: dict[str, dict[datetime, Any]] = {}
    for (place, at), measured in Figures(now).by_bucket(days * 86_400, scope).items():
        series.setdefault(place, {})[at] = measured
    fired: list[tuple[str, datetime]] = []
    for place, buckets in series.items():
        before, last = False, None
        for at in sorted(buckets):
            found = kind.measure(buckets[at], numbers)
            holds = bool(found and found[1])
            joined = last is not None and at - last <= timedelta(hours=1)
            if holds and not (before and joined):
                fired.append((place, at))
            before, last = holds, at
    return Preview(tuple(sorted(fired, key=lambda one: one[1])), days * 24)
