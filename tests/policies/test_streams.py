"""A stream cut anywhere gives the same text as the whole, and nothing of what was found leaves before it is known."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmops.core.verdicts import ALLOW, BEFORE, BLOCK, REDACT
from llmops.policies.checks.base import Asked, Text
from llmops.policies.decisions import Placeholders
from llmops.policies.engine import Guard, guard_of
from llmops.serving.snapshot import CheckEntry, PolicyEntry
from tests.trying import tries

SECRETS = [
    "sk-proj-" + "aB3" * 12,
    "sk-ant-api03-" + "xY9_" * 8,
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9,
    "AIza" + "x9Y8z" * 7,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nq83vZ2==\n-----END RSA PRIVATE KEY-----",
]
PERSONAL = [
    "ada@example.com",
    "+49 30 901820 123",
    "(415) 555-2671",
    "DE89 3704 0044 0532 0130 00",
    "4111 1111 1111 1111",
    "378282246310005",
    "203.0.113.7",
    "2001:db8::8a2e:370:7334",
    "123-45-6789",
]
WORDS = ["blue heron", "heron secret plan", "PX-12345"]
fragments = st.one_of(
    st.sampled_from(SECRETS + PERSONAL + WORDS),
    st.sampled_from(
        [
            "password = 'hunter2hunter2Zq9'",
            "token: ",
            "sk-",
            "eyJ",
            "-----BEGIN ",
            "4111 ",
            "+4",
            "[EMAIL_1]",
            "@",
            ".",
        ]
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=8),
    st.text("0123456789 -.:+@ab", max_size=14),
)
joints = st.sampled_from(["", " ", "\n", ", ", "é", "-", ".", ":"])
texts = st.lists(st.tuples(fragments, joints), max_size=7).map(lambda parts: "".join(map("".join, parts)))
places = st.lists(st.integers(0, 100_000), max_size=12)

DENY = {
    "rules": [
        {"name": "birds", "words": ["blue heron", "heron secret plan"]},
        {"name": "projects", "expressions": ["PX-[0-9]{4,6}", r"\bheron\b"], "match_case": True},
    ]
}
ALL = [("secrets", {}), ("personal_data", {}), ("deny", DENY), ("special_tokens", {})]


def a_guard(*checks: tuple[str, dict[str, Any]], action: str = REDACT, stage: str = "after") -> Guard:
    entries = tuple(CheckEntry(kind, stage, action, given) for kind, given in checks)
    found = guard_of([PolicyEntry("strict", 3, entries)])
    assert found is not None
    return found


def cut(text: str, where: list[int]) -> list[str]:
    borders = sorted({0, len(text), *(place % (len(text) + 1) for place in where)})
    return [text[start:end] for start, end in pairwise(borders)]


def whole(guard: Guard, text: str, placeholders: Placeholders | None = None) -> str:
    decision = guard.check_texts([Text("assistant", text, "x")], placeholders or Placeholders())
    return decision.texts.get("x", text)


def streamed(guard: Guard, pieces: list[str], placeholders: Placeholders | None = None) -> list[str]:
    stream = guard.stream(placeholders or Placeholders())
    return [*(stream.feed(0, "x", piece) for piece in pieces), stream.feed(0, "x", "", last=True)]


@pytest.mark.parametrize(
    "kinds", [[one] for one in ALL] + [ALL], ids=lambda kinds: "+".join(kind for kind, _ in kinds)
)
@given(text=texts, where=places)
@example(text="1.2.3.4.5", where=[8])
@example(text="see blue heron secret plan", where=[15, 16])
@tries(300)
def test_cut_anywhere_it_says_what_the_whole_says(kinds: list[Any], text: str, where: list[int]) -> None:
    guard = a_guard(*kinds)
    assert "".join(streamed(guard, cut(text, where))) == whole(guard, text)


@given(text=texts, where=places)
@tries(200)
def test_a_mark_changes_and_delays_nothing(text: str, where: list[int]) -> None:
    guard = a_guard(*ALL, action=ALLOW)
    pieces = cut(text, where)
    stream = guard.stream(Placeholders())
    assert [stream.feed(0, "x", piece) for piece in pieces] == pieces
    stream.feed(0, "x", "", last=True)
    counted = sum(one.count for verdict in stream.decision().verdicts for one in verdict.findings)
    verdicts = guard.check_texts([Text("assistant", text, "x")], Placeholders()).verdicts
    assert counted == sum(one.count for verdict in verdicts for one in verdict.findings)


@given(secret=st.sampled_from(SECRETS), before=st.sampled_from(["", "Use ", "key=\n"]), where=places)
@tries(200)
def test_nothing_of_a_secret_leaves_before_the_stream_is_blocked(
    secret: str, before: str, where: list[int]
) -> None:
    guard = a_guard(("secrets", {}), action=BLOCK)
    stream = guard.stream(Placeholders())
    out = ""
    for piece in [*cut(before + secret + " and more", where), ""]:
        out += stream.feed(0, "x", piece, last=not piece)
        if stream.blocked:
            break
    assert stream.blocked
    assert before.startswith(out)
    assert stream.decision().action == BLOCK


@given(text=texts, where=places)
@tries(300)
def test_redaction_and_putting_back_is_the_identity(text: str, where: list[int]) -> None:
    guard = a_guard(("personal_data", {"reversible": True}), stage=BEFORE)
    placeholders = Placeholders()
    decision = guard.check_before(Asked([Text("user", text, "x")]), placeholders)
    redacted = decision.texts.get("x", text)
    assert whole(guard, redacted, placeholders) == text
    assert "".join(streamed(guard, cut(redacted, where), placeholders)) == text


def test_only_what_may_become_a_match_is_held_back() -> None:
    guard = a_guard(*ALL)
    stream = guard.stream(Placeholders())
    out = stream.feed(0, "x", "The capital of France is Paris. It lies on the ")
    assert out == "The capital of France is Paris. It lies on the "
    # Who knows what this word becomes.
    assert stream.feed(0, "x", "Seine") == ""
    assert stream.feed(0, "x", ", you see") == "Seine, you "


def test_texts_of_one_stream_do_not_mix() -> None:
    stream = a_guard(("personal_data", {})).stream(Placeholders())
    first = (
        stream.feed(0, "a", "ada@exa") + stream.feed(1, "b", "mple.com ") + stream.feed(0, "a", "mple.com ")
    )
    assert first + stream.feed(0, "a", "", last=True) == "mple.com [EMAIL_1] "
