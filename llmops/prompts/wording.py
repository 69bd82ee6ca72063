"""Versions and their differences in words. Pure."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from llmops.core.digests import canonical_json
from llmops.prompts.content import EMPTY, MEMBERS
from llmops.prompts.rendering import LAYERS

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
#: Words of a text that are compared one by one; beyond, lines are.
_MOST_WORDS = 20_000
SAME, GONE, NEW = "same", "gone", "new"
TITLES = {
    **LAYERS,
    "output_schema": "Output contract",
    "variables": "Variables",
    "route": "Route",
    "parameters": "Parameters",
    "token_ceiling": "Token ceiling",
    "samples": "Samples",
}


class Piece(NamedTuple):
    """``kind`` is ``same``, ``gone`` or ``new``."""

    kind: str
    text: str


class LayerDiff(NamedTuple):
    """One layer side by side: what the earlier version says, what the later one says, word by word."""

    name: str
    title: str
    changed: bool
    before: tuple[Piece, ...]
    after: tuple[Piece, ...]
    words_gone: int
    words_new: int


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[LayerDiff]:
    """Every member of two versions that at least one of them has, side by side."""
    found = []
    for name in MEMBERS:
        old, new = shown(name, before.get(name)), shown(name, after.get(name))
        if old or new:
            found.append(_layer(name, old, new))
    return found


def shown(name: str, value: Any) -> str:
    """A member as text."""
    if value is None or value == EMPTY[name]:
        return ""
    if isinstance(value, str):
        return value
    if name == "variables":
        return "\n".join(map(variable_words, value))
    return _pretty(value)


def variable_words(declared: Mapping[str, Any]) -> str:
    """``ticket: text, at most 2000 characters, required``."""
    kind = declared["type"]
    parts = [kind]
    if "choices" in declared:
        parts[0] = f"one of {', '.join(declared['choices'])}"
    if "min_length" in declared:
        parts.append(f"at least {declared['min_length']} characters")
    if "max_length" in declared:
        parts.append(f"at most {declared['max_length']} characters")
    if "max_items" in declared:
        parts.append(f"at most {declared['max_items']} items")
    if "minimum" in declared:
        parts.append(f"from {declared['minimum']:g}")
    if "maximum" in declared:
        parts.append(f"to {declared['maximum']:g}")
    if declared.get("trusted"):
        parts.append("trusted")
    if "default" in declared:
        parts.append(f"otherwise {canonical_json(declared['default']).decode()[:80]}")
    elif declared.get("required", True):
        parts.append("required")
    else:
        parts.append("optional")
    if "description" in declared:
        parts.append(declared["description"])
    return f"{declared['name']}: {', '.join(parts)}"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What changed, a line each: ``task: 3 words added, 1 taken out``."""
    return list(_differences(before, after))


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in MEMBERS:
        old, new = before.get(name, EMPTY[name]), after.get(name, EMPTY[name])
        if old == new or not (old or new):
            continue
        title = TITLES[name].lower()
        if name in LAYERS:
            one = _layer(name, shown(name, old), shown(name, new))
            counts = [f"{one.words_new} words added"] * bool(one.words_new)
            counts += [f"{one.words_gone} taken out"] * bool(one.words_gone)
            yield f"{title}: {', '.join(counts) or 'spaces changed'}"
        elif name == "variables":
            yield from _variables(old or [], new or [])
        elif name in ("route", "token_ceiling"):
            yield f"{title}: {old or 'none'} → {new or 'none'}"
        elif name == "parameters":
            for key in sorted({**(old or {}), **(new or {})}):
                was, now = (old or {}).get(key), (new or {}).get(key)
                if was != now:
                    yield f"{key}: {_short(was)} → {_short(now)}"
        else:
            yield f"{title} {'added' if not old else 'removed' if not new else 'changed'}"


def _variables(old: list[Mapping[str, Any]], new: list[Mapping[str, Any]]) -> Iterator[str]:
    before, after = ({one["name"]: one for one in rows} for rows in (old, new))
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            yield f"variable {variable_words(after[name])} added"
        elif name not in after:
            yield f"variable {name} removed"
        elif before[name] != after[name]:
            yield f"variable {name} changed: {variable_words(after[name])}"
    if before == after:
        yield "variables in another order"


def _short(value: Any) -> str:
    return "none" if value is None else canonical_json(value).decode()[:80]


def _pretty(value: Any) -> str:
    if isinstance(value, int | float):
        return str(value)
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)


def _layer(name: str, old: str, new: str) -> LayerDiff:
    sides = side_by_side(old, new)
    return LayerDiff(name, TITLES[name], old != new, *sides)


class Sides(NamedTuple):
    """Two texts side by side, word by word, and how many words only one of them has."""

    before: tuple[Piece, ...]
    after: tuple[Piece, ...]
    words_gone: int
    words_new: int


def side_by_side(old: str, new: str) -> Sides:
    if old == new:
        piece = (Piece(SAME, old),)
        return Sides(piece, piece, 0, 0)
    left, right = _split(old), _split(new)
    if len(left) + len(right) > _MOST_WORDS:
        left, right = old.splitlines(keepends=True), new.splitlines(keepends=True)
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=len(left) + len(right) > 4_000)
    before: list[Piece] = []
    after: list[Piece] = []
    gone = added = 0
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            before.append(Piece(SAME, "".join(left[a:b])))
            after.append(Piece(SAME, "".join(right[c:d])))
            continue
        if b > a:
            before.append(Piece(GONE, "".join(left[a:b])))
            gone += sum(not word.isspace() for word in left[a:b])
        if d > c:
            after.append(Piece(NEW, "".join(right[c:d])))
            added += sum(not word.isspace() for word in right[c:d])
    return Sides(tuple(before), tuple(after), gone, added)


def _split(text: str) -> list[str]:
    return _WORDS.findall(text)
