"""Answers that were cut off at the output cap."""

from __future__ import annotations

from llmops.core.verdicts import Finding
from llmops.policies.checks.base import JUDGES_ANSWER, Answer, AnswerCheck, RetrySettings


class Truncation(AnswerCheck):
    kind = "truncation"
    title = "Truncation"
    summary = "Finds answers that end because the output cap was reached (finish reason length), not because they were done."
    actions = JUDGES_ANSWER
    settings_type = RetrySettings

    def judge_answer(self, answer: Answer) -> list[Finding]:
        return [Finding("cut off at the output cap")] if answer.finish == "length" else []
