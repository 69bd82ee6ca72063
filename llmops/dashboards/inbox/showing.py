"""Text as it is, for somebody who decides by it: what cannot be seen is written out. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmops.core.appearance import written_out

#: A name of a member as it is; others stand in quotation marks, so that no two paths look the same.
_PLAIN = re.compile(r"[\w-]+")
#: JSON knows no escape of eight figures. One that follows a backslash is no escape, but was written like that.
_LONG_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\U([0-9a-f]{8})")
_LONGEST = 4_000
_GONE = "left out"


@dataclass(frozen=True, slots=True)
class Exact:
    """``odd``: something in it could not be seen and is written out."""

    text: str
    odd: bool = False


def exact(text: str) -> Exact:
    """``text`` as ``core.appearance.written_out`` has it."""
    shown = written_out(text)
    return Exact(shown, shown != text)


def as_json(value: Any) -> str:
    """JSON that says what ``value`` does and shows all of it, to be read and to be edited."""
    text = written_out(json.dumps(value, indent=2, ensure_ascii=False))
    return _LONG_ESCAPE.sub(lambda found: found[1] + json.dumps(chr(int(found[2], 16)))[1:-1], text)


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
        Argument(path, Exact(_GONE), exact(value[:_LONGEST]), changed=True)
        for path, value in old.items()
        if path not in new
    ]
    return lines


def _leaves(value: Any, path: str = "") -> dict[str, str]:
    """Path to value: texts as they are unless they would look like another value, everything else as JSON. Lists are told member by member."""
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
    plain = isinstance(value, str) and not _reads_as_another(value)
    return {path or "arguments": value if plain else json.dumps(value, ensure_ascii=False)}


def _reads_as_another(text: str) -> bool:
    """Whether a text would look like a number, like no value at all, or like itself without the space around it."""
    if not text or text != text.strip() or text == _GONE:
        return True
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _step(key: str) -> str:
    return key if _PLAIN.fullmatch(key) else written_out(json.dumps(key, ensure_ascii=False))
