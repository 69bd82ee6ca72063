"""Lists of words, phrases and expressions, as several kinds of checks use them. No kind itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from llmops.core.stopping import go_on
from llmops.policies.checks.base import SettingRefused, Span
from llmops.policies.patterns import (
    ExpressionRefused,
    Pattern,
    literal,
    whole,
    whole_word,
)

MAX_WORDS = 5_000
#: A stream is held back for no longer than this many characters, unless a check says otherwise.
HOLDBACK = 200

Words = Annotated[
    tuple[Annotated[str, Meta(min_length=2, max_length=150)], ...],
    Meta(max_length=MAX_WORDS, description="Words and phrases; one space stands for any white space."),
]
Expressions = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=1_000)], ...],
    Meta(
        max_length=100,
        description="Regular expressions in RE2's syntax, which take linear time on any text. They must be bounded: "
        "{0,50} in place of *.",
    ),
]


class Rule(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Words and expressions under one name."""

    name: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=60,
            description="What verdicts call it; the text that matched is never kept.",
        ),
    ]
    words: Words = ()
    expressions: Expressions = ()
    whole_words: Annotated[bool, Meta(description="Words do not match inside of longer words.")] = True
    match_case: Annotated[bool, Meta(description="Capitals and small letters differ.")] = False


Rules = Annotated[tuple[Rule, ...], Meta(min_length=1, max_length=100)]


class _Part(NamedTuple):
    name: str
    pattern: Pattern
    whole_words: bool


class WordList:
    """Compiled rules."""

    def __init__(self, rules: Sequence[Rule], *, longest: int) -> None:
        self._parts: list[_Part] = []
        for index, rule in enumerate(rules):
            ignore_case = not rule.match_case
            words = sorted({one for one in rule.words if one.strip()}, key=len, reverse=True)
            if words:
                try:
                    written = whole if rule.whole_words else literal
                    pattern = Pattern(
                        "|".join(map(written, words)), longest=4 * HOLDBACK, ignore_case=ignore_case
                    )
                except ExpressionRefused as error:
                    raise SettingRefused(f"rules[{index}].words", str(error)) from None
                self._parts.append(_Part(rule.name, pattern, rule.whole_words))
            for place, expression in enumerate(rule.expressions):
                try:
                    pattern = Pattern(expression, longest=longest, ignore_case=ignore_case)
                except ExpressionRefused as error:
                    raise SettingRefused(f"rules[{index}].expressions[{place}]", str(error)) from None
                self._parts.append(_Part(rule.name, pattern, False))

    @property
    def wide(self) -> str:
        """An expression that matches at least where one of the rules does."""
        return "|".join(part.pattern.wide for part in self._parts)

    @property
    def wide_opening(self) -> str:
        """An expression that matches at the end of a text at least where a match of one of the rules may have begun."""
        return "|".join(part.pattern.wide_opening for part in self._parts)

    def spans(self, data: bytes, start: int = 0) -> list[Span]:
        found: list[Span] = []
        for part in self._parts:
            at = start
            while True:
                go_on()
                first, end = part.pattern.find(data, at)
                if first < 0:
                    break
                if part.whole_words and not whole_word(data, first, end):
                    at = first + 1
                    continue
                at = max(end, first + 1)
                if end > first:
                    found.append(Span(first, end, part.name))
        return merged(found) if len(self._parts) > 1 else found

    def has(self, data: bytes) -> bool:
        return any(self._first(part, data) for part in self._parts)

    @staticmethod
    def _first(part: _Part, data: bytes) -> bool:
        at = 0
        while True:
            first, end = part.pattern.find(data, at)
            if first < 0 or not part.whole_words or whole_word(data, first, end):
                return first >= 0
            at = first + 1

    def open_at(self, data: bytes, start: int = 0) -> int:
        return min((part.pattern.open_at(data, start) for part in self._parts), default=len(data))


def merged(spans: list[Span]) -> list[Span]:
    """Spans from left to right; those that overlap become one, under the name of the first."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and span.start < found[-1].end:
            if span.end > found[-1].end:
                found[-1] = found[-1]._replace(end=span.end)
        else:
            found.append(span)
    return found


def check_rules(rules: Sequence[Rule], longest: int) -> None:
    """Raises ``SettingRefused``."""
    if sum(len(rule.words) for rule in rules) > MAX_WORDS:
        raise SettingRefused("rules", f"more than {MAX_WORDS} words in all")
    for index, rule in enumerate(rules):
        if not rule.words and not rule.expressions:
            raise SettingRefused(f"rules[{index}]", "give it words or expressions")
        for place, word in enumerate(rule.words):
            if len(word.strip()) < 2:
                raise SettingRefused(f"rules[{index}].words[{place}]", "a word needs at least two characters")
    WordList(rules, longest=longest)
