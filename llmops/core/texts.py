"""What text may be kept: what both databases, JSON and a log line can hold."""

from __future__ import annotations

import re

_CONTROL, _CONTROL_BUT_LINES = re.compile(r"[\x00-\x1f\x7f]"), re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_HALF = re.compile(r"[\ud800-\udfff]")


def text_problem(value: object, *, lines: bool = False) -> str | None:
    """What keeps a text, or a text inside a JSON-like value, from being stored, or None.

    On one line, unless ``lines`` admits line breaks and tabs (never a carriage return, which YAML and browsers change).
    """
    if isinstance(value, str):
        if (_CONTROL_BUT_LINES if lines else _CONTROL).search(value):
            return (
                "control characters cannot be kept"
                if lines
                else "line breaks and control characters cannot be kept"
            )
        if not value.isascii() and _HALF.search(value):
            return "it holds half a character (a lone surrogate)"
    elif isinstance(value, dict):
        parts = (part for item in value.items() for part in item)
        return next(filter(None, (text_problem(part, lines=lines) for part in parts)), None)
    elif isinstance(value, list | tuple):
        return next(filter(None, (text_problem(part, lines=lines) for part in value)), None)
    return None


def deeper_than(value: object, most: int) -> bool:
    """Whether a JSON-like value holds objects and lists in each other more than ``most`` deep. Takes no stack of its own."""
    level: list[object] = [value]
    for _ in range(most):
        level = [
            item
            for one in level
            if isinstance(one, dict | list | tuple)
            for item in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return any(isinstance(one, dict | list | tuple) for one in level)


def size_words(number: int) -> str:
    """So many bytes in words: "32 MiB", or "1,000 bytes" where it is no whole number of KiB or MiB."""
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number >= size and number % size == 0:
            return f"{number // size:,} {unit}"
    return f"{number:,} bytes"
