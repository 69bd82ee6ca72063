"""Burn rates against the tables that *The Site Reliability Workbook*, chapter 5, prints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.alerts import burn
from llmops.alerts.burn import DAY, HOUR, MINUTE, Count

MONTH = 30 * DAY
THREE_NINES = 0.999


@pytest.mark.parametrize(
    ("rate", "error_ratio", "seconds"),
    # Table 5-2: burn rate, error rate for a 99.9 % SLO, time to exhaustion.
    [(1, 0.001, 30 * DAY), (2, 0.002, 15 * DAY), (10, 0.01, 3 * DAY), (1000, 1.0, 43.2 * MINUTE)],
)
def test_burn_rates_and_time_to_exhaustion(rate: float, error_ratio: float, seconds: float) -> None:
    count = Count(bad=round(error_ratio * 100_000), valid=100_000)
    assert burn.burn_rate(count, THREE_NINES) == pytest.approx(rate)
    assert burn.time_to_exhaustion(rate, MONTH) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("share", "window", "rate"),
    # Table 5-6: budget consumption, window, burn rate; and the alert of a day that its example configuration adds.
    [(0.02, HOUR, 14.4), (0.05, 6 * HOUR, 6), (0.10, 3 * DAY, 1), (0.10, DAY, 3)],
)
def test_recommended_rates_spend_the_budget_that_the_table_says(
    share: float, window: int, rate: float
) -> None:
    assert burn.rate_that_spends(share, window, MONTH) == pytest.approx(rate)
    assert burn.budget_spent(rate, window, MONTH) == pytest.approx(share)
    assert rate in {policy.rate for policy in burn.POLICIES if policy.long_s == window}


def test_the_policies_are_the_published_ones() -> None:
    # Table 5-8 and the configuration below it; the short window is a twelfth of the long one.
    found = [(policy.long_s, policy.short_s, policy.rate, policy.severity) for policy in burn.POLICIES]
    assert found == [
        (HOUR, 5 * MINUTE, 14.4, "critical"),
        (6 * HOUR, 30 * MINUTE, 6.0, "critical"),
        (DAY, 2 * HOUR, 3.0, "warning"),
        (3 * DAY, 6 * HOUR, 1.0, "warning"),
    ]
    assert all(policy.long_s == 12 * policy.short_s for policy in burn.POLICIES)


def test_the_policies_are_those_that_others_took_from_the_same_tables() -> None:
    # Percent of a 30-day budget, long and short window, page or ticket: ``internal/alert/windows/google-30d.yaml`` of
    # github.com/slok/sloth (7833d8b), which names the chapter as its source.
    published = [
        (2, HOUR, 5 * MINUTE, "page"),
        (5, 6 * HOUR, 30 * MINUTE, "page"),
        (10, DAY, 2 * HOUR, "ticket"),
        (10, 3 * DAY, 6 * HOUR, "ticket"),
    ]
    severities = {"page": "critical", "ticket": "warning"}
    for policy, (percent, long_s, short_s, way) in zip(burn.POLICIES, published, strict=True):
        assert (policy.long_s, policy.short_s, policy.severity) == (long_s, short_s, severities[way])
        assert burn.rate_that_spends(percent / 100, long_s, MONTH) == pytest.approx(policy.rate)


def test_detection_time() -> None:
    # "Target error rate >= SLO threshold": 0.6 s over ten minutes in a full outage (table 5-1's text); and a burn rate of 36
    # over an hour alerts after 5 % of the budget: ((1 - SLO) / error ratio) * window * burn rate.
    assert burn.detection_time(THREE_NINES, 1.0, 10 * MINUTE, 1) == pytest.approx(0.6)
    # "Increased alert window": two minutes and ten seconds over 36 hours.
    assert burn.detection_time(THREE_NINES, 1.0, 36 * HOUR, 1) == pytest.approx(2 * MINUTE + 10, abs=0.5)
    assert burn.detection_time(THREE_NINES, 1.0, HOUR, 14.4) == pytest.approx(51.84)
    assert burn.budget_spent(36, HOUR, MONTH) == pytest.approx(0.05)


def windows(ratios: dict[int, float], valid: int = 100_000) -> object:
    return lambda seconds: Count(round(ratios[seconds] * valid), valid)


QUIET = {policy.long_s: 0.0 for policy in burn.POLICIES} | {policy.short_s: 0.0 for policy in burn.POLICIES}


@pytest.mark.parametrize("policy", burn.POLICIES)
def test_both_windows_must_burn(policy: burn.Policy) -> None:
    at = policy.rate * 0.001
    both = {**QUIET, policy.long_s: at, policy.short_s: at}
    found = burn.burning(windows(both), THREE_NINES)  # type: ignore[arg-type]
    assert found is not None and found.policy == policy
    assert burn.burning(windows({**both, policy.long_s: at * 0.98}), THREE_NINES) is None  # type: ignore[arg-type]
    # It is over: the short window says so long before the long one does.
    assert burn.burning(windows({**both, policy.short_s: 0.0}), THREE_NINES) is None  # type: ignore[arg-type]


def test_the_fastest_is_told_and_few_failures_wake_nobody() -> None:
    everything = dict.fromkeys(QUIET, 1.0)
    found = burn.burning(windows(everything), THREE_NINES)  # type: ignore[arg-type]
    assert found is not None and found.policy is burn.POLICIES[0]
    assert burn.burning(windows(everything, valid=3), THREE_NINES, fewest=5) is None  # type: ignore[arg-type]
    assert burn.burning(lambda _: Count(), THREE_NINES) is None


@given(bad=st.integers(0, 10_000), more=st.integers(0, 10_000), target=st.floats(0.5, 0.99999))
def test_budget_left_and_burn_rate_are_two_sides_of_one(bad: int, more: int, target: float) -> None:
    count = Count(bad, bad + more)
    assert burn.budget_left(count, target) == pytest.approx(1 - burn.burn_rate(count, target))
    if count.valid:
        # Exactly on target nothing is left, and nothing is owed.
        allowed = (1 - target) * count.valid
        assert (burn.budget_left(count, target) >= -1e-9) == (bad <= allowed + 1e-6)


@pytest.mark.parametrize("target", [0, 1, 1.5, -0.1])
def test_a_target_leaves_a_budget(target: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        burn.budget(target)
