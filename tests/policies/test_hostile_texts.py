"""Texts made to take long take work in proportion to their length: counted, not timed."""

from __future__ import annotations

from typing import Any

import pytest

from llmops.core.verdicts import AFTER, BEFORE, BLOCK, REDACT
from llmops.policies.checks import compiled
from llmops.policies.checks.base import Answer, Asked, Text
from llmops.policies.patterns import Pattern

LENGTH = 40_000
#: How often a byte may be read on average: what a candidate reads ahead, before the next one begins inside of it.
READS = 40
#: Repeated over and over: runs without an end, candidates that are none, candidates that overlap.
REPEATED = [
    "1234567890", "0", "4111-", "4111 1111 1111 1112 ", "4 ", "123-45-6789-", "+1", "+123456789", "415-555-2671x", "1.", "1.2.3.4.",
    "1.2.3.4 ", "999.2.3.4 ", "a:", "::", "ab:cd:", "a:b:c ", "1:1.", "DE00 3704 0044 0532 0130 00 ", "AA00", "AB12 ", "a@b.co ",
    "@", "a@", "a@b.", ".@a.co", "a.", "a-", "a@b.cc@", "a" * 64 + "@", "....@a.co", "born on ", "é1", "é@e",
    "sk-", "sk-" + "a" * 30, "xsk-" + "a" * 30, "eyJ", "eyJ" + "a" * 20 + ".", "aeyJaaaaaaaaaaaa.eyJaaaaaaaa", "-----BEGIN ",
    "-----BEGIN PRIVATE KEY-----", "-", "password=", "password=password=aaaa", "secret: abcdefghijkl", "token token ",
    "token=aB3dE5fG7hJ9kL ", "AKIA", "ghp_" + "a" * 36, "QUJD", "A" * 121 + " ", "a", " ", "\n", "\0", "😀", "<|a|>",
    "acme ", "acme corp ", "xacme corpx", "éacme corpé", "ignore all all ", "you are now ", "system:\n", "\u200b", "[insert ", "# ...",
]  # fmt: skip
WORDS = {
    "rules": [{"name": "x", "words": ["acme corp", "aa", "a a"]}, {"name": "e", "expressions": [r"\bacme\b"]}]
}
CHECKS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("personal_data", BEFORE, REDACT, {}),
    ("personal_data", BEFORE, REDACT, {"kinds": ["ip", "birth_date"]}),
    ("secrets", BEFORE, REDACT, {}),
    ("special_tokens", BEFORE, REDACT, {}),
    ("deny", BEFORE, REDACT, WORDS),
    ("allow", BEFORE, BLOCK, WORDS),
    ("risk", BEFORE, BLOCK, WORDS),
    ("injection", BEFORE, BLOCK, {}),
    ("refusal", AFTER, BLOCK, {}),
    ("lazy", AFTER, BLOCK, {}),
]


@pytest.mark.parametrize(
    ("kind", "stage", "action", "given"), CHECKS, ids=lambda given: given if isinstance(given, str) else ""
)
def test_no_text_is_read_over_and_over(
    kind: str, stage: str, action: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    check: Any = compiled(kind, stage, action, given)
    read = 0
    plain = Pattern.find

    def counted(self: Pattern, data: bytes, start: int = 0, end: int | None = None) -> tuple[int, int]:
        nonlocal read
        found = plain(self, data, start, end)
        read += (found[1] if found[0] >= 0 else len(data) if end is None else end) - start
        return found

    monkeypatch.setattr(Pattern, "find", counted)
    for piece in REPEATED:
        text = (piece * (LENGTH // len(piece) + 1))[:LENGTH]
        read = 0
        if hasattr(check, "spans"):
            check.spans(text.encode())
        elif stage == BEFORE:
            check.judge_asked(Asked([Text("user", text, "x")]))
        else:
            check.judge_answer(Answer(text))
        assert read <= READS * len(text.encode()), piece


def test_of_a_large_answer_that_breaks_a_schema_in_every_part_one_problem_is_told() -> None:
    schema = {"type": "array", "items": {"type": "string"}}
    check: Any = compiled("schema", AFTER, BLOCK, {"schema": schema})
    small, large = (Answer("[" + ",".join(["1"] * many) + "]") for many in (4, 40_000))
    assert len(check.judge_answer(small)) == 4
    assert len(check.judge_answer(large)) == 1


@pytest.mark.parametrize("before", ["", "x" * 70, "." * 70, "a." * 40, "é", "_", " ", "a@b.co@"])
def test_an_address_begins_with_the_first_letter_or_digit_that_may_begin_one(before: str) -> None:
    """At most 64 characters before the at sign (RFC 5321, section 4.5.3.1.1)."""
    check: Any = compiled("personal_data", BEFORE, REDACT, {"kinds": ["email"]})
    plain = Pattern(
        r"[A-Za-z0-9][A-Za-z0-9._%+'-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,4}[A-Za-z]{2,24}"
    )
    for local in ("ada", "", "..", "a_b-"):
        data = f"{before}{local}@example.com and more".encode()
        expected = [match.span() for match in plain.matches(data)]
        assert [(one.start, one.end) for one in check.spans(data)] == expected
