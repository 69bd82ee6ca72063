"""Whether the trail in the database is whole, and whether it still agrees with what was exported."""

from __future__ import annotations

from collections.abc import Iterable

from llmops.audit import chain, selectors
from llmops.audit.models import Event
from llmops.audit.services import as_exported
from llmops.base.reads import consistent_read
from llmops.core.digests import equal


def check_database() -> chain.Verdict:
    """Walk every event as of one moment, and compare the end with the chain head."""
    with consistent_read():
        verdict = chain.verify(as_exported(event) for event in selectors.in_order())
        sequence, hashed = selectors.head()
    if verdict.intact and (verdict.sequence, verdict.hash) != (sequence, hashed):
        verdict.problems.append(
            f"the chain head speaks of event {sequence}, the last one present is {verdict.sequence}: "
            "events at the end were removed or added past the services"
        )
    return verdict


def check_export(lines: Iterable[str]) -> list[str]:
    """What is wrong with an export, or with the database in its light; empty if they agree."""
    verdict = chain.verify_export(lines)
    if not verdict.intact or verdict.sequence == 0:
        return verdict.problems
    stored = Event.objects.filter(sequence=verdict.sequence).values_list("hash", flat=True).first()
    if stored is None:
        return [f"event {verdict.sequence}, which it attests, is not in the database"]
    if not equal(stored, verdict.hash):
        return [f"the database has another history than the one attested up to event {verdict.sequence}"]
    return []
