"""Holding and settling against leased money, in memory (escrow: O'Neil 1986). Pure and single-threaded.

A process leases money of a window from the database and spends it here without asking anybody. For every account

    available = granted - returned - spent - held  >= 0

at every instant. ``granted`` and ``returned`` mirror the lease row; ``spent`` is what this process has settled, whether
or not its journal has been booked yet. Belongs to one event loop: no locks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Account:
    """This process's share of one window of a hard budget. Amounts in nanodollars, times Unix seconds."""

    window: int
    budget: str
    starts: float
    ends: float | None
    limit: int
    granted: int = 0
    returned: int = 0
    spent: int = 0
    held: int = 0
    #: the window's state as the database told it last: what nobody has leased or spent
    unleased: int = 0
    last_used: float = 0.0
    #: leased money may not be used after this moment (monotonic seconds): the lease may have been charged whole
    usable_until: float = float("inf")

    @property
    def available(self) -> int:
        return self.granted - self.returned - self.spent - self.held

    def current(self, now: float) -> bool:
        """Whether ``now`` (Unix seconds) lies in the window."""
        return self.starts <= now and (self.ends is None or now < self.ends)


@dataclass(slots=True)
class Hold:
    """The same amount held on every account a call touches; ended exactly once by ``settle``."""

    accounts: Sequence[Account]
    amount: int
    ended: bool = field(default=False)


@dataclass(slots=True, frozen=True)
class Shortfall:
    """The account with the least money, and how much is missing there."""

    account: Account
    missing: int


def hold(accounts: Sequence[Account], amount: int, *, now: float) -> Hold | Shortfall:
    """Hold ``amount`` on all accounts or on none; ``now`` is Unix seconds (marks the accounts as in use)."""
    fits = True
    for account in accounts:
        account.last_used = now
        fits = fits and account.available >= amount
    if not fits:
        least = min(accounts, key=lambda account: account.available)
        return Shortfall(least, amount - least.available)
    for account in accounts:
        account.held += amount
    return Hold(accounts, amount)


def settle(held: Hold, cost: int) -> tuple[int, int]:
    """End a hold at ``cost``; what was held beyond it becomes available again.

    Returns ``(spent, overrun)``: at most the hold is spent, the rest is the overrun, which no lease pays for.
    """
    if held.ended:
        raise RuntimeError("a hold ends once")
    held.ended = True
    spent = min(cost, held.amount)
    for account in held.accounts:
        account.held -= held.amount
        account.spent += spent
    return spent, cost - spent


def surplus(account: Account, *, keep: int) -> int:
    """What an account could give back while keeping ``keep`` available."""
    return max(0, account.available - keep)


def lease_size(*, need: int, comfort: int, unleased: int, share: int = 8) -> int:
    """How much to ask for when calls wait for ``need`` and ``comfort`` would be good to have.

    The need, and beyond it no more than ``1/share`` of what nobody has leased (as far as is known), so that other
    processes find some: leases shrink as a window fills, and are exact at its end.
    """
    return max(need, min(comfort, max(0, unleased) // share), 0)
