"""Definitions and risks in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmops.core.digests import canonical_json
from llmops.tools.rules import Definition

_NAMES = {
    "approve_within_s": "open for (s)",
    "timeout_s": "time-out (s)",
    "concurrency": "at once",
    "says": "in words",
}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What a definition changes against another, a line each."""
    lines = []
    for name in dict.fromkeys([*after, *before]):
        old, new = before.get(name), after.get(name)
        if old != new:
            title = _NAMES.get(name, name.replace("_", " "))
            lines.append(f"{title}: {_short(old)} → {_short(new)}" if before else f"{title}: {_short(new)}")
    return lines


def _short(value: Any) -> str:
    if value in (None, "", [], {}):
        return "nothing"
    text = value if isinstance(value, str) else canonical_json(value).decode()
    return text if len(text) <= 120 else f"{text[:120]}…"


def approvals_in_words(definition: Definition) -> str:
    """Who must agree to what, for people."""
    parts = [
        f"{risk}: {needed}" for risk in ("read", "write", "destructive", "irreversible")
        if (needed := definition.needed(risk))
    ]  # fmt: skip
    return ", ".join(parts) or "nobody"


def people(number: int) -> str:
    return {0: "nobody", 1: "one other person", 2: "two other people"}.get(number, f"{number} other people")
