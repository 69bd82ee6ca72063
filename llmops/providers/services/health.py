"""What data planes say about targets and keys: breakers that are open, and the moments in which something changed.

Observations of processes, brought by the ingester in the transaction that books their journal: no audit events.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from llmops.base.clock import database_now
from llmops.base.tasks import send
from llmops.providers.models import CredentialHeadroom, HealthEvent, OpenBreaker, Rotation
from llmops.providers.models.rotations import DRAINING

#: How an event begins that is about a breaker of one project's calls.
ONE_PROJECT = "for the calls of one project: "
#: Events are kept for so long.
KEPT_FOR = timedelta(days=90)


@dataclass(frozen=True)
class BreakerChange:
    """A breaker of a process opened or closed; ``by`` as in ``usage.records.BreakerSeen``."""

    at: datetime
    route: str
    model: str
    provider: str
    opened: bool
    by: str
    until: datetime | None
    why: str
    project: str = ""


@dataclass(frozen=True)
class CredentialChange:
    """A provider refused a key, or took it again; ``code`` is ``refused``, ``quota`` or ``accepted``."""

    at: datetime
    credential: UUID
    status: int
    code: str


def note_health(*, process: UUID, host: str, changes: Iterable[BreakerChange | CredentialChange]) -> None:
    """Keep what changed, in the order in which it did; inside the caller's transaction."""
    events: list[HealthEvent] = []
    for change in changes:
        if isinstance(change, CredentialChange):
            events.append(
                HealthEvent(
                    at=change.at,
                    kind=f"credential_{change.code}"[:30],
                    credential=change.credential,
                    process=process,
                    text=f"status {change.status}" if change.status >= 400 else "",
                )
            )
            continue
        _note_breaker(process, host, change)
        # What another process found out, that one has told.
        if change.by != "another":
            events.append(
                HealthEvent(
                    at=change.at,
                    kind="breaker_opened" if change.opened else "breaker_closed",
                    route=change.route[:63],
                    model=change.model[:63],
                    provider=change.provider[:63],
                    process=process,
                    # Whoever sees the route may read it, not whose calls fail.
                    text=(
                        (ONE_PROJECT if change.project else "")
                        + (change.why or _CLOSED_BY.get(change.by, ""))
                    )[:500],
                )
            )
    HealthEvent.objects.bulk_create(events)
    refused = {one.credential for one in events if one.kind == "credential_refused"}
    if refused and Rotation.objects.filter(new__in=refused, state=DRAINING).exists():
        send("providers.tend_rotations")


_CLOSED_BY = {
    "probe": "a probe was answered",
    "calls": "calls went well again",
    "reset": "an operator reset it",
}


def _note_breaker(process: UUID, host: str, change: BreakerChange) -> None:
    named = {
        "process": process,
        "route": change.route[:63],
        "model": change.model[:63],
        "project": change.project[:63],
    }
    if not change.opened:
        OpenBreaker.objects.filter(**named).delete()
        return
    seen = {
        "host": host[:200],
        "provider": change.provider[:63],
        "until": change.until or change.at,
        "why": change.why[:500],
    }
    OpenBreaker.objects.update_or_create(**named, defaults=seen, create_defaults={**seen, "since": change.at})


@dataclass(frozen=True)
class LimitsLeft:
    """What a provider says is left of a key's limits with a model, by its own name for it; a limit of 0 was not told."""

    at: datetime
    credential: UUID
    model: str
    requests: int
    requests_left: int
    tokens: int
    tokens_left: int


def note_headroom(told: Iterable[LimitsLeft]) -> None:
    """Keep the newest of what was told of each key and model; inside the caller's transaction."""
    rows = {(one.credential, one.model): one for one in told}
    known = {
        (row.credential, row.model): row.at
        for row in CredentialHeadroom.objects.filter(credential__in={key for key, _ in rows})
    }
    CredentialHeadroom.objects.bulk_create(
        [
            CredentialHeadroom(**vars(one))
            for key, one in sorted(rows.items())
            if key not in known or known[key] < one.at
        ],
        update_conflicts=True,
        unique_fields=["credential", "model"],
        update_fields=["at", "requests", "requests_left", "tokens", "tokens_left"],
    )


def forget_process(process: UUID) -> None:
    """A data plane has ended: its breakers ended with it."""
    OpenBreaker.objects.filter(process=process).delete()


def forget_old_events() -> int:
    """Remove events that nobody looks at any more, and what was told of limits long ago; how many events."""
    CredentialHeadroom.objects.filter(at__lt=database_now() - timedelta(days=1)).delete()
    return HealthEvent.objects.filter(at__lt=database_now() - KEPT_FOR).delete()[0]
