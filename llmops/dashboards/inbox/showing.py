"""Text as it is, for somebody who decides by it: what cannot be seen is written out. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmops.core.texts import written_out

#: A name of a member as it is; others stand in quotation marks, so that no two paths look the same.
_PLAIN = re.compile(r"[\w-]+")
_LONGEST = 4_000


@dataclass(frozen=True, slots=True)
class Exact:
    """``odd``: something in it could not be seen and is written out."""

    text: str
    odd: bool = False


def exact(text: str) -> Exact:
    """``text`` as ``core.texts.written_out`` has it."""
    shown = written_out(text)
    return Exact(shown, shown != text)


@dataclass(frozen=True, slots=True)
class Argument:
    """One value: where it stands, what it says, and what stood there in the action that this one replaces."""

    path: str
    value: Exact
    before: Exact | None = None
    changed: bool = False
    cut: int = 0


def arguments_of(given: Mapping[str, Any], replaced: Mapping[str, Any] | None = None) -> list[Argument]:
    """Every value of the arguments, a line each; those that are gone come last."""
    new, old = _leaves(given), _leaves(replaced) if replaced is not None else {}
    lines = []
    for path, value in new.items():
        changed = replaced is not None and old.get(path) != value
        before = exact(old[path]) if changed and path in old else None
        lines.append(Argument(path, exact(value[:_LONGEST]), before, changed, max(0, len(value) - _LONGEST)))
    lines += [
        Argument(path, Exact("left out"), exact(value[:_LONGEST]), changed=True)
        for path, value in old.items()
        if path not in new
    ]
    return lines


def _leaves(value: Any, path: str = "") -> dict[str, str]:
    """Path to value: texts as they are, everything else as JSON. Lists are told member by member."""
    if isinstance(value, Mapping) and value:
        return {
            leaf: text
            for key, item in value.items()
            for leaf, text in _leaves(item, f"{path}.{_step(key)}" if path else _step(key)).items()
        }
    if isinstance(value, list) and value and any(isinstance(item, Mapping | list) for item in value):
        return {
            leaf: text
            for number, item in enumerate(value)
            for leaf, text in _leaves(item, f"{path}[{number}]").items()
        }
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return {path or "arguments": text}


def _step(key: str) -> str:
    return key if _PLAIN.fullmatch(key) else written_out(json.dumps(key, ensure_ascii=False))
