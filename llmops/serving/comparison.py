"""What changed between two documents as a table to read: by object, member by member, before and after. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from llmops.core.money import format_usd
from llmops.policies import wording as policies
from llmops.prompts.wording import SAME, Piece, shown, side_by_side
from llmops.prompts.wording import TITLES as PROMPT_TITLES
from llmops.providers.rules import unit_of
from llmops.serving.differences import CHANGED, LABELS, Change, changes, checks_of
from llmops.serving.snapshot import PromptEntry, PromptVersionEntry, RevisionDocument

#: Objects that are compared member by member; of the others the words are told.
MOST_OBJECTS = 100
#: Characters of what stays the same that are shown on each side of a change.
CONTEXT = 120


@dataclass(frozen=True, slots=True)
class Row:
    """One member of an object; a side is empty where the object does not have it."""

    label: str
    before: tuple[Piece, ...]
    after: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """``kind``, ``name``, ``state`` and ``words`` as in ``differences.Change``; words without the object's name. No rows:
    there are too many objects."""

    kind: str
    name: str
    state: str
    words: tuple[str, ...]
    rows: tuple[Row, ...]


def compare(old: RevisionDocument, new: RevisionDocument, *, most: int = MOST_OBJECTS) -> list[Compared]:
    """Every object that differs, in the order of ``describe``."""
    return [
        Compared(
            change.kind,
            change.name,
            change.state,
            tuple(_without_name(line, change) for line in change.words),
            tuple(_rows(change)) if index < most else (),
        )
        for index, change in enumerate(changes(old, new))
    ]


def _without_name(line: str, change: Change) -> str:
    said = line.removeprefix(f"{change.kind} {change.name}")
    said = said.removeprefix(": ").removeprefix(" ")
    # What a prompt's line begins with is the name of a label.
    return said if change.kind == "prompt" and change.state == CHANGED else said[:1].upper() + said[1:]


def _rows(change: Change) -> Iterator[Row]:
    members = _of_prompt(change) if change.kind == "prompt" else _of_entry(change)
    for label, before, after in members:
        if before != after:
            sides = side_by_side(before, after)
            yield Row(label, _clipped(sides.before), _clipped(sides.after))


def _clipped(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """Without the middle of what stays the same: what changes must not be looked for in pages of text."""
    kept = []
    for index, piece in enumerate(pieces):
        text = piece.text
        if piece.kind == SAME and len(pieces) > 1 and len(text) > 3 * CONTEXT:
            before = text[:CONTEXT] if index else ""
            after = text[-CONTEXT:] if index < len(pieces) - 1 else ""
            text = f"{before} … {after}"
        kept.append(Piece(piece.kind, text))
    return tuple(kept)


def _of_entry(change: Change) -> Iterator[tuple[str, str, str]]:
    one = change.after if change.after is not None else change.before
    for name in one.__struct_fields__:
        if name == "slug":
            continue
        label = LABELS.get(name, name.replace("_", " "))
        yield label[:1].upper() + label[1:], _member(change.before, name), _member(change.after, name)


def _member(entry: Any, name: str) -> str:
    """A member as text, a line for each part of it."""
    value = getattr(entry, name) if entry is not None else None
    if value is None or value == "" or value == () or value == {}:
        return ""
    if name == "targets":
        return "\n".join(f"{target.model}: weight {target.weight}" for target in value)
    if name == "prices":
        return "\n".join(
            f"{row.token_class.replace('_', ' ')}: {format_usd(row.nano_per_million)} USD per million "
            f"{unit_of(row.token_class)} from {datetime.fromtimestamp(row.since, UTC):%Y-%m-%d %H:%M} UTC"
            for row in value
        )
    if name == "checks":
        return "\n".join(policies.summary(check) for check in checks_of(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "\n".join(map(str, value))
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_plain(held)}" for key, held in sorted(value.items()))
    return str(value)


def _plain(value: object) -> str:
    if isinstance(value, tuple | list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _of_prompt(change: Change) -> Iterator[tuple[str, str, str]]:
    """Where labels point, and for each that moves what is said otherwise from then on; which numbers can be named."""
    was: PromptEntry | None = change.before
    now: PromptEntry | None = change.after
    before, after = (entry.labels if entry else {} for entry in (was, now))
    told: set[tuple[int | None, int | None]] = set()
    for label in sorted(before.keys() | after.keys()):
        old, new = before.get(label), after.get(label)
        yield f"Label {label}", _version(old), _version(new)
        if old == new or (old, new) in told:
            continue
        told.add((old, new))
        earlier, later = _content(was, old), _content(now, new)
        for name, title in PROMPT_TITLES.items():
            if name in earlier or name in later:
                yield f"{label}: {title}", shown(name, earlier.get(name)), shown(name, later.get(name))
    yield "Versions by number", _served(was), _served(now)


def _version(number: int | None) -> str:
    return f"version {number}" if number is not None else ""


def _served(entry: PromptEntry | None) -> str:
    return ", ".join(str(version.number) for version in entry.versions) if entry else ""


def _content(entry: PromptEntry | None, number: int | None) -> dict[str, Any]:
    if entry is None or number is None:
        return {}
    found = next((one for one in entry.versions if one.number == number), None)
    return _as_content(found) if found else {}


def _as_content(version: PromptVersionEntry) -> dict[str, Any]:
    return {
        **version.layers,
        "variables": list(version.variables),
        "output_schema": version.output_schema,
        "route": version.route,
        "parameters": version.parameters,
    }
