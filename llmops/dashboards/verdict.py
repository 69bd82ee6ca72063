"""Is anything wrong? One sentence, and what speaks for it. Pure.

The thresholds are those an on-call engineer would be woken for (bad) or would look at over coffee (warn); few calls say
little, so shares count from ``ENOUGH_CALLS`` on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from llmops.dashboards import formats

Level = Literal["ok", "warn", "bad", "quiet"]

ENOUGH_CALLS = 20
FAILED_WARN, FAILED_BAD = 0.01, 0.05
FALLBACK_WARN = 0.05
SLOWER_WARN = 1.5
BUDGET_WARN = 0.9
#: signal of an answer's quality (``usage.signals``) -> (what such answers did, the share that warns, the share that is bad)
QUALITY = {
    "truncated": ("were cut off at the output cap", 0.02, 0.10),
    "filtered": ("were stopped by the provider's content filter", 0.02, 0.10),
    "declined": ("were refusals by the model", 0.02, 0.10),
    "schema_failed": ("broke the schema that they were asked for", 0.01, 0.05),
    "lazy": ("left out what was asked for", 0.02, 0.10),
}
#: Callers who set a cap get what they asked for: worth a note, so that whoever wonders about short answers finds why.
CAPPED_NOTE = 0.10


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    text: str
    query: str = ""
    place: Literal["calls", "budgets", ""] = "calls"
    #: of an object's own page; empty where there is none that the reader may see
    href: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    level: Level
    headline: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Paused:
    """A route or provider that somebody paused or (``how``) degraded; ``kind`` is "Route" or "Provider"."""

    kind: str
    name: str
    reason: str
    href: str = ""
    how: str = "paused"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A provider key in use that data planes cannot read; ``only`` says that its provider has no other that they can."""

    name: str
    reason: str
    processes: int
    only: bool
    href: str = ""


@dataclass(frozen=True, slots=True)
class Avoided:
    """A target that data planes leave alone, or a provider key that its provider refuses; ``text`` is the sentence."""

    text: str
    href: str = ""


