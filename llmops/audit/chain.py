"""The hash chain itself, without a framework, so that an outsider can check an export with this file alone.

``hash = SHA-256(canonical JSON of the event without "hash")``; the event includes ``prev_hash``, the hash of the event
before it. The first event's ``prev_hash`` is ``GENESIS``. Times are ISO 8601 in UTC with microseconds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from llmops.core.digests import digest

GENESIS = "0" * 64
#: The members of an exported event.
FIELDS = (
    "sequence",
    "at",
    "actor_kind",
    "actor_id",
    "actor_name",
    "ip",
    "request_id",
    "action",
    "object_type",
    "object_id",
    "object_name",
    "project_id",
    "before",
    "after",
    "reason",
    "prev_hash",
    "hash",
)


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
        number, expected = event["sequence"], verdict.sequence + 1
        if number > expected:
            missing = (
                f"event {expected} is" if number == expected + 1 else f"events {expected} to {number - 1} are"
            )
            verdict.problems.append(f"{missing} missing: the next one present is {number}")
        elif number < expected:
            verdict.problems.append(f"event {number} stands where event {expected} belongs")
        elif event["prev_hash"] != verdict.hash:
            verdict.problems.append(f"event {number} does not follow from what stands before it")
        if event_hash(event) != event["hash"]:
            verdict.problems.append(f"event {number} was altered after it was written")
        verdict.count += 1
        verdict.sequence, verdict.hash = number, event["hash"]
        if len(verdict.problems) >= most:
            break
    return verdict


@dataclass
class FileVerdict(Verdict):
    """Outcome of checking an export. ``checkpoint`` is what its last line attests, ``{}`` where there is none."""

    checkpoint: dict[str, Any] = field(default_factory=dict)


def verify_export(lines: Iterable[str]) -> FileVerdict:
    """Check an export: one event a line in ascending order, then one line ``{"checkpoint": {...}}``.

    An export may begin anywhere; its first event then vouches for the one before it. A file that was cut off has no
    checkpoint, or one that names another event than the last.
    """
    checkpoint: dict[str, Any] = {}
    unread: list[str] = []
    first: list[tuple[int, str]] = []

    def events() -> Iterator[dict[str, Any]]:
        for number, line in enumerate(lines, start=1):
            if checkpoint:
                unread.append(f"line {number} stands after the checkpoint")
                return
            try:
                read = json.loads(line)
                if "checkpoint" in read:
                    checkpoint.update(read["checkpoint"])
                    continue
                event = {name: read[name] for name in FIELDS}
                if set(read) != set(FIELDS) or not isinstance(event["sequence"], int):
                    raise ValueError("not an event")
            except (ValueError, KeyError, TypeError):
                unread.append(f"line {number} is neither an event nor a checkpoint")
                return
            if not first:
                first.append((event["sequence"] - 1, event["prev_hash"]))
            yield event

    stream = events()
    opening = next(stream, None)
    verdict = verify(() if opening is None else chain([opening], stream), after=first[0] if first else None)
    problems = [*verdict.problems, *unread]
    if not checkpoint and not problems:
        problems.append("there is no checkpoint at the end: the file was cut off")
    elif checkpoint and (checkpoint.get("sequence"), checkpoint.get("hash")) != (
        verdict.sequence,
        verdict.hash,
    ):
        problems.append(
            f"the checkpoint speaks of event {checkpoint.get('sequence')}, the file ends with event {verdict.sequence}: "
            "lines were removed or altered"
        )
    if first and first[0][0] == 0 and first[0][1] != GENESIS:
        problems.append("the first event does not begin the chain")
    return FileVerdict(verdict.count, verdict.sequence, verdict.hash, problems, checkpoint)


def main(arguments: list[str]) -> int:
    """``python -m llmops.audit.chain FILE``: check an export without a database and without settings."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m llmops.audit.chain FILE\n")
        return 2
    with Path(arguments[0]).open(encoding="utf-8") as file:
        verdict = verify_export(file)
    for problem in verdict.problems:
        sys.stdout.write(f"{problem}\n")
    if not verdict.intact:
        return 1
    sys.stdout.write(f"{verdict.count} events, intact up to event {verdict.sequence}, hash {verdict.hash}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
