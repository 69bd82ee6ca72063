"""Reading requests: what one is about, in words."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet

from llmops.access.selectors import among, powers_of, visible
from llmops.approvals.kinds import kind_named, kinds_for_fewer
from llmops.approvals.models import Request
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
    """Those of ``rows`` that ``who`` may look at: content that a kind keeps for fewer eyes takes its own permission."""
    rows, apart = visible(rows, who, "approval.view"), kinds_for_fewer()
    seen = ~Q(kind__in=list(apart))
    for kind, permission in apart.items():
        seen |= Q(kind=kind) & among(powers_of(who), permission, "project")
    return rows.filter(seen)


def waiting(who: Any) -> int:
    """How many open requests ``who`` sees."""
    return shown_to(Request.objects.filter(state=Request.OPEN), who).count()
