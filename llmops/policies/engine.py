"""Policies at work: compiled once, then asked about every request and every answer. Pure: decides, and never waits.

``Guard`` holds the checks of all policies of a route in their order. A redaction is seen by the checks after it. The
strictest verdict decides; what is told to the caller names the policy, never the text that matched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


class PublishedLike(PolicyLike, Protocol):
    @property
    def everywhere(self) -> bool: ...


class Guard:
    """All that is checked for the calls of one route."""

    __slots__ = (
        "_asked",
        "_at_once",
        "_avoids",
        "_judged",
        "_remote_after",
        "_remote_before",
        "_shown",
        "_sieve_after",
        "_sieve_before",
        "_unsieved",
        "after",
        "before",
        "has_after",
        "judges",
        "redacts",
        "stops",
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
        #: whether answers are looked at as a whole
        self.judges = any(isinstance(rule.check, AnswerCheck | Remote) for rule in self.after)
        #: whether places in answers are taken out, and whether they break streams off
        self.redacts = any(
            isinstance(rule.check, TextCheck) and rule.check.action == REDACT for rule in self.after
        )
        self.stops = any(
            isinstance(rule.check, TextCheck) and rule.check.action == BLOCK for rule in self.after
        )
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
        #: what the sieve does not stand for
        self._unsieved = [rule.check for rule, bit in self._asked if not bit]
        #: whether it can be told of all texts together that there is nothing in them
        self._at_once = not self._remote_before and all(
            isinstance(check, AskedCheck) for check in self._unsieved
        )

    # ------------------------------------------------------------------ before

    def finds_nothing(self, text: str, messages: int, placeholders: Placeholders) -> bool:
        """Whether ``check_before`` finds nothing in the texts of a request, which stand on lines of ``text``. False also when
        that cannot be told of all of them together."""
        if not self._at_once:
            return False
        for check in self._unsieved:
            assert isinstance(check, AskedCheck)
            if not check.passes(len(text), messages):
                return False
        data = as_bytes(text)
        if self._sieve_before.find(data):
            return False
        if self._avoids:
            placeholders.avoid(data)
        return True

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

    def changes_nothing(self, text: str, placeholders: Placeholders) -> bool:
        """Whether ``check_texts`` finds nothing and changes nothing in the texts of an answer, which stand on lines of
        ``text``. False also when that cannot be told of all of them together."""
        if placeholders.values and "[" in text:
            return False
        return not self._shown or not (0 in self._sieve_after.bits or self._sieve_after.find(as_bytes(text)))

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


def joined(policies: Mapping[str, PublishedLike], named: Iterable[str]) -> list[PublishedLike]:
    """The policies that hold everywhere, then those ``named``, each once. Raises ``KeyError`` for one that there is not."""
    slugs = dict.fromkeys(slug for slug, policy in policies.items() if policy.everywhere)
    slugs.update(dict.fromkeys(named))
    return [policies[slug] for slug in slugs]


def prepare(policies: Iterable[PublishedLike], combinations: Iterable[Iterable[str]] = ()) -> None:
    """Compile what is not compiled yet, and what is asked for together by the policies of each of ``combinations`` beside
    those that hold everywhere. What cannot be is said when a request meets it, and lets none pass."""
    by_slug = {policy.slug: policy for policy in policies}
    for policy in by_slug.values():
        with suppress(ConsoleError, ValueError, KeyError):
            rules_of(policy)
    for named in combinations:
        with suppress(ConsoleError, ValueError, KeyError):
            if (guard := guard_of(joined(by_slug, named))) is not None:
                _warm(guard)


@lru_cache(maxsize=512)
def _warm(guard: Guard) -> None:
    """Let the automata meet a text, which makes the states that every text needs."""
    placeholders = Placeholders()
    guard.check_before(Asked([Text("user", _SAMPLE, "")]), placeholders)
    guard.check_texts([Text("assistant", _SAMPLE, "")], placeholders)
    stream = guard.stream(placeholders)
    for word in _SAMPLE.split():
        stream.feed(0, "", f"{word} ")


_SAMPLE = 'The quick brown fox jumps over 13 lazy dogs, (e.g. at 10:30) - "in the park"; they don\'t mind?\n'


@lru_cache(maxsize=512)
def _guard(rules: tuple[Rule, ...]) -> Guard | None:
    return Guard(rules) if rules else None


def guard_of(policies: Iterable[PolicyLike]) -> Guard | None:
    """What policies ask for together; None when that is nothing. One guard for the same rules, whatever snapshot they are of."""
    return _guard(tuple(rule for policy in policies for rule in rules_of(policy)))


def _together(texts: Sequence[Text]) -> bytes:
    return as_bytes("\n".join([one.text for one in texts]))
