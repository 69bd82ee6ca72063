"""Burn rates against what *The Site Reliability Workbook*, chapter 5, "Alerting on SLOs", prints: its tables, and the figures that its text
states (https://sre.google/workbook/alerting-on-slos/). Table numbers are those of the published page."""

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
    # Table 5-4: burn rate, error rate for a 99.9 % SLO, time to exhaustion ("43 minutes").
    [(1, 0.001, 30 * DAY), (2, 0.002, 15 * DAY), (10, 0.01, 3 * DAY), (1000, 1.0, 43.2 * MINUTE)],
)
def test_burn_rates_and_time_to_exhaustion(rate: float, error_ratio: float, seconds: float) -> None:
    count = Count(bad=round(error_ratio * 100_000), valid=100_000)
    assert burn.burn_rate(count, THREE_NINES) == pytest.approx(rate)
    assert burn.time_to_exhaustion(rate, MONTH) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("share", "window", "rate"),
    # Tables 5-6 and 5-8: budget consumption, window, burn rate; and the alert of a day that the example configuration adds.
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


@pytest.mark.parametrize(
    ("error_ratio", "window", "rate", "seconds"),
    [
        # Table 5-1: "Detection time is good: 0.6 seconds for a total outage" (ten minutes, no burn rate).
        (1.0, 10 * MINUTE, 1, 0.6),
        # Table 5-2: "2 minutes and 10 seconds for a complete outage" (36 hours).
        (1.0, 36 * HOUR, 1, 2 * MINUTE + 10),
        # Section 6: of 15 % errors "the long window average goes over the threshold after 5 minutes" (an hour, 14.4; 5.76).
        (0.15, HOUR, 14.4, 5 * MINUTE),
    ],
)
def test_detection_times_are_those_that_the_chapter_states(
    error_ratio: float, window: int, rate: float, seconds: float
) -> None:
    found = burn.detection_time(THREE_NINES, error_ratio, window, rate)
    # The chapter cuts off: to tenths of a second, to ten seconds, to minutes.
    step = 0.1 if seconds < 1 else 10 if seconds < 3 * MINUTE else MINUTE
    assert found // step * step == pytest.approx(seconds) or found == pytest.approx(seconds, abs=step / 10)


def test_what_the_chapter_says_of_a_burn_rate_of_36() -> None:
    # "Five percent of a 30-day error budget spend over one hour requires a burn rate of 36."
    assert burn.rate_that_spends(0.05, HOUR, MONTH) == pytest.approx(36)
    # Table 5-5: "Better reset time: 58 minutes": what is left of the hour after a total outage was found.
    found = burn.detection_time(THREE_NINES, 1.0, HOUR, 36)
    assert round((HOUR - found) / MINUTE) == 58
    # "A 35x burn rate never alerts, but consumes all of the 30-day error budget in 20.5 hours" (20.57, cut off).
    assert int(10 * burn.time_to_exhaustion(35, MONTH) / HOUR) / 10 == 20.5
    assert not burn.reaches(35, 36)


def test_what_the_chapter_says_of_few_calls_and_of_extreme_goals() -> None:
    # "10 requests per hour, then a single failed request results in an hourly error rate of 10%": 100 times what may fail (the page
    # prints 1,000x, which is that of an hour that fails whole). "It consumed 13.9% of the 30-day error budget", which "allows for
    # only seven failed requests in 30 days".
    assert burn.burn_rate(Count(1, 10), THREE_NINES) == pytest.approx(100)
    month = Count(1, 10 * 24 * 30)
    assert 1 - burn.budget_left(month, THREE_NINES) == pytest.approx(0.139, abs=0.0005)
    assert int(burn.budget(THREE_NINES) * month.valid) == 7
    # "A 90% availability target ... a 100% outage consumes only 1.4% of the budget in that hour, this alert could never fire."
    outage = burn.burn_rate(Count(100, 100), 0.9)
    assert burn.budget_spent(outage, HOUR, MONTH) == pytest.approx(0.014, abs=0.0002)
    assert not burn.reaches(outage, burn.POLICIES[0].rate)
    # "99.999% would exhaust its budget in 26 seconds"; at 1 % of the users "you now have 43 minutes".
    for share, seconds in ((1.0, 26), (0.01, 43 * MINUTE)):
        rate = burn.burn_rate(Count(round(1000 * share), 1000), 0.99999)
        assert burn.time_to_exhaustion(rate, MONTH) == pytest.approx(seconds, rel=0.006)


def test_the_course_that_figure_5_6_draws() -> None:
    """15 % errors for ten minutes, a call each second: the alert begins when the long window is over its bound, ends five minutes
    after the errors, and the long window alone would have gone on for an hour."""
    began, ended = 2 * HOUR, 2 * HOUR + 10 * MINUTE

    def bad(until: float) -> float:
        return 0.15 * (min(max(until, began), ended) - began)

    page = burn.POLICIES[0]

    def over(seconds: int, now: int) -> bool:
        count = Count(round(1000 * (bad(now) - bad(now - seconds))), 1000 * seconds)
        return burn.reaches(burn.burn_rate(count, THREE_NINES), page.rate)

    times = range(began, ended + 2 * HOUR)
    long = [now for now in times if over(page.long_s, now)]
    short = [now for now in times if over(page.short_s, now)]
    both = sorted({*long} & {*short})
    assert both == list(range(both[0], both[-1] + 1)), "it begins and ends once"
    # "After experiencing 15% errors for 10 minutes, the short window average goes over the alerting threshold immediately, and the
    # long window average goes over the threshold after 5 minutes, at which point the alert starts firing."
    assert short[0] - began < MINUTE / 2
    assert both[0] == long[0] and (both[0] - began) // MINUTE == 5
    # "The short window average drops below the threshold 5 minutes after the errors stop, at which point the alert stops firing."
    assert both[-1] == short[-1] and round((both[-1] - ended) / MINUTE) == 5
    # "The long window average drops below the threshold 60 minutes after the errors stop" (54, at the figures of the text).
    assert 54 <= (long[-1] - ended) / MINUTE <= 60
    # It spent what the table says when it began to fire: 2 %.
    assert bad(both[0]) / (burn.budget(THREE_NINES) * MONTH) == pytest.approx(0.02, rel=0.01)


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
