"""Trying a policy on sample texts: what it would say, without a call. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmops.core.verdicts import AFTER, ALLOW, BEFORE, REDACT, Verdict
from llmops.policies.checks.base import Answer, Asked, Text
from llmops.policies.decisions import Decision, Placeholders
from llmops.policies.engine import Guard, rules_of
from llmops.policies.wording import ACTION_WORDS, title

MOST_CHARS = 200_000
ROLES = ("user", "system", "developer", "assistant", "tool")
_ASKED, _ANSWERED = "messages[0].content", "choices[0].message.content"


@dataclass(frozen=True, slots=True)
class _Check:
    kind: str
    stage: str
    action: str
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Policy:
    slug: str
    version: int
    checks: tuple[_Check, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What follows at one stage: the strictest action, the text as it would go on, and what each check said.

    ``unasked`` names checks that ask a model for its opinion; a trial does not.
    """

    action: str
    text: str
    changed: bool
    verdicts: tuple[Verdict, ...]
    unasked: tuple[str, ...]
    advice: str = ""

    @property
    def goes_on(self) -> bool:
        """Whether there is a text that goes on, and it is another one."""
        return self.changed and self.action in (ALLOW, REDACT)

    @property
    def words(self) -> str:
        return "nothing found" if not self.verdicts else ACTION_WORDS[self.action]


@dataclass(frozen=True, slots=True)
class Trial:
    """``after`` is None where no answer was given."""

    before: Outcome
    after: Outcome | None


def try_checks(
    slug: str,
    version: int,
    checks: Iterable[Mapping[str, Any]],
    *,
    asked: str,
    answer: str | None = None,
    role: str = "user",
) -> Trial:
    """What valid ``checks`` say about a message of ``role`` and, where it is given, about the answer to it."""
    policy = _Policy(slug, version, tuple(_Check(**check) for check in checks))
    guard, placeholders = Guard(rules_of(policy)), Placeholders()
    decision = guard.check_before(Asked([Text(role, asked, _ASKED)]), placeholders)
    before = _outcome(guard, BEFORE, decision, _ASKED, asked)
    if answer is None:
        return Trial(before, None)
    decision = guard.check_texts([Text("assistant", answer, _ANSWERED)], placeholders)
    guard.check_answers([Answer(answer, "stop")], 0, decision)
    return Trial(before, _outcome(guard, AFTER, decision, _ANSWERED, answer))


def asked_guard(
    slug: str, version: int, checks: Iterable[Mapping[str, Any]]
) -> Callable[[Sequence[tuple[str, str]]], Decision]:
    """What valid ``checks`` say, once compiled, about ``(role, text)`` pairs of a request: for many of them."""
    guard = Guard(rules_of(_Policy(slug, version, tuple(_Check(**check) for check in checks))))

    def decide(texts: Sequence[tuple[str, str]]) -> Decision:
        asked = [Text(role, text, f"messages[{index}].content") for index, (role, text) in enumerate(texts)]
        return guard.check_before(Asked(asked), Placeholders())

    return decide


def _outcome(guard: Guard, stage: str, decision: Decision, where: str, text: str) -> Outcome:
    said = decision.texts.get(where, text)
    return Outcome(
        action=decision.action if decision.verdicts else ALLOW,
        text=said,
        changed=said != text,
        verdicts=tuple(decision.verdicts),
        unasked=_titles(guard.remote(stage)),
        advice=decision.advice,
    )


def _titles(rules: Sequence[Any]) -> tuple[str, ...]:
    return tuple(title({"kind": rule.check.kind, "stage": rule.check.stage}) for rule in rules)
