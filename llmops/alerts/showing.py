"""Incidents and objectives as their pages show them: words, and addresses of what is behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode
from uuid import UUID

from django.urls import NoReverseMatch, reverse

from llmops.alerts import runbooks
from llmops.alerts.behind import Behind, Carried
from llmops.alerts.models import Incident, Silence
from llmops.alerts.selectors import Standing

TONES = {"critical": "bad", "warning": "warn", "info": "odd"}
#: Filters of the list of calls that an incident's facts may hold.
_NARROWS = ("project", "route", "model", "feature", "key", "error", "status", "fallback")
#: So long before it began is looked at as well.
_BEFORE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Row:
    incident: Incident
    href: str
    tone: str
    calls_href: str
    page_href: str
    runbook_href: str
    runbook: str
    silence: Silence | None
    carried: tuple[Carried, ...]


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def calls_query(incident: Incident, **otherwise: str) -> str:
    """What narrows the list of calls to those behind it, from shortly before it began until it ended; empty where it is not about
    calls. ``otherwise`` narrows by these in place of what the incident says."""
    facts = {**incident.facts, **otherwise}
    narrowed = {name: str(facts[name]) for name in _NARROWS if facts.get(name)}
    if not narrowed and not incident.calls:
        return ""
    times = {"from": _stamp(incident.opened_at - _BEFORE)}
    if incident.resolved_at:
        times["to"] = _stamp(incident.resolved_at)
    return urlencode({**times, **narrowed})


def calls_href(incident: Incident, **otherwise: str) -> str:
    query = calls_query(incident, **otherwise)
    return f"{reverse('dashboards:calls')}?{query}" if query else ""


def page_href(incident: Incident) -> str:
    """The page of the thing that it is about, where it names one."""
    name, pk = incident.facts.get("page"), incident.facts.get("object")
    if incident.facts.get("slo"):
        return reverse("alerts:slos") + f"#slo-{incident.facts['slo']}"
    if not name:
        return ""
    try:
        return reverse(str(name), args=[pk] if pk else [])
    except NoReverseMatch:
        return ""


def rows_of(
    incidents: Iterable[Incident],
    silences: Mapping[UUID, Silence] | None = None,
    carried: Mapping[str, tuple[Carried, ...]] | None = None,
) -> list[Row]:
    return [
        Row(
            incident=one,
            href=reverse("alerts:incident", args=[one.pk]),
            tone=TONES[one.severity],
            calls_href=calls_href(one),
            page_href=page_href(one),
            runbook_href=reverse("alerts:runbook", args=[one.rule.runbook]) if one.rule.runbook else "",
            runbook=runbooks.title_of(one.rule.runbook) if one.rule.runbook else "",
            silence=(silences or {}).get(one.pk),
            carried=(carried or {}).get(str(one.facts.get("route", "")), ())[:4],
        )
        for one in incidents
    ]


@dataclass(frozen=True, slots=True)
class Failure:
    code: str
    calls: int
    href: str


@dataclass(frozen=True, slots=True)
class Load:
    """What the calls of an incident came to lately, for its page."""

    since: datetime
    carried: tuple[Carried, ...]
    failures: tuple[Failure, ...]


def load_of(incident: Incident, found: Behind | None) -> Load | None:
    if found is None or not found.carried:
        return None
    failures = tuple(
        Failure(
            one.code, one.calls, calls_href(incident, error=one.code, status="failed", model="", fallback="")
        )
        for one in found.failed[:5]
    )
    return Load(found.start, found.carried[:6], failures)


@dataclass(frozen=True, slots=True)
class BurnRow:
    windows: str
    long: str
    short: str
    bound: str
    alerts: bool


@dataclass(frozen=True, slots=True)
class SloRow:
    """``width`` is what is left of the budget, 0..1000, for the gauge."""

    standing: Standing
    name: str
    tone: str
    width: int
    left: str
    done: str
    burns: tuple[BurnRow, ...]
    href: str


def _windows(long_s: int, short_s: int) -> str:
    def told(seconds: int) -> str:
        if seconds % 86_400 == 0:
            return f"{seconds // 86_400} d"
        return f"{seconds // 3600} h" if seconds % 3600 == 0 else f"{seconds // 60} min"

    return f"{told(long_s)} and {told(short_s)}"


def slo_row(standing: Standing, *, href: str) -> SloRow:
    left = standing.left
    burning = any(one.alerts for one in standing.burns)
    tone = "bad" if left < 0 or burning else "warn" if left < 0.25 else "ok"
    return SloRow(
        standing=standing,
        name=standing.slo.slug,
        tone=tone,
        width=round(1000 * min(1.0, max(0.0, left))),
        # What is spent many times over reads better so than as so many percent below nothing.
        left=f"{100 * left:.1f} %" if left > -1 else f"none: spent {1 - left:,.0f} times over",
        done="no calls yet" if standing.ratio is None else f"{100 * standing.ratio:.3f} %",
        burns=tuple(
            BurnRow(
                windows=_windows(one.policy.long_s, one.policy.short_s),
                long=f"{one.long_rate:.1f}x",
                short=f"{one.short_rate:.1f}x",
                bound=f"{one.policy.rate:g}x",
                alerts=one.alerts,
            )
            for one in standing.burns
        ),
        href=href,
    )


def entry_words(kind: str) -> str:
    return {
        "told": "Told",
        "not_told": "Not told",
        "well": "Well",
        "ill_again": "Not well after all",
        "came_back": "Came back",
        "unsilenced": "Silence ended",
    }.get(kind, kind.replace("_", " ").capitalize())


_NAMES = {"route": "Route", "model": "Model", "feature": "Feature", "error": "Error"}


def place_of(incident: Incident) -> list[tuple[str, str]]:
    """What it is about, as names with their values."""
    return [(title, str(incident.facts[name])) for name, title in _NAMES.items() if incident.facts.get(name)]
