"""What text may be kept: what both databases, JSON and a log line can hold."""

from __future__ import annotations

import unicodedata

#: Cannot be seen, or change how what stands beside them is seen (format characters, fillers, odd spaces, separators).
_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\u00a0")


def text_problem(value: object, *, lines: bool = False) -> str | None:
    """What keeps a text, or a text inside a JSON-like value, from being stored, or None.

    On one line, unless ``lines`` admits line breaks and tabs (never a carriage return, which YAML and browsers change).
    """
    if isinstance(value, str):
        if any(
            (character < " " and not (lines and character in "\n\t")) or character == "\x7f"
            for character in value
        ):
            return (
                "control characters cannot be kept"
                if lines
                else "line breaks and control characters cannot be kept"
            )
        if any("\ud800" <= character <= "\udfff" for character in value):
            return "it holds half a character (a lone surrogate)"
    elif isinstance(value, dict):
        parts = (part for item in value.items() for part in item)
        return next(filter(None, (text_problem(part, lines=lines) for part in parts)), None)
    elif isinstance(value, list | tuple):
        return next(filter(None, (text_problem(part, lines=lines) for part in value)), None)
    return None


def written_out(text: str) -> str:
    """``text`` with every character that cannot be seen, or turns others around, as ``\\u202e``. Line breaks and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if (unicodedata.category(character) not in _UNSEEN or character in "\n\t")
        and character not in _FILLERS
        else f"\\u{ord(character):04x}"
        if ord(character) < 0x10000
        else f"\\U{ord(character):08x}"
        for character in text
    )
