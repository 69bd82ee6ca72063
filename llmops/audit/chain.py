"""The hash chain itself, without a framework, so that an outsider can check an export with this file alone.

``hash = SHA-256(canonical JSON of the event without "hash")``; the event includes ``prev_hash``, the hash of the event
before it. The first event's ``prev_hash`` is ``GENESIS``. Times are ISO 8601 in UTC with microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from llmops.core.digests import digest

GENESIS = "0" * 64


def time_text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def event_hash(event: Mapping[str, Any]) -> str:
    """SHA-256 in hex of ``event`` (JSON-like; ``hash`` itself is left out)."""
    return digest({key: value for key, value in event.items() if key != "hash"})


@dataclass
class Verdict:
    """Outcome of a check: ``count`` events read, the last ``sequence`` and ``hash``, and what is wrong in words."""

    count: int = 0
    sequence: int = 0
    hash: str = GENESIS
    problems: list[str] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        return not self.problems


def verify(
    events: Iterable[Mapping[str, Any]], *, after: tuple[int, str] | None = None, most: int = 20
) -> Verdict:
    """Check ``events`` (ascending) for gaps, altered rows and a broken chain.

    ``after`` is the ``(sequence, hash)`` to start from, by default the genesis. Stops after ``most`` problems.
    """
    sequence, previous = after or (0, GENESIS)
    verdict = Verdict(sequence=sequence, hash=previous)
    for event in events:
        expected = verdict.sequence + 1
        if event["sequence"] != expected:
            verdict.problems.append(
                f"event {expected} is missing: the next one present is {event['sequence']}"
            )
        elif event["prev_hash"] != verdict.hash:
            verdict.problems.append(f"event {event['sequence']} does not follow from event {expected - 1}")
        if event_hash(event) != event["hash"]:
            verdict.problems.append(f"event {event['sequence']} was altered after it was written")
        verdict.count += 1
        verdict.sequence, verdict.hash = event["sequence"], event["hash"]
        if len(verdict.problems) >= most:
            break
    return verdict
