"""Answers in which the model declines."""

from __future__ import annotations

from typing import Any

from llmops.core.verdicts import Finding
from llmops.policies.checks.base import JUDGES_ANSWER, Answer, AnswerCheck, RetrySettings
from llmops.policies.patterns import Pattern

#: Only the beginning of an answer tells: further on it may be a quotation.
_HEAD_CHARACTERS = 300
_DECLINES = Pattern(
    r"^[\s\"'*_]{0,5}(?:(?:i['’]m|i am) (?:very |really |so )?sorry,? but (?:i|as an ai)|sorry,? (?:but )?i (?:can['’]?t|cannot|can not|won['’]t|am unable)"
    r"|i (?:can['’]?t|cannot|can not|won['’]t|will not|am unable to|am not able to|must decline to) (?:assist|help|provide|comply|fulfil|fulfill|do that|create|generate|answer|engage|support|continue|discuss|share)"
    r"|i['’]m (?:unable|not able) to (?:assist|help|provide|comply|fulfil|fulfill|create|generate|answer|engage|continue|discuss|share)"
    r"|as an ai(?: language)?(?: model)?,? i (?:can['’]?t|cannot|am not able|am unable|don['’]t)"
    r"|i apologi[sz]e,? but i (?:can['’]?t|cannot|am unable)"
    r"|es tut mir leid,? (?:aber )?(?:ich kann|dabei kann)|je suis désolée?,? mais je ne|lo siento,? (?:pero )?no puedo)",
    ignore_case=True,
)


class Refusal(AnswerCheck):
    kind = "refusal"
    title = "Refusal"
    summary = "Finds answers in which the model declines: the refusal member of the API, or the usual words at the beginning."
    actions = JUDGES_ANSWER
    settings_type = RetrySettings

    def judge_answer(self, answer: Answer) -> list[Finding]:
        if answer.refusal:
            return [Finding("refusal")]
        head: Any = answer.text[:_HEAD_CHARACTERS].encode("utf-8", "surrogatepass")
        return [Finding("words of a refusal")] if _DECLINES.search(head) is not None else []
