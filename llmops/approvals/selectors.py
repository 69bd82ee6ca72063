"""Reading requests: what one is about, in words."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet

from llmops.access.selectors import among, powers_of
from llmops.approvals.kinds import kind_named, kinds_for_fewer
from llmops.approvals.models import Request
from llmops.approvals.standing_in import lenders
from llmops.base.requests import actor_of
from llmops.core.digests import canonical_json
from llmops.core.errors import InvalidRequest


def described(row: Request) -> list[tuple[str, str]]:
    """What exactly would be done, as (label, text); the bare content where no room knows the kind any more."""
    try:
        return kind_named(row.kind).describe(row.content)
    except (InvalidRequest, KeyError, ValueError, TypeError):
        return [("Content", canonical_json(row.content).decode())]


def more_about(row: Request) -> dict[str, Any]:
    """What pages show of an open request beside words: the template as ``more``, and what it takes. Empty: nothing."""
    try:
        how = kind_named(row.kind)
    except InvalidRequest:
        return {}
    if not how.template or how.facts is None or row.state != Request.OPEN:
        return {}
    return {"more": how.template, **how.facts(row.content)}


def shown_to(rows: QuerySet[Request], who: Any) -> QuerySet[Request]:
    """Those of ``rows`` that ``who`` may look at: content that a kind keeps for fewer eyes takes its own permission, and what
    somebody may decide who stands in for another is there for that."""
    powers, apart = powers_of(who), kinds_for_fewer()
    seen = ~Q(kind__in=list(apart))
    for kind, permission in apart.items():
        seen |= Q(kind=kind) & among(powers, permission, "project")
    seen &= among(powers, "approval.view", "project")
    for person in stood_in_for(who):
        lent = powers_of(person)
        for kind in settings.APPROVAL_KINDS:
            seen |= Q(kind=kind) & among(lent, kind_named(kind).permission, "project")
    return rows.filter(seen)


def stood_in_for(who: Any) -> list[Any]:
    """For whom the person behind a request stands in at the moment. Read once for a request, as powers are."""
    if not hasattr(who, "META"):
        return []
    plain = getattr(who, "_request", who)
    found: list[Any] | None = getattr(plain, "_stood_in_for", None)
    if found is None:
        actor = actor_of(plain)
        found = plain._stood_in_for = lenders(actor.identifier) if actor.kind == "user" else []
    return found


def waiting(who: Any) -> int:
    """How many open requests ``who`` sees."""
    return shown_to(Request.objects.filter(state=Request.OPEN), who).count()
