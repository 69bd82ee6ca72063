"""Reading requests: what one is about, in words."""

from __future__ import annotations

from typing import Any

from llmops.access.selectors import visible
from llmops.approvals.kinds import kind_named
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


def waiting(who: Any) -> int:
    """How many open requests ``who`` sees."""
    return visible(Request.objects.filter(state=Request.OPEN), who, "approval.view").count()
