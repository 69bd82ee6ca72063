"""Policies at work: compiled once, then asked about every request and every answer. Pure: decides, and never waits.

``Guard`` holds the checks of all policies of a route in their order. A redaction is seen by the checks after it. The
strictest verdict decides; what is told to the caller names the policy, never the text that matched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from llmops.core.errors import ConsoleError
from llmops.core.verdicts import AFTER, BEFORE, BLOCK, REDACT, RETRY, Finding
from llmops.policies.checks import compiled
from llmops.policies.checks.base import Answer, AnswerCheck, Asked, AskedCheck, Remote, Text, TextCheck
from llmops.policies.decisions import Decision, Placeholders, Rule, as_bytes, as_text, findings_of, redacted
from llmops.policies.sieve import sieve_of
from llmops.policies.streams import Stream, Together


class CheckLike(Protocol):
    """``serving.snapshot.CheckEntry``."""

    @property
    def kind(self) -> str: ...
    @property
    def stage(self) -> str: ...
    @property
    def action(self) -> str: ...
    @property
    def settings(self) -> dict[str, Any]: ...


class PolicyLike(Protocol):
    """``serving.snapshot.PolicyEntry``."""

    @property
    def slug(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def checks(self) -> Sequence[CheckLike]: ...


class Guard:
    """All that is checked for the calls of one route."""

    __slots__ = (
        "_asked",
        "_avoids",
        "_judged",
        "_remote_after",
        "_remote_before",
        "_shown",
        "_sieve_after",
        "_sieve_before",
        "after",
        "before",
        "has_after",
        "together",
        "withholds",
    )

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.before = tuple(rule for rule in rules if rule.check.stage == BEFORE)
        self.after = tuple(rule for rule in rules if rule.check.stage == AFTER)
        #: whether answers must be looked at: for checks, or to put values back
        self.has_after = bool(self.after) or any(
            isinstance(rule.check, TextCheck) and rule.check.reversible for rule in self.before
        )
        #: whether a stream is kept back whole, because after its end there may be another attempt
        self.withholds = any(rule.check.action == RETRY for rule in self.after)
        self._remote_before = tuple(rule for rule in self.before if isinstance(rule.check, Remote))
        self._remote_after = tuple(rule for rule in self.after if isinstance(rule.check, Remote))
        self._avoids = any(rule.check.action == REDACT for rule in self.before)
        asked = [rule for rule in self.before if isinstance(rule.check, TextCheck | AskedCheck)]
        shown = [rule for rule in self.after if isinstance(rule.check, TextCheck)]
        self._judged = tuple(rule for rule in self.after if isinstance(rule.check, AnswerCheck))
        self._sieve_before = sieve_of(tuple(rule.check.hint for rule in asked))
        self._sieve_after = sieve_of(tuple(rule.check.hint for rule in shown))
        #: what looks at streams
        self.together = Together(shown)
        #: with the bit of the sieve that names each; 0 for those that look at everything
        self._asked = tuple(zip(asked, self._sieve_before.bits, strict=True))
        self._shown = tuple(zip(shown, self._sieve_after.bits, strict=True))

    # ------------------------------------------------------------------ before

    def check_before(self, asked: Asked, placeholders: Placeholders) -> Decision:
        """Everything but remote checks. The texts of ``asked`` stay as they are; what changed is in the decision."""
        decision = Decision()
        texts = list(asked.texts)
        find = self._sieve_before.find
        # Nearly always one look at all texts together is all. Not before a check asks for it: one about length may have
        # blocked.
        together: bytes | None = None
        data: list[bytes] = []
        named: list[int] = []
        sieved = any_named = False
        if self._avoids:
            together = _together(texts)
            placeholders.avoid(together)
        for rule, bit in self._asked:
            if bit and not sieved:
                sieved = True
                if not data and find(_together(texts) if together is None else together):
                    data = [as_bytes(one.text) for one in texts]
                named = [find(text) for text in data]
                any_named = any(named)
            if bit and not any_named:
                continue
            check = rule.check
            if isinstance(check, TextCheck):
                if not data:
                    data = [as_bytes(one.text) for one in texts]
                findings: list[Finding] = []
                for index, one in enumerate(texts):
                    if (bit and not named[index] & bit) or not check.reads(one.role):
                        continue
                    spans = check.spans(data[index])
                    if not spans:
                        continue
                    findings += findings_of(spans, one.where)
                    if check.action == REDACT:
                        data[index] = redacted(check, data[index], spans, placeholders)
                        said = decision.texts[one.where] = as_text(data[index])
                        texts[index] = Text(one.role, said, one.where)
                        if sieved:
                            # What stands there now is another text.
                            named = named or [0] * len(data)
                            named[index] = find(data[index])
                            any_named = any_named or bool(named[index])
            else:
                assert isinstance(check, AskedCheck)
                shown = [one for one, bits in zip(texts, named, strict=True) if bits & bit] if bit else texts
                findings = check.judge_asked(Asked(shown, asked.messages))
            if findings:
                decision.add(rule.verdict(check.action, findings))
                if decision.action == BLOCK:
                    break
        return decision

    def remote(self, stage: str) -> tuple[Rule, ...]:
        """The checks for which a model must be asked."""
        return self._remote_before if stage == BEFORE else self._remote_after

    # ------------------------------------------------------------------ after

    def check_texts(self, texts: Sequence[Text], placeholders: Placeholders) -> Decision:
        """The texts of a whole answer: redacted, and with the values of placeholders put back."""
        decision = Decision()
        data = [as_bytes(one.text) for one in texts]
        find = self._sieve_after.find
        named = [find(text) for text in data]
        for rule, bit in self._shown:
            check = rule.check
            assert isinstance(check, TextCheck)
            findings = []
            for index, one in enumerate(texts):
                if bit and not named[index] & bit:
                    continue
                spans = check.spans(data[index])
                if spans:
                    findings += findings_of(spans, one.where)
                    if check.action == REDACT:
                        data[index] = redacted(check, data[index], spans, placeholders)
                        named[index] = find(data[index])
            if findings:
                decision.add(rule.verdict(check.action, findings))
        for index, one in enumerate(texts):
            text = as_text(placeholders.put_back(data[index]))
            if text != one.text:
                decision.texts[one.where] = text
        return decision

    def check_answers(
        self, answers: Sequence[Answer], retries: int, decision: Decision, *, last: bool = False
    ) -> None:
        """Judge whole answers, and add to ``decision``; ``retries`` attempts were made again for a policy's sake already,
        and after the ``last`` there can be no other.
        """
        for rule in self._judged:
            check = rule.check
            assert isinstance(check, AnswerCheck)
            action, note = check.action, ""
            findings: list[Finding] = []
            for index, answer in enumerate(answers):
                found = check.judge_answer(answer)
                if found and check.action == RETRY and not decision.advice:
                    decision.advice = check.advice(answer)
                if len(answers) > 1:
                    found = [Finding(one.name, f"choices[{index}]", one.count) for one in found]
                findings += found
            if not findings:
                continue
            if action == RETRY and (last or retries >= check.settings.attempts):
                action = check.settings.otherwise
                note = f"after {retries} more attempt{'s' if retries > 1 else ''}" if retries else ""
            decision.add(rule.verdict(action, findings, note))

    def stream(self, placeholders: Placeholders) -> Stream:
        return Stream(self, placeholders)


@lru_cache(maxsize=512)
def _compiled(encoded: bytes) -> tuple[Rule, ...]:
    slug, version, checks = msgspec.json.decode(encoded)
    return tuple(Rule(slug, version, compiled(*one)) for one in checks)


def rules_of(policy: PolicyLike) -> tuple[Rule, ...]:
    """The compiled checks of a policy version; compiled once, whichever snapshot it stands in. Takes up to some hundred
    milliseconds for long lists: whoever brings a snapshot calls this before requests meet it.

    Raises ``InvalidRequest`` or ``ValueError`` for what ``checks.validate`` would have refused."""
    checks = [(one.kind, one.stage, one.action, one.settings) for one in policy.checks]
    return _compiled(msgspec.json.encode((policy.slug, policy.version, checks), order="sorted"))


def prepare(policies: Iterable[PolicyLike]) -> None:
    """Compile what is not compiled yet. What cannot be is said when a request meets it, and lets none pass."""
    for policy in policies:
        with suppress(ConsoleError, ValueError, KeyError):
            rules_of(policy)


def guard_of(policies: Iterable[PolicyLike]) -> Guard | None:
    """What policies ask for together; None when that is nothing."""
    rules = [rule for policy in policies for rule in rules_of(policy)]
    return Guard(rules) if rules else None


def _together(texts: Sequence[Text]) -> bytes:
    return as_bytes("\n".join([one.text for one in texts]))
