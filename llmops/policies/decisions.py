"""What checks decide together: verdicts, texts as they stand after it, placeholders for what was taken out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from llmops.core.stopping import go_on
from llmops.core.verdicts import ALLOW, BLOCK, MAX_VERDICTS, Finding, Verdict, bounded, strictest
from llmops.policies.checks.base import Check, Span, TextCheck
from llmops.policies.patterns import Pattern

PLACEHOLDER = Pattern(r"\[[A-Z][A-Z_]{1,30}_[0-9]{1,7}\]")


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
            self._taken.update(found.group() for found in PLACEHOLDER.matches(data))

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
        for found in PLACEHOLDER.matches(data):
            value = self.values.get(found.group())
            if value is not None:
                pieces += [data[at : found.start()], value]
                at = found.end()
        return b"".join((*pieces, data[at:])) if pieces else data


# ---------------------------------------------------------------------- texts


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def as_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def findings_of(spans: Sequence[Span], where: str) -> list[Finding]:
    counts: dict[str, int] = {}
    for span in spans:
        counts[span.name] = counts.get(span.name, 0) + 1
    return [Finding(name, where, count) for name, count in counts.items()]


def masked(check: TextCheck, data: bytes, span: Span, placeholders: Placeholders) -> bytes:
    if check.numbered:
        value = data[span.start : span.end]
        return placeholders.of(span.name, value, reversible=check.reversible).encode()
    return check.mask(data, span).encode()


def redacted(check: TextCheck, data: bytes, spans: Sequence[Span], placeholders: Placeholders) -> bytes:
    pieces, at = [], 0
    for span in spans:
        go_on()
        pieces += [data[at : span.start], masked(check, data, span, placeholders)]
        at = span.end
    return b"".join((*pieces, data[at:]))
