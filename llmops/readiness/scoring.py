"""Points for what was found: 25, five for each category. Pure.

A category's points are the share of its checks that are met, among those that have something to judge. What could not be looked at
counts as lacking: nobody is ready by a fault. A category with nothing to judge has no points yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llmops.readiness.finding import CATEGORIES, MET, NOTHING

POINTS = 25
OF_A_CATEGORY = POINTS // len(CATEGORIES)


@dataclass(frozen=True, slots=True)
class Score:
    """``tenths`` of a point, so that sums are whole numbers."""

    tenths: int
    met: int
    judged: int

    @property
    def points(self) -> str:
        return f"{self.tenths // 10}.{self.tenths % 10}" if self.tenths % 10 else str(self.tenths // 10)


def of_category(states: Iterable[str]) -> Score:
    judged = [state for state in states if state != NOTHING]
    good = judged.count(MET)
    # Rounded down: 5 points only when everything is met.
    return Score(10 * OF_A_CATEGORY * good // len(judged) if judged else 0, good, len(judged))


def together(scores: Iterable[Score]) -> Score:
    found = list(scores)
    return Score(sum(s.tenths for s in found), sum(s.met for s in found), sum(s.judged for s in found))
