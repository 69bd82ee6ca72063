"""The forecast holds what it promises on days that behave, and admits what it cannot know."""

from __future__ import annotations

import random
from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from llmops.usage.forecast import LEVEL, LOOK_BACK, Forecast, forecast

TODAY = date(2026, 11, 16)  # a Monday


def told(costs: list[int], *, ahead: int = 14, spent: int = 0, left: float = 0.0) -> Forecast | None:
    history = [(TODAY - timedelta(days=len(costs) - index), cost) for index, cost in enumerate(costs)]
    return forecast(
        history,
        spent_nano=spent,
        days_ahead=[TODAY + timedelta(days=number) for number in range(1, ahead + 1)],
        today=TODAY,
        today_nano=0,
        today_left=left,
    )


def test_a_steady_spend_is_told_exactly() -> None:
    found = told([700] * 28, ahead=14, spent=11_200, left=0.5)
    assert found == Forecast(11_200 + 14 * 700 + 350, 11_200 + 14 * 700 + 350, 11_200 + 14 * 700 + 350, 28)


def test_weekends_are_expected_to_be_weekends() -> None:
    costs = [100 if (TODAY - timedelta(days=28 - n)).weekday() >= 5 else 1_000 for n in range(28)]
    # Five days after a Monday: four working days and a Saturday.
    found = told(costs, ahead=5)
    assert found is not None and found.expected_nano == 4_100 == found.low_nano


def test_too_few_days_say_nothing() -> None:
    assert told([5] * 6) is None
    assert told([0] * 22 + [5] * 6) is None
    assert told([0] * 21 + [5] * 7) is not None
    assert told([0] * 28) is None


@given(
    st.lists(st.integers(0, 10**15), max_size=40), st.integers(0, 90), st.integers(0, 10**15), st.floats(0, 1)
)
def test_the_range_holds_together(costs: list[int], ahead: int, spent: int, left: float) -> None:
    found = told(costs, ahead=ahead, spent=spent, left=left)
    if found is not None:
        assert spent <= found.low_nano <= found.expected_nano <= found.high_nano
        assert found.days <= LOOK_BACK


def covered(days: list[list[int]], ahead: int) -> float:
    inside = 0
    for costs in days:
        found = told(costs[:28], ahead=ahead)
        assert found is not None
        inside += found.low_nano <= sum(costs[28:]) <= found.high_nano
    return 100 * inside / len(days)


def test_about_four_in_five_end_within_the_range() -> None:
    """Also where each day resembles the one before."""
    pick = random.Random(3)
    independent = [[int(pick.gauss(10_000, 2_500)) for _ in range(42)] for _ in range(600)]
    assert LEVEL - 7 <= covered(independent, 14) <= LEVEL + 7
    clinging = []
    for _ in range(600):
        level, costs = 0.0, []
        for _ in range(42):
            level = 0.5 * level + pick.gauss(0, 1_500)
            costs.append(int(10_000 + level))
        clinging.append(costs)
    assert LEVEL - 14 <= covered(clinging, 14) <= LEVEL + 7
