"""What a channel is given to tell, and what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings

from llmops.alerts.models import Channel, Notification
from llmops.alerts.showing import calls_query
from llmops.core.appearance import written_out

_WORDS = {"opened": "Opened", "came_back": "Is back", "escalated": "Not acknowledged", "resolved": "Resolved"}


@dataclass(frozen=True, slots=True)
class Message:
    """One notification in words. ``id`` names it: whoever gets it twice may drop the second."""

    id: str
    event: str
    incident: str
    rule: str
    subject: str
    project: str
    severity: str
    title: str
    says: str
    opened_at: datetime
    resolved_at: datetime | None
    state: str
    acknowledged_by: str
    runbook: str
    sent_at: datetime
    #: What narrows the list of calls to its own; empty where it is about none.
    calls: str = ""

    @classmethod
    def of(cls, row: Notification, now: datetime) -> Message:
        incident = row.incident
        return cls(
            id=str(row.pk),
            event=row.event,
            incident=str(incident.pk),
            rule=incident.rule.slug,
            subject=incident.subject,
            project=incident.project.slug if incident.project else "",
            severity=incident.severity,
            title=written_out(incident.title),
            says=written_out(incident.says),
            opened_at=incident.opened_at,
            resolved_at=incident.resolved_at,
            state=incident.state,
            acknowledged_by=incident.acknowledged_by,
            runbook=incident.rule.runbook,
            sent_at=now,
            calls=calls_query(incident),
        )

    @property
    def url(self) -> str:
        return f"{settings.PUBLIC_URL}/alerts/{self.incident}/"

    @property
    def runbook_url(self) -> str:
        return f"{settings.PUBLIC_URL}/alerts/runbooks/{self.runbook}/" if self.runbook else ""

    @property
    def calls_url(self) -> str:
        # Not by ``reverse``: workers have no pages.
        return f"{settings.PUBLIC_URL}/calls/?{self.calls}" if self.calls else ""

    @property
    def headline(self) -> str:
        word = _WORDS[self.event]
        return f"[{self.severity}] {word}: {self.title}"

    def lines(self) -> list[str]:
        found = [self.headline]
        if self.event == Notification.RESOLVED and self.resolved_at:
            minutes = (self.resolved_at - self.opened_at).total_seconds() / 60
            found.append(f"It lasted {minutes:,.0f} min.")
        elif self.says:
            found.append(self.says)
        found.append(f"Since {self.opened_at:%Y-%m-%d %H:%M:%S} UTC: {self.url}")
        if self.calls:
            found.append(f"Its calls: {self.calls_url}")
        if self.runbook and self.event != Notification.RESOLVED:
            found.append(f"What to do: {self.runbook_url}")
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            "type": f"incident.{self.event}",
            "timestamp": self.sent_at.isoformat(),
            "data": {
                "id": self.incident,
                "notification": self.id,
                "rule": self.rule,
                "subject": self.subject,
                "project": self.project or None,
                "severity": self.severity,
                "state": self.state,
                "title": self.title,
                "summary": self.says,
                "opened_at": self.opened_at.isoformat(),
                "resolved_at": self.resolved_at.isoformat() if self.resolved_at else None,
                "acknowledged_by": self.acknowledged_by or None,
                "url": self.url,
                "calls_url": self.calls_url or None,
                "runbook_url": self.runbook_url or None,
            },
        }


@dataclass(frozen=True)
class Kind:
    """``send`` raises whatever goes wrong: it is tried again. ``together``: several messages may go as one.
    ``sealing``: ``signs`` (the console makes it), ``address`` (the address itself is one, and given), or empty."""

    name: str
    title: str
    send: Callable[[Channel, Sequence[Message]], None]
    together: bool = False
    sealing: str = ""


class NotTaken(Exception):
    """The other side did not take it."""
