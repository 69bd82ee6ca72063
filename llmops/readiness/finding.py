"""A check of this installation, and what it found: evidence, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

ERRORS, SECURITY, COST, MONITORING, TESTING = "errors", "security", "cost", "monitoring", "testing"
CATEGORIES = {
    ERRORS: "Error handling",
    SECURITY: "Security",
    COST: "Cost",
    MONITORING: "Monitoring",
    TESTING: "Testing",
}
#: ``UNKNOWN``: it could not be looked at; ``NOTHING``: there is nothing here that it could judge.
MET, LACKING, NOTHING, UNKNOWN = "met", "lacking", "nothing", "unknown"
_NAMED = 4


@dataclass(frozen=True, slots=True)
class Finding:
    state: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Check:
    """``link`` is where it is mended: ``app.model`` of an admin's list, the name of a page, or that of a setting, in capitals.

    ``look`` reads the database and the settings, changes nothing and asks nobody outside.
    """

    id: str
    category: str
    title: str
    fix: str
    link: str
    look: Callable[[], Finding]


def met(evidence: str) -> Finding:
    return Finding(MET, evidence)


def lacking(evidence: str) -> Finding:
    return Finding(LACKING, evidence)


def nothing(evidence: str) -> Finding:
    return Finding(NOTHING, evidence)


def listed(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    shown = ", ".join(names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown


def every(judged: Collection[object], wrong: Sequence[str], what: str, how: str) -> Finding:
    """Whether none of what was judged is wrong: ``3 of 8 routes make one attempt only: chat, embed, rerank.``"""
    if not judged:
        return nothing(f"No {what}.")
    if wrong:
        return lacking(f"{len(wrong)} of {len(judged)} {what} {how}: {listed(wrong)}.")
    return met(f"All {len(judged)} {what}." if len(judged) > 1 else f"The only one of the {what}.")


def none_of(wrong: Sequence[str], how: str, good: str) -> Finding:
    """Whether there is none of what should not be."""
    return lacking(f"{len(wrong)} {how}: {listed(wrong)}.") if wrong else met(good)
