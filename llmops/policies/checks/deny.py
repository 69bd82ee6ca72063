"""What must not be said: words, phrases, expressions."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from llmops.core.verdicts import AFTER
from llmops.policies.checks.base import FINDS_PLACES, Span, TextCheck, TextSettings
from llmops.policies.checks.words import HOLDBACK, Rules, WordList, check_rules
from llmops.policies.patterns import MAX_REACH


class DenySettings(TextSettings, frozen=True, kw_only=True):
    rules: Rules
    holdback_chars: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_REACH,
            description="After: the most characters that a match of an expression may have, and so how long a stream may be "
            "held back for it.",
        ),
    ] = HOLDBACK


class Deny(TextCheck):
    kind = "deny"
    title = "Deny list"
    summary = "Finds words, phrases and expressions that must not be asked or answered, each list under a name of yours."
    actions = FINDS_PLACES
    settings_type = DenySettings

    @classmethod
    def refuse(cls, settings: Any, stage: str, action: str) -> None:
        check_rules(settings.rules, settings.holdback_chars if stage == AFTER else MAX_REACH)

    def __init__(self, settings: Any, stage: str, action: str) -> None:
        super().__init__(settings, stage, action)
        self._list = WordList(settings.rules, longest=MAX_REACH)
        self.hint, self.opening = self._list.wide, self._list.wide_opening

    def spans(self, data: bytes, start: int = 0) -> list[Span]:
        return self._list.spans(data, start)

    def open_at(self, data: bytes, start: int = 0) -> int:
        return self._list.open_at(data, start)

    def mask(self, data: bytes, span: Span) -> str:
        return "[REDACTED]"
