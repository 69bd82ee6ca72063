"""What text may be kept: by every character, wherever it stands in a value."""

from __future__ import annotations

import sys
import unicodedata
from typing import Any

import pytest

from llmops.core.texts import text_problem

CONTROL, HALF = "control characters cannot be kept", "it holds half a character (a lone surrogate)"


@pytest.mark.parametrize("lines", [False, True])
def test_every_character_is_kept_or_named(lines: bool) -> None:
    found: dict[str | None, set[int]] = {}
    for code in range(sys.maxunicode + 1):
        if code < 0x200 or 0xD700 <= code < 0xE100 or code % 97 == 0:
            found.setdefault(text_problem(f"a{chr(code)}é", lines=lines), set()).add(code)
    control = {code for code in range(0x80) if unicodedata.category(chr(code)) == "Cc"}
    refused = CONTROL if lines else f"line breaks and {CONTROL}"
    assert found.keys() == {None, refused, HALF}
    assert found[refused] == (control - {9, 10} if lines else control)
    assert found[HALF] == set(range(0xD800, 0xE000))


@pytest.mark.parametrize(
    "within",
    [lambda text: [1, text], lambda text: (None, [text]), lambda text: {"a": {"b": text}}, lambda text: {text: 1.5}],
    ids=["list", "tuple", "object", "name"],
)  # fmt: skip
def test_also_deep_in_a_value(within: Any) -> None:
    assert text_problem(within("one line, é 🙂")) is None
    assert text_problem(within("two\nlines\t")) == f"line breaks and {CONTROL}"
    assert text_problem(within("two\nlines\t"), lines=True) is None
    assert text_problem(within("two\r\nlines"), lines=True) == CONTROL
    assert text_problem(within("a\ud83d"), lines=True) == HALF


def test_what_is_no_text_has_none() -> None:
    assert [text_problem(value) for value in (None, True, 5, 1.5, b"\x00", [], {}, "")] == [None] * 8
