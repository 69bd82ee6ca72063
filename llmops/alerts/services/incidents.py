"""What people do about incidents: each is one transaction with one audit event and a line of the timeline."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction

from llmops.access.selectors import powers_of_actor
from llmops.alerts.models import Incident, Notification, Silence
from llmops.alerts.services.outbox import plan
from llmops.alerts.services.timeline import add
from llmops.audit.services import record_about
from llmops.base import drafts, tasks
from llmops.base.clock import database_now
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest, PermissionDenied
from llmops.core.texts import text_problem

_UNRESOLVED = (Incident.OPEN, Incident.ACKNOWLEDGED)
LONGEST_SILENCE = timedelta(days=30)


def acknowledge(actor: Actor, *, incident: Incident, note: str = "", now: datetime | None = None) -> Incident:
    """Somebody looks after it: nobody else is told that nobody does. Raises ``Conflict`` where it is not open."""
    now, note = now or database_now(), _text(note, "note")
    with transaction.atomic():
        stored = drafts.locked(incident)
        change = {"state": Incident.ACKNOWLEDGED, "acknowledged_at": now, "acknowledged_by": actor.name[:200]}
        if not compare_and_set(stored, expect={"state": Incident.OPEN}, change=change):
            raise Conflict(_stands(stored))
        add(stored, "acknowledged", note or "Acknowledged.", at=now, who=actor.name)
        record_about(
            actor, stored, action="incident.acknowledged", before={"state": "open"},
            after={"state": "acknowledged"}, reason=note,
        )  # fmt: skip
    return stored


def resolve(actor: Actor, *, incident: Incident, note: str = "", now: datetime | None = None) -> Incident:
    """End it before its time. Raises ``Conflict`` while its condition holds: it would begin again within seconds."""
    now, note = now or database_now(), _text(note, "note")
    with transaction.atomic():
        stored = drafts.locked(incident)
        if stored.state == Incident.RESOLVED:
            raise Conflict(_stands(stored))
        if stored.clear_since is None and stored.rule.enabled and stored.rule.archived_at is None:
            raise Conflict(
                "Its condition still holds, so it would begin again at once. Mend the cause, or silence it with an end."
            )
        change = {"state": Incident.RESOLVED, "resolved_at": now, "resolved_by": actor.name[:200]}
        before = stored.state
        if not compare_and_set(stored, expect={"state": _UNRESOLVED}, change=change):
            raise Conflict(_stands(stored))
        add(stored, "resolved", note or "Resolved by hand.", at=now, who=actor.name)
        plan(stored, Notification.RESOLVED, now)
        tasks.send("alerts.deliver")
        record_about(
            actor, stored, action="incident.resolved", before={"state": before}, after={"state": "resolved"},
            reason=note,
        )  # fmt: skip
    return stored


def silence(
    actor: Actor, *, incident: Incident, minutes: int, reason: str, whole_rule: bool = False, now: datetime | None = None
) -> Silence:  # fmt: skip
    """Nobody is told of it (``whole_rule``: of anything that its rule finds) for so long. What is open by then is told anew.

    Raises ``PermissionDenied`` for a whole rule that finds things in more places than ``actor`` responds for.
    """
    now, reason = now or database_now(), _text(reason, "reason")
    if not reason:
        raise InvalidRequest("reason: say why, for whoever is on call next.", param="reason")
    if not 1 <= minutes <= LONGEST_SILENCE.total_seconds() // 60:
        raise InvalidRequest("minutes: between 1 and 43200 (30 days).", param="minutes")
    with transaction.atomic():
        stored = drafts.locked(incident)
        if stored.state == Incident.RESOLVED:
            raise Conflict(_stands(stored))
        if whole_rule and not _responds_for_all(actor, stored):
            raise PermissionDenied(
                f"whole_rule: {stored.rule.slug} watches other projects as well, which you do not respond for. Silence this incident "
                "alone, or ask somebody who responds for all of them.",
                param="whole_rule",
            )
        row = Silence.objects.create(
            rule=stored.rule,
            subject="" if whole_rule else stored.subject,
            project=stored.rule.project if whole_rule else stored.project,
            reason=reason,
            since=now,
            until=now + timedelta(minutes=minutes),
            by=actor.name[:200],
        )
        among = {} if whole_rule else {"subject": stored.subject}
        # What nobody looks after is told again when the silence is over.
        Incident.objects.filter(rule=stored.rule, state=Incident.OPEN, **among).update(told=False)
        add(
            stored,
            "silenced",
            f"Silenced until {row.until:%Y-%m-%d %H:%M} UTC: {reason}",
            at=now,
            who=actor.name,
        )
        record_about(
            actor, stored, action="incident.silenced",
            after={"until": row.until.isoformat(), "subject": row.subject or "whatever the rule finds"}, reason=reason,
        )  # fmt: skip
    return row


def end_silence(actor: Actor, *, incident: Incident, now: datetime | None = None) -> int:
    """End what silences an incident; how many silences did. Raises ``Conflict`` where none does, ``PermissionDenied`` where only a
    silence of its whole rule does and ``actor`` does not respond for all that the rule watches."""
    now = now or database_now()
    with transaction.atomic():
        stored = drafts.locked(incident)
        rows = Silence.objects.filter(
            rule=stored.rule, subject__in=("", stored.subject), ended_at=None, until__gt=now
        )
        if not rows.exists():
            raise Conflict("Nothing silences it.")
        if not _responds_for_all(actor, stored):
            rows = rows.exclude(subject="")
        ended = rows.update(ended_at=now)
        if not ended:
            raise PermissionDenied(
                f"The whole rule {stored.rule.slug} is silenced, for other projects as well, which you do not respond for. Ask "
                "somebody who responds for all of them."
            )
        add(stored, "unsilenced", "The silence was ended.", at=now, who=actor.name)
        record_about(
            actor, stored, action="incident.unsilenced", before={"silenced": True}, after={"silenced": False}
        )
    return ended


def note(actor: Actor, *, incident: Incident, text: str, now: datetime | None = None) -> Incident:
    """A line of what somebody found out or did, for the timeline and for what is written afterwards."""
    now, text = now or database_now(), _text(text, "text")
    if not text:
        raise InvalidRequest("text: write what you found out or did.", param="text")
    with transaction.atomic():
        stored = drafts.locked(incident)
        add(stored, "note", text, at=now, who=actor.name)
        record_about(actor, stored, action="incident.noted", after={"note": text})
    return stored


def _responds_for_all(actor: Actor, incident: Incident) -> bool:
    return powers_of_actor(actor).allow("alert.respond", incident.rule.project_id)


def _text(text: str, name: str) -> str:
    found = " ".join(text.split())[:500]
    if problem := text_problem(found):
        raise InvalidRequest(f"{name}: {problem}.", param=name)
    return found


def _stands(incident: Incident) -> str:
    return f"This incident is {incident.get_state_display().lower()} by now. Reload to see its present state."
