"""How long a request or an answer may be."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from msgspec import Meta

from llmops.core.tokens import count_text
from llmops.core.verdicts import AFTER, ALLOW, BEFORE, BLOCK, REQUIRE_APPROVAL, RETRY, Finding
from llmops.policies.checks.base import (
    Answer,
    AnswerCheck,
    Asked,
    AskedCheck,
    RetrySettings,
    SettingRefused,
)

#: Tokens are counted as this model's, whatever model answers: near enough for a limit.
_MODEL = "gpt-4o"
_Limit = Annotated[int, Meta(ge=1, le=100_000_000)]


class LengthSettings(RetrySettings, frozen=True, kw_only=True):
    max_characters: Annotated[
        _Limit | None, Meta(description="The most characters of all texts together.")
    ] = None
    max_messages: Annotated[_Limit | None, Meta(description="The most messages of a request.")] = None
    max_tokens: Annotated[
        _Limit | None,
        Meta(
            description="The most tokens of all texts together, counted with o200k_base whatever the model is."
        ),
    ] = None


class Length(AskedCheck, AnswerCheck):
    kind = "length"
    title = "Length"
    summary = "Bounds how long a request is, in characters, messages or tokens, or how long an answer is."
    actions: ClassVar = {BEFORE: (ALLOW, REQUIRE_APPROVAL, BLOCK), AFTER: (ALLOW, RETRY, BLOCK)}
    settings_type = LengthSettings

    @classmethod
    def refuse(cls, settings: Any, stage: str, action: str) -> None:
        if settings.max_messages is not None and stage == AFTER:
            raise SettingRefused(
                "max_messages", "an answer has no messages to count; set it on a check before the call"
            )
        if settings.max_characters is settings.max_messages is settings.max_tokens is None:
            raise SettingRefused(
                "", "set max_characters, max_messages or max_tokens; without one nothing is checked"
            )

    def passes(self, characters: int, messages: int) -> bool:
        limits = self.settings
        return (
            (limits.max_characters is None or characters <= limits.max_characters)
            and (limits.max_messages is None or messages <= limits.max_messages)
            # A character has at most four bytes, and a token at least one.
            and (limits.max_tokens is None or characters * 4 <= limits.max_tokens)
        )

    def judge_asked(self, asked: Asked) -> list[Finding]:
        found = self._texts([one.text for one in asked.texts])
        limit = self.settings.max_messages
        if limit is not None and asked.messages > limit:
            found.append(Finding(f"more than {limit} messages"))
        return found

    def judge_answer(self, answer: Answer) -> list[Finding]:
        return self._texts([answer.text])

    def _texts(self, texts: list[str]) -> list[Finding]:
        found = []
        characters = sum(map(len, texts))
        limit = self.settings.max_characters
        if limit is not None and characters > limit:
            found.append(Finding(f"more than {limit} characters"))
        limit = self.settings.max_tokens
        if limit is not None and characters * 4 > limit and _more_tokens(texts, limit):
            found.append(Finding(f"more than {limit} tokens"))
        return found


def _more_tokens(texts: list[str], limit: int) -> bool:
    """Whether there are more tokens than ``limit``; a byte-level tokenizer never makes more tokens than there are bytes."""
    if sum(len(one.encode("utf-8", "surrogatepass")) for one in texts) <= limit:
        return False
    total = 0
    for one in texts:
        total += count_text(one, _MODEL)
        if total > limit:
            return True
    return False
