"""Risk classes by key words: what a person should see first, or what is not done here at all."""

from __future__ import annotations

from typing import Any, ClassVar

from llmops.core.verdicts import ALLOW, BEFORE, BLOCK, REQUIRE_APPROVAL, Finding
from llmops.policies.checks.base import Asked, AskedCheck, TextSettings
from llmops.policies.checks.words import Rules, WordList, check_rules
from llmops.policies.patterns import MAX_REACH


class RiskSettings(TextSettings, frozen=True, kw_only=True):
    rules: Rules


class Risk(AskedCheck):
    kind = "risk"
    title = "Risk class"
    summary = "Puts a request into a risk class of yours by key words: payments, deletion, medical, legal."
    actions: ClassVar = {BEFORE: (ALLOW, REQUIRE_APPROVAL, BLOCK)}
    settings_type = RiskSettings

    @classmethod
    def refuse(cls, settings: Any, stage: str, action: str) -> None:
        check_rules(settings.rules, MAX_REACH)

    def __init__(self, settings: Any, stage: str, action: str) -> None:
        super().__init__(settings, stage, action)
        self._list = WordList(settings.rules, longest=MAX_REACH)
        self.hint = self._list.wide

    def judge_asked(self, asked: Asked) -> list[Finding]:
        roles = self.settings.roles
        return [
            Finding(span.name, one.where)
            for one in asked.texts
            if not roles or one.role in roles
            for span in self._list.spans(one.text.encode("utf-8", "surrogatepass"))
        ]
