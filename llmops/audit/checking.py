"""Whether the trail in the database is whole, and whether it still agrees with what was exported."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

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
    if verdict.count == 0 and verdict.checkpoint:
        # A checkpoint by itself: what somebody wrote down of the end of the chain.
        return _disagreement(verdict.checkpoint.get("sequence"), str(verdict.checkpoint.get("hash")))
    if not verdict.intact or verdict.sequence == 0:
        return verdict.problems
    return _disagreement(verdict.sequence, verdict.hash)


def _disagreement(sequence: Any, hashed: str) -> list[str]:
    if sequence == 0 and hashed == chain.GENESIS:
        return []
    if not isinstance(sequence, int) or not 0 < sequence < 2**63:
        return ["its checkpoint names no event"]
    stored = Event.objects.filter(sequence=sequence).values_list("hash", flat=True).first()
    if stored is None:
        return [f"event {sequence}, which it attests, is not in the database"]
    if not equal(stored, hashed):
        return [f"the database has another history than the one attested up to event {sequence}"]
    return []


def check_newest(count: int = 200) -> str:
    """What is wrong with the newest events, in a sentence; empty when each is as it was written and follows from the one before.

    Costs no more than ``count`` events, however long the trail is; ``check_database`` looks at all of it.
    """
    with consistent_read():
        newest = list(Event.objects.order_by("-sequence")[:count])
        head = selectors.head()
    if (newest[0].sequence, newest[0].hash) != head if newest else head[0] != 0:
        return f"the chain head speaks of event {head[0]}, which is not the last one that is there"
    for later, event in zip([None, *newest], newest, strict=False):
        if not equal(event.hash, chain.event_hash(as_exported(event))):
            return f"event {event.sequence} is not as it was written"
        if later is not None and (later.sequence != event.sequence + 1 or later.prev_hash != event.hash):
            return f"event {later.sequence} does not follow from event {event.sequence}"
    return ""
