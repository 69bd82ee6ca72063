"""Events in words, without a framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LONGEST = 120


def changes(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[str]:
    """What changed, a line a field: ``name: "a" → "b"``."""
    lines = []
    for field in [*(before or {}), *(name for name in after or {} if name not in (before or {}))]:
        old, new = (before or {}).get(field), (after or {}).get(field)
        if before is None or field not in before:
            lines.append(f"{field}: {shown(new)}")
        elif after is None or field not in after:
            lines.append(f"{field}: was {shown(old)}")
        elif old != new:
            lines.append(f"{field}: {shown(old)} → {shown(new)}")
    return lines


def shown(value: Any) -> str:
    """A value for people: quoted text, ``nothing`` for what is empty, lists with commas."""
    if value is None or value == "" or value == [] or value == {}:
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return f"“{_cut(value)}”"
    if isinstance(value, list):
        return _cut(", ".join(shown(item) for item in value))
    if isinstance(value, Mapping):
        return _cut("{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}")
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