@dataclass(frozen=True, slots=True)
class Spent:
    """A budget; amounts in nanodollars, ``used_up`` is what happens to calls, empty as long as they fit."""

    name: str
    used: int
    limit: int
    hard: bool
    used_up: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Counts of the period and of the one before; durations in microseconds."""

    calls: int
    failed: int
    refused: int
    unknown: int
    fallback: int
    p95_us: float | None
    calls_before: int
    p95_before_us: float | None
    worst_error: str = ""
    worst_error_calls: int = 0
    refusal: str = ""
    refusal_calls: int = 0
    budgets: Sequence[Spent] = ()
    paused: Sequence[Paused] = ()
    unreadable: Sequence[Unreadable] = ()
    avoided: Sequence[Avoided] = ()
    signals: Mapping[str, int] = field(default_factory=dict)


def judge(facts: Facts, *, period: str) -> Verdict:
    findings = [*_configured(facts), *_budgets(facts), *_calls(facts), *quality(facts.calls, facts.signals)]
    notes = noted(facts.calls, facts.signals)
    findings.sort(key=lambda finding: ("bad", "warn", "ok", "quiet").index(finding.level))
    if findings:
        level = findings[0].level
        number = len(findings)
        headline = "One thing needs a look" if number == 1 else f"{number} things need a look"
        if level == "bad":
            headline = "Something is wrong" if number == 1 else f"Something is wrong, {number} findings"
        return Verdict(level, headline, (*findings, *notes))
    if not facts.calls:
        return Verdict("quiet", f"No calls in {period}", ())
    return Verdict("ok", "Nothing looks wrong", tuple(notes))


def _configured(facts: Facts) -> list[Finding]:
    found = []
    for key in facts.unreadable:
        who = "a data plane" if key.processes == 1 else f"{formats.count(key.processes)} data planes"
        what = "its provider has no other key there" if key.only else "its provider's other keys are used"
        text = f"Provider key {key.name} cannot be read by {who}, and {what}. {key.reason}"
        found.append(Finding("bad" if key.only else "warn", text, place="", href=key.href))
    found += [Finding("warn", one.text, place="", href=one.href) for one in facts.avoided]
    for one in facts.paused:
        why = f": {one.reason}" if one.reason else ""
        found.append(Finding("warn", f"{one.kind} {one.name} is {one.how}{why}", place="", href=one.href))
    return found


def _calls(facts: Facts) -> list[Finding]:
    found = []
    if facts.failed and facts.calls:
        share = facts.failed / facts.calls
        level: Level | None = None
        if facts.calls >= ENOUGH_CALLS:
            level = "bad" if share >= FAILED_BAD else "warn" if share >= FAILED_WARN else None
        elif facts.failed == facts.calls:
            level = "bad"
        if level:
            most = ""
            if facts.worst_error:
                most = f", {_how_many(facts.worst_error_calls, facts.failed)} {facts.worst_error}"
            found.append(
                Finding(
                    level,
                    f"{formats.percent(facts.failed, facts.calls)} of calls failed ({formats.count(facts.failed)}{most})",
                    query="status=failed",
                )
            )
    if facts.unknown:
        found.append(
            Finding(
                "warn",
                f"{formats.count(facts.unknown)} {_calls_word(facts.unknown)} with an unknown outcome, charged at the full hold",
                query="status=unknown",
            )
        )
    if facts.refused:
        why = f", {_how_many(facts.refusal_calls, facts.refused)} {facts.refusal}" if facts.refusal else ""
        found.append(
            Finding(
                "warn",
                f"{formats.count(facts.refused)} {_calls_word(facts.refused)} refused by the console itself{why}",
                query="status=refused",
            )
        )
    if facts.calls >= ENOUGH_CALLS and facts.fallback / facts.calls >= FALLBACK_WARN:
        found.append(
            Finding(
                "warn",
                f"{formats.percent(facts.fallback, facts.calls)} of calls were answered by a fallback",
                query="fallback=1",
            )
        )
    slower = facts.p95_us and facts.p95_before_us and facts.p95_us >= SLOWER_WARN * facts.p95_before_us
    if slower and min(facts.calls, facts.calls_before) >= ENOUGH_CALLS:
        found.append(
            Finding(
                "warn",
                f"One call in twenty takes longer than {formats.duration(facts.p95_us)}; before it was "
                f"{formats.duration(facts.p95_before_us)}",
                query="",
            )
        )
    return found


def quality(calls: int, signals: Mapping[str, int]) -> list[Finding]:
    """What so many answers had wrong with them that it is worth a look, of ``calls`` in all."""
    found = []
    for name, (did, warn, bad) in QUALITY.items():
        seen = signals.get(name, 0)
        if calls < ENOUGH_CALLS or seen / calls < warn:
            continue
        level: Level = "bad" if seen / calls >= bad else "warn"
        text = f"{formats.percent(seen, calls)} of calls {did} ({formats.count(seen)})"
        found.append(Finding(level, text, query=f"signal={name}"))
    return found


def noted(calls: int, signals: Mapping[str, int]) -> list[Finding]:
    """What is as its callers asked for and yet good to know."""
    seen = signals.get("capped", 0)
    if calls < ENOUGH_CALLS or seen / calls < CAPPED_NOTE:
        return []
    text = f"{formats.percent(seen, calls)} of calls were cut off at the cap that their caller set ({formats.count(seen)})"
    return [Finding("ok", text, query="signal=capped")]


def _budgets(facts: Facts) -> list[Finding]:
    found = []
    for one in facts.budgets:
        if not one.limit or one.used / one.limit < BUDGET_WARN:
            continue
        what = f"is {formats.percent(one.used, one.limit)} used or held"
        if one.used_up:
            what = f"is {one.used_up}"
        elif not one.hard and one.used >= one.limit:
            what = "is used up (soft: calls go on)"
        found.append(Finding("bad" if one.used_up else "warn", f"Budget {one.name} {what}", place="budgets"))
    return found


def _how_many(part: int, whole: int) -> str:
    if part == whole:
        return "with" if whole == 1 else "all with"
    return f"{formats.count(part)} with"


def _calls_word(number: int) -> str:
    return "call" if number == 1 else "calls"
