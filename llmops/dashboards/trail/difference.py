"""Before and after of an event as lines that were taken away and put there. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

#: More lines than this are not compared line by line: it would take long, and nobody reads them.
MOST_LINES, LONGEST = 400, 2_000


@dataclass(frozen=True, slots=True)
class Piece:
    """``sign``: ``-`` was there before, ``+`` is there now, a blank stayed."""

    sign: str
    text: str

    @property
    def word(self) -> str:
        return {"-": "before", "+": "after"}.get(self.sign, "")


@dataclass(frozen=True, slots=True)
class FieldDifference:
    name: str
    pieces: list[Piece]
    cut: bool


def differences(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[FieldDifference]:
    """A field each, in the order in which the event has them."""
    old, new = before or {}, after or {}
    names = [*old, *(name for name in new if name not in old)]
    return [
        _of_field(name, _lines(old[name]) if name in old else [], _lines(new[name]) if name in new else [])
        for name in names
    ]


def _of_field(name: str, old: list[str], new: list[str]) -> FieldDifference:
    cut = max(len(old), len(new)) > MOST_LINES or any(len(line) > LONGEST for line in (*old, *new))
    old, new = ([line[:LONGEST] for line in lines[:MOST_LINES]] for lines in (old, new))
    pieces: list[Piece] = []
    for tag, first, last, start, end in SequenceMatcher(None, old, new).get_opcodes():
        if tag == "equal":
            pieces += [Piece(" ", line) for line in old[first:last]]
        else:
            pieces += [Piece("-", line) for line in old[first:last]]
            pieces += [Piece("+", line) for line in new[start:end]]
    return FieldDifference(name, pieces, cut)


def _lines(value: Any) -> list[str]:
    if isinstance(value, str):
        return value.splitlines() or [""]
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True).splitlines()
