"""Error budgets and how fast they burn. Pure.

Source: *The Site Reliability Workbook* (Beyer et al., Google, 2018), chapter 5, "Alerting on SLOs"
(https://sre.google/workbook/alerting-on-slos/): the formulas of its tables, and the multiwindow, multi-burn-rate alerts of its
section 6. A burn rate of 1 spends the whole budget in exactly the SLO's window. Windows are seconds, targets shares (0.999),
burn rates have no unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MINUTE, HOUR, DAY = 60, 3_600, 86_400
CRITICAL, WARNING, INFO = "critical", "warning", "info"


@dataclass(frozen=True, slots=True)
class Policy:
    """Alerts while both windows burn at least at ``rate``: the long one says that it matters, the short one that it goes on."""

    long_s: int
    short_s: int
    rate: float
    severity: str


#: Fastest first. The first two page somebody, the others can wait for the morning.
POLICIES = (
    Policy(HOUR, 5 * MINUTE, 14.4, CRITICAL),
    Policy(6 * HOUR, 30 * MINUTE, 6.0, CRITICAL),
    Policy(DAY, 2 * HOUR, 3.0, WARNING),
    Policy(3 * DAY, 6 * HOUR, 1.0, WARNING),
)


@dataclass(frozen=True, slots=True)
class Count:
    """Events of a window that count for the objective, and those of them that missed it."""

    bad: int = 0
    valid: int = 0

    @property
    def ratio(self) -> float:
        return self.bad / self.valid if self.valid else 0.0


def budget(target: float) -> float:
    """The share of events that may miss a target of ``0 < target < 1``. Raises ``ValueError`` for any other."""
    if not 0 < target < 1:
        raise ValueError("a target lies between 0 and 1, both excluded: at 1 there is no budget to burn")
    return 1.0 - target


def burn_rate(count: Count, target: float) -> float:
    return count.ratio / budget(target)


def reaches(rate: float, bound: float) -> bool:
    """Whether a burn rate is at a bound or above; 1 - 0.999 is not exactly a thousandth."""
    return rate >= bound * (1 - 1e-9)


def budget_spent(rate: float, window_s: float, period_s: float) -> float:
    """The share of a period's budget that burning at ``rate`` for ``window_s`` costs."""
    return rate * window_s / period_s


def rate_that_spends(share: float, window_s: float, period_s: float) -> float:
    """The burn rate that costs ``share`` of the budget within ``window_s``."""
    return share * period_s / window_s


def time_to_exhaustion(rate: float, period_s: float) -> float:
    """Seconds until a whole budget is gone."""
    return period_s / rate


def detection_time(target: float, error_ratio: float, window_s: float, rate: float) -> float:
    """Seconds from the beginning of an outage of ``error_ratio`` (0..1) until a window alerts at ``rate``."""
    return budget(target) / error_ratio * window_s * rate


def budget_left(count: Count, target: float) -> float:
    """The share of the period's budget that is left: 1 is all of it, below 0 the objective is missed."""
    return 1.0 - burn_rate(count, target)


@dataclass(frozen=True, slots=True)
class Burning:
    policy: Policy
    long: Count
    short: Count
    long_rate: float
    short_rate: float


def burning(
    counted: Callable[[int], Count],
    target: float,
    *,
    fewest: int = 1,
    policies: tuple[Policy, ...] = POLICIES,
) -> Burning | None:
    """The fastest policy that alerts, or None. ``counted`` gives the events of the last so many seconds.

    ``fewest``: bad events that the long window must hold. One failure in three calls is a burn rate of 333 at three nines,
    and no reason to wake anybody (the workbook's "low-traffic services").
    """
    for policy in policies:
        long = counted(policy.long_s)
        if long.bad < fewest or not reaches(burn_rate(long, target), policy.rate):
            continue
        short = counted(policy.short_s)
        if reaches(burn_rate(short, target), policy.rate):
            return Burning(policy, long, short, burn_rate(long, target), burn_rate(short, target))
    return None
