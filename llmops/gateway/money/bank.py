"""What a purse and its bank say to each other: accounts, commands, and what is told in answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from llmops.budgets.escrow import Account
from llmops.serving.snapshot import BudgetEntry


@dataclass(slots=True)
class Pot(Account):
    """An account with what the purse needs to know to run it. Amounts in nanodollars, moments monotonic seconds."""

    #: of the window as the database told it last
    settled: int = 0
    consumed: int = 0
    #: the budget's limit at the time, raises included; the window's own may differ by what was carried over
    for_limit: int = 0
    #: reserved to go back, not yet confirmed by the database
    returning: int = 0
    #: what is worth having at the present rate, and below which more is asked for
    level: int = 0
    low_water: int = 0
    rate: float = 0.0
    seen_spent: int = 0
    seen_at: float = 0.0
    most_held: int = 0
    #: a question is under way
    asked: bool = False
    #: how many questions were answered
    told: int = 0
    failed_at: float = float("-inf")
    dry_until: float = float("-inf")
    top_up_after: float = float("-inf")


class WindowTold(Protocol):
    """``budgets.services.WindowState``."""

    @property
    def window_id(self) -> int: ...
    @property
    def limit_nano(self) -> int: ...
    @property
    def settled_nano(self) -> int: ...
    @property
    def leased_nano(self) -> int: ...


class LeaseTold(Protocol):
    """``budgets.services.LeaseState``: totals of this process's lease, and the state of its window."""

    @property
    def granted_nano(self) -> int: ...
    @property
    def returned_nano(self) -> int: ...
    @property
    def consumed_nano(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def limit_nano(self) -> int: ...
    @property
    def settled_nano(self) -> int: ...
    @property
    def leased_nano(self) -> int: ...


@dataclass(slots=True, frozen=True)
class Open:
    """Open the window that holds ``at`` (Unix seconds), and tell what this process has leased of it already."""

    budget: BudgetEntry
    at: float
    ahead: bool = False


@dataclass(slots=True, frozen=True)
class More:
    """Lease ``want`` of an open window, or as much as there is; ``need`` is what calls wait for."""

    pot: Pot
    need: int
    want: int


@dataclass(slots=True, frozen=True)
class GiveBack:
    """Return ``amount``, which is set aside already."""

    pot: Pot
    amount: int


Command = Open | More | GiveBack
Bank = Callable[[Command], None]


@dataclass(slots=True, frozen=True)
class Short:
    """Not enough money: on which budget, what could be held at once, and what of its limit is spent for good."""

    budget: BudgetEntry
    left: int
    spent: int
    limit: int
    ends: float | None
    #: the window's id
    window: int = 0
