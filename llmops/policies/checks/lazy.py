"""Answers that leave the work to whoever asked: placeholders in place of code, or next to nothing."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from llmops.core.verdicts import Finding
from llmops.policies.checks.base import JUDGES_ANSWER, Answer, AnswerCheck, RetrySettings
from llmops.policies.patterns import Pattern

_COMMENT = r"(?:#|//|/\*|--|<!--|\{/\*|;)[ \t]{0,3}"
_LAZY = Pattern(
    rf"{_COMMENT}\.{{3}}[^\n]{{0,60}}(?:\n|$|\*/|-->)"
    rf"|{_COMMENT}(?:todo|fixme)\b[: ]{{0,3}}(?:implement|add|fill|complete|finish|write|handle)"
    rf"|{_COMMENT}(?:\.{{3}} ?|… ?)?(?:the )?(?:rest|remainder|remaining|existing|other|previous)[a-z ]{{0,30}}(?:code|function|functions|methods?|implementation|logic|fields?|imports?|file)[a-z ]{{0,30}}(?:here|unchanged|remains?|goes|the same|stays?|as before|omitted)"
    rf"|{_COMMENT}(?:your|insert|add|put) (?:your |the )?(?:code|implementation|logic) (?:here|goes)"
    rf"|{_COMMENT}implement(?:ation)? (?:this|here|goes here|omitted|left as an exercise)"
    r"|\b(?:rest|remainder) of (?:the |your )?(?:code|file|function|class|implementation) (?:remains |is |stays )?(?:unchanged|the same|omitted|as before)\b"
    r"|\braise NotImplementedError\b|\bleft as an exercise (?:for|to) the reader\b"
    r"|\[(?:insert|continue|rest of|add)[^\]\n]{0,40}\]",
    ignore_case=True,
)


class LazySettings(RetrySettings, frozen=True, kw_only=True):
    min_characters: Annotated[
        int, Meta(ge=0, le=100_000, description="Answers shorter than this count too; 0 for any length.")
    ] = 0


class Lazy(AnswerCheck):
    kind = "lazy"
    title = "Lazy answer"
    summary = 'Finds placeholders such as "rest of code unchanged" or "TODO: implement", and answers that are too short.'
    actions = JUDGES_ANSWER
    settings_type = LazySettings

    def judge_answer(self, answer: Answer) -> list[Finding]:
        if answer.refusal or (answer.tools and not answer.text):
            return []
        found = []
        if _LAZY.search(answer.text.encode("utf-8", "surrogatepass")) is not None:
            found.append(Finding("placeholder"))
        least = self.settings.min_characters
        if len(answer.text.strip()) < least:
            found.append(Finding(f"fewer than {least} characters"))
        return found

    def advice(self, answer: Answer) -> str:
        return "Your answer leaves parts out. Answer again in full, without placeholders."
