"""What must be said: a request or an answer that holds nothing of a list is out of bounds."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from llmops.core.verdicts import AFTER, ALLOW, BEFORE, BLOCK, REQUIRE_APPROVAL, RETRY, Finding
from llmops.policies.checks.base import Answer, AnswerCheck, Asked, AskedCheck, RetrySettings
from llmops.policies.checks.words import Rules, WordList, check_rules
from llmops.policies.patterns import MAX_REACH


class AllowSettings(RetrySettings, frozen=True, kw_only=True):
    rules: Rules
    look_at: Annotated[
        Literal["last_user", "any"],
        Meta(
            description="Before: whether the last user message or any text of the request must hold something of the list."
        ),
    ] = "last_user"


class Allow(AskedCheck, AnswerCheck):
    kind = "allow"
    title = "Allow list"
    summary = "Finds requests and answers that hold none of the listed words and expressions: what is off the subject."
    actions: ClassVar = {BEFORE: (ALLOW, REQUIRE_APPROVAL, BLOCK), AFTER: (ALLOW, RETRY, BLOCK)}
    settings_type = AllowSettings

    @classmethod
    def refuse(cls, settings: Any, stage: str, action: str) -> None:
        check_rules(settings.rules, MAX_REACH)

    def __init__(self, settings: Any, stage: str, action: str) -> None:
        super().__init__(settings, stage, action)
        self._list = WordList(settings.rules, longest=MAX_REACH)

    def judge_asked(self, asked: Asked) -> list[Finding]:
        texts = list(asked.texts)
        if self.settings.look_at == "last_user":
            texts = [one for one in texts if one.role == "user"]
            if texts:
                # All parts of the last message.
                last = texts[-1].where.partition(".")[0]
                texts = [one for one in texts if one.where.partition(".")[0] == last]
        if any(self._list.has(one.text.encode("utf-8", "surrogatepass")) for one in texts):
            return []
        return [Finding("nothing of the list", texts[-1].where if texts else "")]

    def judge_answer(self, answer: Answer) -> list[Finding]:
        if answer.tools and not answer.text:
            return []
        if self._list.has(answer.text.encode("utf-8", "surrogatepass")):
            return []
        return [Finding("nothing of the list")]
