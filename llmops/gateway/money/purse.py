"""The leased money of this process: which accounts it has, who waits for more, what goes back. Belongs to the event loop.

``Purse`` decides and never waits for a database; what it wants done it hands to a ``Bank`` (in production the keeper
thread), whose answers come back on the loop as calls of the ``told_*`` methods. Answers carry the totals of a lease, so
a lost one is made good by the next.

Times: ``now`` is Unix seconds, ``mono`` monotonic seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf

from llmops.budgets import escrow
from llmops.budgets.escrow import Hold
from llmops.core.errors import ServiceUnavailable
from llmops.gateway.money.bank import Bank, Command, GiveBack, LeaseTold, More, Open, Pot, Short, WindowTold
from llmops.gateway.throttling.sharing import Crowd, many
from llmops.serving.snapshot import BudgetEntry

#: The lease covers this many seconds at the present rate, so that calls go on while the database is away.
HORIZON_S = 120.0
#: More is asked for in the background when less than this many seconds' worth is left.
LOW_WATER_S = 75.0
#: An account nobody used for so long gives everything back.
IDLE_S = 3.0
TICK_S = 1.0
#: How long a call waits for the database to answer.
PATIENCE_S = 3.0
#: How long a call waits at the limit for money that other calls hold and may not need.
RELEASE_PATIENCE_S = 1.0
#: A window that had nothing left is not asked again sooner than this.
DRY_S = 0.25
#: Calls that may wait for money at a time, over all budgets, which share these places; more are refused at once.
MAX_WAITING = 1_000
#: The next window is opened this long before the present one ends.
PREPARE_S = 5.0
#: A lease that calls wait for covers so many calls like them, where ...
FIRST_CALLS = 16
#: ... that is no more than this part of what nobody has leased: other processes must find some.
SHARE = 8
RATE_SMOOTHING = 0.3


class Purse:
    """``bank`` takes commands without blocking."""

    def __init__(
        self,
        bank: Bank,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bank = bank
        self.clock = clock
        self.monotonic = monotonic
        self.pots: dict[str, Pot] = {}
        #: of the next window, opened ahead of time
        self.next_pots: dict[str, Pot] = {}
        #: of windows that ended or budgets that were changed, until their calls have ended
        self.past: list[Pot] = []
        self._entries: dict[str, BudgetEntry] = {}
        self._opening: set[tuple[str, bool]] = set()
        self._open_failed: dict[str, float] = {}
        #: calls that wait, with the budget and the amount they wait for
        self._waiting: dict[asyncio.Future[None], tuple[str, int]] = {}
        self._crowd = Crowd()
        #: calls that make up their minds about what they can afford, by budget
        self._weighing: Counter[str] = Counter()
        self._closed = False

    # ------------------------------------------------------------------ on the way of a call

    def hold_now(self, budgets: Sequence[BudgetEntry], amount: int) -> Hold | None:
        """Hold on every budget at once without waiting, or None when any of them has too little here."""
        now, mono = self.clock(), self.monotonic()
        pots, low = [], False
        for budget in budgets:
            pot = self._usable(budget, now, mono)
            if pot is None or (left := pot.available - amount) < 0:
                return None
            pots.append(pot)
            low = low or left < pot.low_water
        if low:
            for pot in pots:
                if pot.available - amount < pot.low_water and mono >= pot.top_up_after and not pot.asked:
                    pot.top_up_after = mono + TICK_S
                    self._ask(pot, 0)
        held = escrow.hold(pots, amount, now=now)
        return held if isinstance(held, Hold) else None

    async def hold(self, budgets: Sequence[BudgetEntry], amount: int, *, wait: bool = True) -> Hold | Short:
        """Hold on every budget or on none, asking the database for more where needed.

        With ``wait`` a call at the limit waits a moment for money that other calls of this process hold and may not
        need. Raises ``ServiceUnavailable`` when the database does not answer in time and what is leased does not do.
        """
        started = self.monotonic()
        told: dict[int, int] = {}
        while True:
            if (held := self.hold_now(budgets, amount)) is not None:
                return held
            waited = self.monotonic() - started
            asked, short, hopeful = self._survey(budgets, amount, started, told)
            if short is not None and not (wait and hopeful and waited < RELEASE_PATIENCE_S):
                return short
            if waited >= PATIENCE_S or not self._may_wait(asked or budgets[0]):
                if short is not None:
                    return short
                raise no_answer(asked or budgets[0])
            await self._wait(DRY_S, asked or budgets[0], amount)

    def _survey(
        self, budgets: Sequence[BudgetEntry], amount: int, started: float, told: dict[int, int]
    ) -> tuple[BudgetEntry | None, Short | None, bool]:
        """Ask for what is missing: a budget whose answer is due, one that is known to lack money, and whether the calls
        under way here hold enough to make up for it. ``told`` remembers which answers are older than the call."""
        now, mono = self.clock(), self.monotonic()
        asked: BudgetEntry | None = None
        short: Short | None = None
        hopeful = True
        for budget in budgets:
            pot = self._usable(budget, now, mono)
            failed_at = self._open_failed.get(budget.id, -inf) if pot is None else pot.failed_at
            if (pot is None or pot.available < amount) and failed_at >= min(started, mono - DRY_S):
                raise no_answer(budget)
            if pot is None:
                self._open(budget, now)
                asked = budget
            elif pot.available < amount:
                known = pot.told > told.setdefault(pot.window, pot.told) or mono < pot.dry_until
                if mono >= pot.dry_until:
                    self._ask(pot, amount)
                if pot.asked and not known:
                    asked = budget
                else:
                    short = self._short(budget, pot)
                    hopeful = hopeful and pot.available + pot.held >= amount
        return asked, short, hopeful

    @contextmanager
    def weighing(self, budgets: Sequence[BudgetEntry]) -> Iterator[None]:
        """As long as the block lasts, nothing that is here goes back unasked: a call that asked for more than there is may do
        with less of it."""
        ids = [budget.id for budget in budgets]
        self._weighing.update(ids)
        try:
            yield
        finally:
            self._weighing.subtract(ids)
            for budget_id in ids:
                if not self._weighing[budget_id]:
                    del self._weighing[budget_id]

    def settle(self, held: Hold, cost: int) -> tuple[int, int]:
        """End a hold; ``(spent, overrun)`` as ``escrow.settle`` has it."""
        outcome = escrow.settle(held, cost)
        if self._waiting:
            self._wake()
        return outcome

    def left(self, budgets: Sequence[BudgetEntry]) -> int:
        """The most that could be held on all of ``budgets`` at this moment."""
        now, mono = self.clock(), self.monotonic()
        pots = [self._usable(budget, now, mono) for budget in budgets]
        return max(0, min((pot.available if pot is not None else 0 for pot in pots), default=0))

    def _usable(self, budget: BudgetEntry, now: float, mono: float) -> Pot | None:
        pot = self.pots.get(budget.id)
        if pot is None:
            return None
        if not pot.current(now):
            self._turn_over(budget.id)
            pot = self.pots.get(budget.id)
            if pot is None or not pot.current(now):
                return None
        return pot if mono < pot.usable_until else None

    def _turn_over(self, budget_id: str) -> None:
        self._put_aside(self.pots.pop(budget_id))
        if (following := self.next_pots.pop(budget_id, None)) is not None:
            self.pots[budget_id] = following

    def _put_aside(self, pot: Pot) -> None:
        self.past.append(pot)
        self._return(pot, keep=0)

    @staticmethod
    def _short(budget: BudgetEntry, pot: Pot) -> Short:
        return Short(
            budget,
            left=max(0, pot.available + max(0, pot.unleased)),
            spent=pot.settled + max(0, pot.spent - pot.consumed),
            limit=pot.limit,
            ends=pot.ends,
            window=pot.window,
        )

    def _may_wait(self, budget: BudgetEntry) -> bool:
        """Whether there is a place for another call that waits for money of this budget: who waits at the end of one does not
        keep out those of others."""
        taken = len(self._waiting)
        if taken < many(MAX_WAITING):
            return True
        whose = (one for one, _ in self._waiting.values())
        return taken < MAX_WAITING and self._crowd.takes(
            budget.id, MAX_WAITING, lambda: whose, self.monotonic()
        )

    async def _wait(self, seconds: float, budget: BudgetEntry, amount: int) -> None:
        """Wait until something changed, at most ``seconds``."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting[waiter] = (budget.id, amount)
        timer = loop.call_later(seconds, _release, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            del self._waiting[waiter]

    def _wake(self) -> None:
        for waiter in self._waiting:
            _release(waiter)

    # ------------------------------------------------------------------ asking

    def _open(self, budget: BudgetEntry, at: float, *, ahead: bool = False) -> None:
        self._entries[budget.id] = budget
        if self._closed or (budget.id, ahead) in self._opening:
            return
        self._opening.add((budget.id, ahead))
        self.bank(Open(budget, at, ahead))

    def _ask(self, pot: Pot, amount: int) -> None:
        """Ask for what a call that needs ``amount``, and all that wait already, lack; 0 tops the account up."""
        if pot.asked or self._closed:
            return
        wanted = amount + sum(other for budget, other in self._waiting.values() if budget == pot.budget)
        need = max(0, wanted - pot.available) if amount else 0
        level = max(pot.level, amount * FIRST_CALLS)
        want = escrow.lease_size(need=need, comfort=level - pot.available, unleased=pot.unleased, share=SHARE)
        if want:
            pot.asked = True
            self.bank(More(pot, need, want))

    # ------------------------------------------------------------------ what the bank tells

    def told_open(
        self,
        command: Open,
        window: WindowTold,
        starts: float,
        ends: float | None,
        lease: LeaseTold | None,
        *,
        usable_until: float,
    ) -> None:
        """A window is open. ``lease`` is what this process has of it already; all of that counts as spent unless this
        purse knows the account."""
        budget = command.budget
        self._opening.discard((budget.id, command.ahead))
        self._open_failed.pop(budget.id, None)
        pot = next((pot for pot in self._every_pot() if pot.window == window.window_id), None)
        if pot is None:
            pot = Pot(
                window=window.window_id,
                budget=budget.id,
                starts=starts,
                ends=ends,
                limit=window.limit_nano,
                spent=lease.granted_nano - lease.returned_nano if lease else 0,
                last_used=self.clock(),
                seen_at=self.monotonic(),
            )
            pot.seen_spent = pot.spent
        pot.starts, pot.ends = starts, ends
        pot.limit, pot.settled = window.limit_nano, window.settled_nano
        pot.for_limit = budget.limit_at(command.at)
        pot.unleased = window.limit_nano - window.settled_nano - window.leased_nano
        pot.usable_until = usable_until
        pot.dry_until = -inf
        self._place(budget.id, pot, self.next_pots if command.ahead else self.pots)
        if lease is not None:
            self._take_totals(pot, lease)
            if lease.state != "open":
                self._open_failed[budget.id] = self.monotonic()
        self._wake()

    def _place(self, budget_id: str, pot: Pot, place: dict[str, Pot]) -> None:
        if place is self.next_pots and self.pots.get(budget_id) is pot:
            return
        if pot in self.past:
            self.past.remove(pot)
        if self.next_pots.get(budget_id) is pot:
            del self.next_pots[budget_id]
        present = place.get(budget_id)
        place[budget_id] = pot
        if present is not None and present is not pot:
            self._put_aside(present)

    def told_lease(self, command: More, lease: LeaseTold, *, usable_until: float) -> None:
        """The lease after ``command``."""
        pot = command.pot
        before = pot.granted
        pot.asked = False
        pot.usable_until = usable_until
        pot.told += 1
        self._take_totals(pot, lease)
        if pot.unleased <= 0 or pot.granted - before < command.need:
            pot.dry_until = self.monotonic() + DRY_S
        self._wake()

    def told_returned(self, command: GiveBack, lease: LeaseTold) -> None:
        command.pot.returning -= command.amount
        self._take_totals(command.pot, lease)
        self._wake()

    def told_failed(self, command: Command) -> None:
        """A command failed and may or may not have taken effect: ``told_reread`` follows once the lease could be read."""
        if isinstance(command, Open):
            self._opening.discard((command.budget.id, command.ahead))
            self._open_failed[command.budget.id] = self.monotonic()
        elif isinstance(command, More):
            command.pot.asked = False
            command.pot.failed_at = self.monotonic()
        self._wake()

    def told_reread(self, pot: Pot, lease: LeaseTold | None, *, gave_back: int) -> None:
        """The lease as it stands (None: there is none) after failed commands, which had set ``gave_back`` aside."""
        pot.returning -= gave_back
        if lease is not None:
            self._take_totals(pot, lease)
        self._wake()

    def told_renewed(self, usable_until: float) -> None:
        """All open leases of this process were renewed."""
        for pot in self._every_pot():
            if pot.usable_until > 0.0:
                pot.usable_until = usable_until

    def _take_totals(self, pot: Pot, lease: LeaseTold) -> None:
        pot.granted = lease.granted_nano
        pot.returned = lease.returned_nano + pot.returning
        pot.consumed = lease.consumed_nano
        pot.limit, pot.settled = lease.limit_nano, lease.settled_nano
        pot.unleased = lease.limit_nano - lease.settled_nano - lease.leased_nano
        if lease.state != "open":
            # Charged whole, or closed by somebody: not a cent of it may be spent any more.
            pot.usable_until = 0.0

    # ------------------------------------------------------------------ once a second

    def tick(self, live: Mapping[str, BudgetEntry]) -> None:
        """Measure rates, give idle money back, prepare for the next windows. ``live``: the budgets of now, by id."""
        now, mono = self.clock(), self.monotonic()
        for budget_id, pot in list(self.pots.items()):
            self._measure(pot, mono)
            known, entry = self._entries[budget_id], live.get(budget_id)
            changed = entry is None or not entry.hard
            if entry is not None:
                changed = changed or (entry.period, entry.timezone) != (known.period, known.timezone)
                self._entries[budget_id] = entry
            if changed or entry is None:
                self._put_aside(self.pots.pop(budget_id))
                if (following := self.next_pots.pop(budget_id, None)) is not None:
                    self._put_aside(following)
                continue
            if pot.ends is not None and now >= pot.ends:
                self._turn_over(budget_id)
                continue
            idle = now - pot.last_used > IDLE_S
            limit = entry.limit_at(now)
            if limit != pot.for_limit:
                # A lowered limit takes effect as far as money is free: let go of what no call holds.
                if limit < pot.for_limit:
                    self._return(pot, keep=0)
                self._open(entry, now)
            elif budget_id not in self._weighing and (idle or pot.available > 2 * pot.level):
                self._return(pot, keep=0 if idle else pot.level)
            if (
                pot.ends is not None
                and not idle
                and now > pot.ends - PREPARE_S
                and budget_id not in self.next_pots
            ):
                self._open(entry, pot.ends, ahead=True)
        for pot in self.past:
            self._return(pot, keep=0)
        self.past = [
            pot for pot in self.past if pot.held or pot.returning or pot.ends is None or now < pot.ends
        ]

    def close(self) -> None:
        """Give back everything that no call holds; nothing is asked for any more."""
        self._closed = True
        for pot in self._every_pot():
            self._return(pot, keep=0)

    def _every_pot(self) -> list[Pot]:
        return [*self.pots.values(), *self.next_pots.values(), *self.past]

    @staticmethod
    def _measure(pot: Pot, mono: float) -> None:
        elapsed = mono - pot.seen_at
        if elapsed <= 0:
            return
        rate = (pot.spent - pot.seen_spent) / elapsed
        # Faster up than down: a burst must find money, a lull need not keep it.
        pot.rate = rate if rate > pot.rate else pot.rate + RATE_SMOOTHING * (rate - pot.rate)
        pot.seen_spent, pot.seen_at = pot.spent, mono
        pot.most_held = max(pot.held, int(pot.most_held * (1 - RATE_SMOOTHING)))
        pot.level = int(pot.rate * HORIZON_S) + 2 * pot.most_held
        pot.low_water = int(pot.rate * LOW_WATER_S)

    def _return(self, pot: Pot, *, keep: int) -> None:
        amount = escrow.surplus(pot, keep=keep)
        if amount > 0 and pot.usable_until > 0.0:
            pot.returning += amount
            pot.returned += amount
            self.bank(GiveBack(pot, amount))


def no_answer(budget: BudgetEntry) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"The budget {budget.slug!r} cannot be asked for money at the moment; try again shortly.",
        retry_after=2,
        code="budget_unavailable",
    )


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
