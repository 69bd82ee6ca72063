"""Policies at work: compiled once, then asked about every request and every answer. Pure: decides, and never waits.

``Guard`` holds the checks of all policies of a route in their order. A redaction is seen by the checks after it. The
strictest verdict decides; what is told to the caller names the policy, never the text that matched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from llmops.core.errors import ConsoleError
from llmops.core.verdicts import (
    AFTER,
    ALLOW,
    BEFORE,
    BLOCK,
    MAX_VERDICTS,
    REDACT,
    RETRY,
    Finding,
    Verdict,
    bounded,
    strictest,
)
from llmops.policies.checks import compiled
from llmops.policies.checks.base import (
    Answer,
    AnswerCheck,
    Asked,
    AskedCheck,
    Check,
    Remote,
    Span,
    Text,
    TextCheck,
)
from llmops.policies.patterns import Pattern
from llmops.policies.sieve import sieve_of

_PLACEHOLDER = Pattern(r"\[[A-Z][A-Z_]{1,30}_[0-9]{1,7}\]")


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


class Rule:
    """A check in its place in a policy version."""

    __slots__ = ("check", "policy", "version")

    def __init__(self, policy: str, version: int, check: Check) -> None:
        self.policy = policy
        self.version = version
        self.check = check

    def verdict(self, action: str, findings: Iterable[Finding], note: str = "") -> Verdict:
        return Verdict(
            self.policy, self.version, self.check.stage, self.check.kind, action, bounded(findings), note
        )


@dataclass(slots=True)
class Decision:
    """What follows. ``texts`` maps where a text stands to what stands there now, for those that changed.

    ``advice`` is what a model is told before its next attempt, when ``action`` is ``retry``.
    """

    action: str = ALLOW
    verdicts: list[Verdict] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    advice: str = ""

    def add(self, verdict: Verdict) -> None:
        # What decides is always kept.
        if len(self.verdicts) < MAX_VERDICTS or verdict.action == BLOCK:
            self.verdicts.append(verdict)
        self.action = strictest((self.action, verdict.action))

    @property
    def deciding(self) -> Verdict:
        """The first verdict with the strictest action."""
        return next(one for one in self.verdicts if one.action == self.action)


class Placeholders:
    """Numbered placeholders of one call: an equal value gets an equal one. ``values`` has those to be put back."""

    __slots__ = ("_counts", "_known", "_taken", "values")

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], str] = {}
        self._counts: dict[str, int] = {}
        self._taken: set[bytes] = set()
        #: placeholder -> value
        self.values: dict[bytes, bytes] = {}

    def avoid(self, data: bytes) -> None:
        """Placeholders that the caller's own text already has are not given to anything."""
        if b"[" in data:
            self._taken.update(found.group() for found in _PLACEHOLDER.matches(data))

    def of(self, name: str, value: bytes, *, reversible: bool) -> str:
        known = self._known.get((name, value))
        if known is None:
            kind = name.upper().replace(" ", "_")
            while True:
                number = self._counts[kind] = self._counts.get(kind, 0) + 1
                known = f"[{kind}_{number}]"
                if known.encode() not in self._taken:
                    break
            self._known[name, value] = known
        if reversible:
            self.values[known.encode()] = value
        return known

    def put_back(self, data: bytes) -> bytes:
        """Every placeholder in ``data`` replaced by the value it stands for."""
        if not self.values or b"[" not in data:
            return data
        pieces, at = [], 0
        for found in _PLACEHOLDER.matches(data):
            value = self.values.get(found.group())
            if value is not None:
                pieces += [data[at : found.start()], value]
                at = found.end()
        return b"".join((*pieces, data[at:])) if pieces else data


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
                    data = [_bytes(one.text) for one in texts]
                named = [find(text) for text in data]
                any_named = any(named)
            if bit and not any_named:
                continue
            check = rule.check
            if isinstance(check, TextCheck):
                if not data:
                    data = [_bytes(one.text) for one in texts]
                findings: list[Finding] = []
                for index, one in enumerate(texts):
                    if (bit and not named[index] & bit) or not check.reads(one.role):
                        continue
                    spans = check.spans(data[index])
                    if not spans:
                        continue
                    findings += _findings(spans, one.where)
                    if check.action == REDACT:
                        data[index] = _redacted(check, data[index], spans, placeholders)
                        said = decision.texts[one.where] = _text(data[index])
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
        data = [_bytes(one.text) for one in texts]
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
                    findings += _findings(spans, one.where)
                    if check.action == REDACT:
                        data[index] = _redacted(check, data[index], spans, placeholders)
                        named[index] = find(data[index])
            if findings:
                decision.add(rule.verdict(check.action, findings))
        for index, one in enumerate(texts):
            text = _text(placeholders.put_back(data[index]))
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


# ---------------------------------------------------------------------- streams


