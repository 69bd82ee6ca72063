"""Answers that the provider's own content filter stopped."""

from __future__ import annotations

from llmops.core.verdicts import Finding
from llmops.policies.checks.base import JUDGES_ANSWER, Answer, AnswerCheck, RetrySettings


class ContentFilter(AnswerCheck):
    kind = "content_filter"
    title = "Content filter"
    summary = "Finds answers that the provider's content filter stopped (finish reason content_filter)."
    actions = JUDGES_ANSWER
    settings_type = RetrySettings

    def judge_answer(self, answer: Answer) -> list[Finding]:
        return [Finding("stopped by the provider's filter")] if answer.finish == "content_filter" else []
