"""The hash chain itself, in one file that needs Python's standard library only: an outsider checks an export with it.

    python3 verify_audit.py trail.jsonl

``hash = SHA-256(canonical JSON of the event without "hash")``; the event includes ``prev_hash``, the hash of the event
before it. The first event's ``prev_hash`` is ``GENESIS``. Times are ISO 8601 in UTC with microseconds. Canonical JSON: keys
sorted by code point, no white space, UTF-8 (RFC 8785 for what events hold, which is text, integers, lists and maps).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from typing import Any

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
#: Members that an event has only where there is something to say. They are part of its hash, so none can be taken away.
OPTIONAL = ("origin",)


def time_text(at: datetime) -> str:
    # Outsiders may have an older Python than this application needs.
    return at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # noqa: UP017


def event_hash(event: Mapping[str, Any]) -> str:
    """SHA-256 in hex of ``event`` (JSON-like; ``hash`` itself is left out)."""
    hashed = {key: value for key, value in event.items() if key != "hash"}
    canonical = json.dumps(hashed, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    # A half of a surrogate pair is in no event that was written here, but may be in a file that somebody altered.
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


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
    #: the number of the first event, 0 where there is none
    first: int = 0


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
                read = json.loads(line, parse_constant=_no_number)
                if "checkpoint" in read:
                    checkpoint.update(read["checkpoint"])
                    continue
                event = {name: read[name] for name in (*FIELDS, *(set(OPTIONAL) & set(read)))}
                if len(read) != len(event) or not isinstance(event["sequence"], int):
                    raise ValueError("not an event")
            except (ValueError, KeyError, TypeError, RecursionError):
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
    begins = first[0][0] + 1 if first else 0
    return FileVerdict(verdict.count, verdict.sequence, verdict.hash, problems, checkpoint, begins)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def main(arguments: list[str]) -> int:
    """Check an export without a database and without settings. 0: intact, 1: not, 2: it cannot be read."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python3 verify_audit.py FILE\n")
        return 2
    try:
        with Path(arguments[0]).open(encoding="utf-8", errors="replace") as file:
            verdict = verify_export(file)
    except OSError as failed:
        sys.stderr.write(f"{arguments[0]}: {failed.strerror}\n")
        return 2
    for problem in verdict.problems:
        sys.stdout.write(f"{problem}\n")
    if not verdict.intact:
        return 1
    sys.stdout.write(f"{verdict.count} events, intact up to event {verdict.sequence}, hash {verdict.hash}\n")
    if verdict.first > 1:
        sys.stdout.write(f"It begins at event {verdict.first}: what came before is not in this file.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