class _Stage:
    """One check on one text that grows. What it lets go is final: no more text could make a match of it."""

    __slots__ = ("_data", "_placeholders", "_rule", "_start", "blocked", "found")

    def __init__(self, rule: Rule, placeholders: Placeholders) -> None:
        self._rule = rule
        self._placeholders = placeholders
        #: what is looked at: a little that was let go already, to look back at, and what is held from ``_start`` on
        self._data = b""
        self._start = 0
        #: how often each was found
        self.found: dict[str, int] = {}
        self.blocked = False

    def feed(self, more: bytes, *, last: bool = False) -> bytes:
        check: Any = self._rule.check
        data = self._data = self._data + more if more else self._data
        at = self._start
        decided = len(data) if last else check.open_at(data, at)
        out: list[bytes] = []
        for span in check.spans(data, at):
            # A match that borders on what is not known yet, or on another that may still come, waits.
            since = span.start if span.since < 0 else span.since
            if since >= decided and not last:
                break
            if not last and (span.end > decided or span.end + 2 > len(data)):
                decided = since
                break
            self.found[span.name] = self.found.get(span.name, 0) + 1
            if check.action == BLOCK:
                self.blocked = True
                return b""
            out.append(data[at : span.start])
            if check.action == REDACT:
                out.append(_masked(check, data, span, self._placeholders))
            else:
                out.append(data[span.start : span.end])
            at = span.end
        if decided > at:
            out.append(data[at:decided])
            at = decided
        keep = max(0, at - _LOOK_BACK)
        self._data, self._start = data[keep:], at - keep
        if check.action == ALLOW:
            # Only counted: nothing need wait for it.
            return more
        return b"".join(out)


#: Bytes that are kept to look back at. A cut character at their beginning is no letter, and nothing looks back so far.
_LOOK_BACK = 16


class _PutBack:
    """Placeholders in a text that grows."""

    __slots__ = ("_data", "_placeholders")

    def __init__(self, placeholders: Placeholders) -> None:
        self._placeholders = placeholders
        self._data = b""

    def feed(self, more: bytes, *, last: bool = False) -> bytes:
        data = self._data + more
        decided = len(data) if last else _PLACEHOLDER.open_at(data)
        self._data = data[decided:]
        return self._placeholders.put_back(data[:decided])


class Channel:
    """One text of a streamed answer on its way through all checks."""

    __slots__ = ("_put_back", "_stages")

    def __init__(self, stages: Sequence[_Stage], put_back: _PutBack | None) -> None:
        self._stages = stages
        self._put_back = put_back

    def feed(self, text: str, *, last: bool = False) -> str:
        data = _bytes(text)
        for stage in self._stages:
            data = stage.feed(data, last=last)
            if stage.blocked:
                return ""
        if self._put_back is not None:
            data = self._put_back.feed(data, last=last)
        return _text(data)


class Stream:
    """The texts of one streamed answer, each under a key of its own."""

    def __init__(self, guard: Guard, placeholders: Placeholders) -> None:
        self._rules = [rule for rule in guard.after if isinstance(rule.check, TextCheck)]
        self._placeholders = placeholders
        self._channels: dict[Any, Channel] = {}
        self._stages: list[tuple[Rule, str, _Stage]] = []
        self.blocked = False

    def feed(self, key: Any, where: str, text: str, *, last: bool = False) -> str:
        """What of a text may go out now that more of it has come. Nothing more after ``blocked``."""
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = self._channel(where)
        out = channel.feed(text, last=last)
        if any(stage.blocked for _, _, stage in self._stages):
            self.blocked = True
            return ""
        return out

    def texts(self) -> list[Any]:
        """The keys of all texts so far."""
        return list(self._channels)

    def decision(self) -> Decision:
        """What was found so far."""
        decision = Decision()
        for rule in self._rules:
            findings = [
                Finding(name, where, count)
                for of, where, stage in self._stages
                if of is rule
                for name, count in stage.found.items()
            ]
            if findings:
                decision.add(rule.verdict(rule.check.action, findings))
        return decision

    def _channel(self, where: str) -> Channel:
        stages = [_Stage(rule, self._placeholders) for rule in self._rules]
        self._stages += [(rule, where, stage) for rule, stage in zip(self._rules, stages, strict=True)]
        return Channel(stages, _PutBack(self._placeholders) if self._placeholders.values else None)


# ---------------------------------------------------------------------- texts


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _together(texts: Sequence[Text]) -> bytes:
    return _bytes("\n".join([one.text for one in texts]))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _findings(spans: Sequence[Span], where: str) -> list[Finding]:
    counts: dict[str, int] = {}
    for span in spans:
        counts[span.name] = counts.get(span.name, 0) + 1
    return [Finding(name, where, count) for name, count in counts.items()]


def _masked(check: TextCheck, data: bytes, span: Span, placeholders: Placeholders) -> bytes:
    if check.numbered:
        value = data[span.start : span.end]
        return placeholders.of(span.name, value, reversible=check.reversible).encode()
    return check.mask(data, span).encode()


def _redacted(check: TextCheck, data: bytes, spans: Sequence[Span], placeholders: Placeholders) -> bytes:
    pieces, at = [], 0
    for span in spans:
        pieces += [data[at : span.start], _masked(check, data, span, placeholders)]
        at = span.end
    return b"".join((*pieces, data[at:]))
