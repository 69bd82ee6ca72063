"""Looking at the rules: conditions become incidents, and incidents end. Nothing here waits for a mail server or a chat.

Any number of workers may call ``evaluate``: one claims the turn, and if two should work at once all the same, an incident is
opened by whoever's insert comes first (a unique constraint), and told of by whoever sets ``told``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q

from llmops.alerts import course
from llmops.alerts.figures import Figures, Scope
from llmops.alerts.kinds import Asked, Finding, Kind, kind_named
from llmops.alerts.models import Evaluation, Incident, Notification, Rule, Silence
from llmops.alerts.selectors import silences_now
from llmops.alerts.services.outbox import plan
from llmops.alerts.services.rules import ensure_shipped
from llmops.alerts.services.timeline import add
from llmops.audit.services import record_about
from llmops.base import tasks
from llmops.base.clock import database_now
from llmops.base.transitions import compare_and_set
from llmops.core.actors import job_actor
from llmops.core.redaction import redact_text

log = logging.getLogger(__name__)

#: A turn that was claimed so lately is somebody else's.
TURN = timedelta(seconds=5)
#: Incidents of one rule that are opened at most: a rule that finds more is told of as such.
MOST_SUBJECTS = 200


def evaluate(now: datetime | None = None, *, claim: bool = True) -> int:
    """Look at every rule that is due; how many incidents began, came back or ended. -1: it was another worker's turn.

    ``now`` is for tests; by default the database's clock. ``claim=False`` looks whoever else does.
    """
    clock = now or database_now()
    Evaluation.objects.get_or_create(pk=1)
    if claim and not _claimed(clock):
        return -1
    began = time.monotonic()
    ensure_shipped()
    figures, problems, changes = Figures(clock), [], 0
    # Most rules find nothing and had found nothing: they are done once that is known.
    restless = set(
        Incident.objects.exclude(state=Incident.RESOLVED).order_by().values_list("rule", flat=True).distinct()
    )
    for rule in Rule.objects.filter(archived_at=None).select_related("project"):
        try:
            kind = kind_named(rule.kind)
            if not rule.enabled:
                findings: list[Finding] = []
            elif rule.looked_at and clock - rule.looked_at < timedelta(seconds=kind.every_s):
                continue
            else:
                findings = look(rule, kind, figures)
            if findings or rule.pk in restless:
                changes += _apply(rule, findings, clock)
            if kind.every_s and rule.enabled:
                Rule.objects.filter(pk=rule.pk).update(looked_at=clock)
        except Exception as fault:
            # One rule that cannot be looked at must not blind the others. Its incidents stay as they are.
            log.exception("The rule %s could not be looked at", rule.slug)
            problems.append(f"{rule.slug}: {redact_text(str(fault))[:200] or type(fault).__name__}")
    Evaluation.objects.filter(pk=1).update(
        ended_at=clock, took_ms=int((time.monotonic() - began) * 1000), problems=problems
    )
    return changes


def _claimed(now: datetime) -> bool:
    # A clock that was set back must not stop everything until it has caught up.
    free = Q(begun_at=None) | Q(begun_at__lte=now - TURN) | Q(begun_at__gt=now + TURN)
    return Evaluation.objects.filter(free, pk=1).update(begun_at=now) == 1


def look(rule: Rule, kind: Kind, figures: Figures) -> list[Finding]:
    """What the rule's condition is met by, or nearly, one for each subject. In a transaction of its own, so that a fault in it
    leaves the connection usable."""
    asked = Asked(settings_of(rule, kind), scope_of(rule), rule.slug)
    with transaction.atomic():
        found = {finding.subject: finding for finding in kind.look(asked, figures)}
    return sorted(found.values(), key=lambda one: (-one.calls, one.subject))[:MOST_SUBJECTS]


def settings_of(rule: Rule, kind: Kind) -> dict[str, float]:
    return {
        setting.name: float(rule.settings.get(setting.name, setting.default)) for setting in kind.settings
    }


def scope_of(rule: Rule) -> Scope:
    return Scope(project_id=rule.project_id, route=rule.route, model=rule.model, feature=rule.feature)


def _apply(rule: Rule, findings: Iterable[Finding], now: datetime) -> int:
    noted: list[tuple[Incident, str]] = []
    silences = silences_now(rule, now)
    with transaction.atomic():
        unresolved = {
            one.subject: one for one in rule.incidents.exclude(state=Incident.RESOLVED).select_related("project")
        }  # fmt: skip
        seen = set()
        for finding in findings:
            seen.add(finding.subject)
            incident = unresolved.get(finding.subject)
            if incident is None:
                if finding.holds and (incident := _begin(rule, finding, now)):
                    noted.append((incident, "incident.came_back" if incident.flaps else "incident.opened"))
            else:
                _goes_on(incident, finding, now)
            if incident is not None:
                _tell(incident, silences, now)
        for subject, incident in unresolved.items():
            if subject not in seen and _well(incident, rule, now):
                noted.append((incident, "incident.resolved"))
        # Last, because the trail is locked from here on. Charts are marked by what it says.
        for incident, action in noted:
            record_about(
                job_actor("alerts.evaluate"),
                incident,
                action=action,
                after={"severity": incident.severity, "says": incident.says},
            )
    return len(noted)


def _begin(rule: Rule, finding: Finding, now: datetime) -> Incident | None:
    """A new incident, or the last one again if it ended only just now. None: another worker was first."""
    last = (
        Incident.objects.filter(rule=rule, subject=finding.subject, state=Incident.RESOLVED)
        .order_by("-resolved_at")
        .first()
    )
    if last is not None and last.resolved_at and course.comes_back(last.resolved_at, now):
        return last if _again(last, finding, now) else None
    made = Incident(
        rule=rule,
        subject=finding.subject[:200],
        project_id=finding.project_id,
        severity=finding.severity or rule.severity,
        title=redact_text(finding.title)[:200],
        opened_at=now,
        last_true_at=now,
        worst=finding.value,
        **_figures(finding),
    )
    Incident.objects.bulk_create([made], ignore_conflicts=True)
    if not Incident.objects.filter(pk=made.pk).exists():
        return None
    add(made, "opened", made.says or made.title, at=now)
    return made


def _again(incident: Incident, finding: Finding, now: datetime) -> bool:
    came = compare_and_set(
        incident,
        expect={"state": Incident.RESOLVED, "resolved_at": incident.resolved_at},
        change={
            "state": Incident.OPEN,
            "resolved_at": None,
            "resolved_by": "",
            "acknowledged_at": None,
            "acknowledged_by": "",
            "clear_since": None,
            "last_true_at": now,
            "flaps": incident.flaps + 1,
            "told": False,
            "severity": finding.severity or incident.rule.severity,
            "worst": max(incident.worst, finding.value),
            **_figures(finding),
        },
    )
    if came:
        add(incident, "came_back", f"It is back. {incident.says}", at=now)
    return came


def _figures(finding: Finding) -> dict[str, Any]:
    facts: Mapping[str, Any] = {**finding.facts, "bound": finding.bound}
    return {
        "says": redact_text(finding.says)[:500],
        "value": finding.value,
        "calls": finding.calls,
        "facts": dict(facts),
    }


_WORSE = {"info": 0, "warning": 1, "critical": 2}


def _goes_on(incident: Incident, finding: Finding, now: datetime) -> None:
    """Its figures are those of now. Where the condition is only near, it neither ends nor begins anew."""
    if incident.clear_since is not None:
        add(incident, "ill_again", finding.says or "It is not well after all.", at=now)
    severity = finding.severity or incident.rule.severity
    change: dict[str, Any] = {"clear_since": None, **_figures(finding)}
    if finding.holds:
        change |= {"last_true_at": now, "worst": max(incident.worst, finding.value)}
        if _WORSE[severity] > _WORSE[incident.severity]:
            # Those who are told of what is worse were not told yet.
            change |= {"severity": severity, "told": False}
            add(incident, "worsened", f"It is {severity} now. {finding.says}", at=now)
    compare_and_set(
        incident, expect={"state": (Incident.OPEN, Incident.ACKNOWLEDGED)}, change=change
    )  # fmt: skip


def _well(incident: Incident, rule: Rule, now: datetime) -> bool:
    if incident.clear_since is None:
        first = compare_and_set(
            incident,
            expect={"state": (Incident.OPEN, Incident.ACKNOWLEDGED), "clear_since": None},
            change={"clear_since": now},
        )
        wait = course.well_for(rule.resolve_after_s, incident.flaps)
        if first and wait:
            minutes = wait.total_seconds() / 60
            add(incident, "well", f"It is well. It ends when it stays so for {minutes:g} min.", at=now)
    if not course.ends(incident.clear_since, now, resolve_after_s=rule.resolve_after_s, flaps=incident.flaps):
        return False
    ended = compare_and_set(
        incident,
        expect={"state": (Incident.OPEN, Incident.ACKNOWLEDGED), "clear_since": incident.clear_since},
        change={"state": Incident.RESOLVED, "resolved_at": now, "resolved_by": "by itself"},
    )
    if not ended:
        return False
    add(incident, "resolved", "It was well for long enough.", at=now)
    plan(incident, Notification.RESOLVED, now)
    tasks.send("alerts.deliver")
    return True


def _tell(incident: Incident, silences: list[Silence], now: datetime) -> None:
    """Once: whoever sets ``told`` writes the outbox."""
    if incident.told or any(one.subject in ("", incident.subject) for one in silences):
        return
    mine = compare_and_set(
        incident,
        expect={"told": False, "state": (Incident.OPEN, Incident.ACKNOWLEDGED)},
        change={"told": True, "tellings": incident.tellings + 1},
    )
    if mine:
        plan(incident, Notification.CAME_BACK if incident.flaps else Notification.OPENED, now)
        tasks.send("alerts.deliver")
