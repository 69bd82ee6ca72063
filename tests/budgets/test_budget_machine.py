"""Budgets under everything at once: processes that lease, hold, settle, give back, lose answers and die; limits that
move and are raised for a while; windows that roll over and hand on what they leave; leases that are reaped, and explained by
people; calls that people correct; journals that are booked in any order, twice, by two ingesters.

After every step the books must balance. At the end every process is dead, every journal booked, and each window has
settled exactly what its calls cost, as far as people know it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db.models import Sum
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from llmops.approvals.services import decide
from llmops.base.requests import user_actor
from llmops.budgets import escrow, services
from llmops.budgets.escrow import Account, Hold, Shortfall
from llmops.budgets.models import Budget, Lease, Overrun, Raise, Window
from llmops.core.errors import Conflict
from llmops.usage.ingest.follower import Follower
from llmops.usage.journal import JournalWriter
from llmops.usage.models import Call, Journal
from llmops.usage.records import Charge, Ended, Held, HeldCharge, Origin
from llmops.usage.services import correct_call
from tests.cast import COMMAND, person
from tests.trying import tries
from tests.usage.journals import origin, outcome

AMOUNTS = st.integers(0, 400)
#: In periods that have not ended, whenever this runs and however long it takes.
START = datetime.now(UTC) + timedelta(days=40)


@dataclass
class Process:
    """A data plane, reduced to its money: leases, holds in memory, and the journal."""

    writer: JournalWriter
    accounts: dict[int, Account] = field(default_factory=dict)
    holds: dict[str, tuple[Origin, Hold, int]] = field(default_factory=dict)
    ended_once: dict[str, tuple[Origin, int]] = field(default_factory=dict)


class Budgets(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="machine-"))
        self.now = START
        self.processes: list[Process] = []
        self.followers: dict[Any, list[Follower]] = {}
        self.budgets = [
            services.create_budget(
                COMMAND,
                slug=f"m-{uuid4()}",
                scope_kind="organisation",
                limit_nano=limit,
                period=period,
                carry_over_nano=cap,
            )
            for limit, period, cap in ((1000, "day", 300), (700, "month", 0))
        ]
        Budget.objects.filter(pk__in=[budget.pk for budget in self.budgets]).update(created_at=START)
        self.limits = [1000, 700]
        self.raised = [0, 0]
        self.approver = user_actor(person(f"m-{uuid4()}", is_superuser=True))
        self.asker = user_actor(person(f"m-{uuid4()}", ("operator", None)))
        #: what people's corrections added to windows, and whether anybody explained a lease there
        self.corrected: dict[int, int] = defaultdict(int)
        self.explained: set[int] = set()
        #: what calls cost each window, as far as holds go, and beyond
        self.spent: dict[int, int] = defaultdict(int)
        self.overrun: dict[int, int] = defaultdict(int)
        self.calls: set[str] = set()
        self.cost = 0

    def teardown(self) -> None:
        try:
            for process in list(self.processes):
                self._die(process)
            for journal_id in list(self.followers):
                self._finish(journal_id)
            self._balanced()
            self._everything_is_in()
        finally:
            for process in self.processes:
                process.writer.close()
            shutil.rmtree(self.directory)

    # Processes ------------------------------------------------------------------------------------------------------

    @initialize()
    def two_processes_with_money(self) -> None:
        for which in (0, 1):
            self.start()
            self.lease(which, 0, 0, 250, False)
            self.lease(which, 1, 0, 200, False)

    @rule()
    def start(self) -> None:
        if len(self.processes) < 3:
            writer = JournalWriter(self.directory, segment_bytes=4000)
            self.processes.append(Process(writer))
            self.followers[writer.journal_id] = [
                Follower(self.directory, writer.journal_id) for _ in range(2)
            ]

    @rule(who=st.integers(0, 2), which=st.integers(0, 1), need=AMOUNTS, want=AMOUNTS, lost=st.booleans())
    def lease(self, who: int, which: int, need: int, want: int, lost: bool) -> None:
        if not (process := self._pick(who)):
            self.start()
            process = self.processes[0]
        told = services.open_window(budget_id=self.budgets[which].pk, at=self.now)
        account = process.accounts.setdefault(
            told.window_id,
            Account(window=told.window_id, budget=str(which), starts=0, ends=None, limit=told.limit_nano),
        )
        before = services.open_window(budget_id=self.budgets[which].pk, at=self.now)
        state = services.lease(
            window_id=told.window_id,
            journal_id=process.writer.journal_id,
            need=need,
            want=want,
            lease_seconds=60,
        )
        window = Window.objects.get(pk=told.window_id)
        own = self.limits[which] + self.raised[which] + window.carried_nano - window.passed_on_nano
        left = max(0, own - before.settled_nano - before.leased_nano)
        newly = state.settled_nano + state.leased_nano - before.settled_nano - before.leased_nano
        assert newly == min(max(need, want), left), "what is asked for, or what is left"
        if not lost:
            account.granted, account.returned = state.granted_nano, state.returned_nano

    @rule(who=st.integers(0, 2))
    def read_again(self, who: int) -> None:
        """What a process does when an answer did not come."""
        if process := self._pick(who):
            for window, account in process.accounts.items():
                state = services.read_lease(window_id=window, journal_id=process.writer.journal_id)
                assert state.granted_nano >= account.granted and state.returned_nano >= account.returned
                account.granted, account.returned = state.granted_nano, state.returned_nano

    @rule(who=st.integers(0, 2), keep=AMOUNTS, lost=st.booleans())
    def give_back(self, who: int, keep: int, lost: bool) -> None:
        if not (process := self._pick(who)):
            return
        for window, account in process.accounts.items():
            amount = escrow.surplus(account, keep=keep)
            # Reserved before it is asked for, so that an answer that is lost can not be spent meanwhile.
            account.returned += amount
            state = services.give_back(window_id=window, journal_id=process.writer.journal_id, amount=amount)
            assert lost or state.returned_nano == account.returned

    @rule(who=st.integers(0, 2), amount=st.integers(0, 120), second=st.booleans())
    def begin(self, who: int, amount: int, second: bool) -> None:
        """A call's attempt: held on every window the process has money of, written down before it goes upstream."""
        if not (process := self._pick(who)) or not process.accounts:
            return
        if second and process.ended_once:
            who_calls, attempt = process.ended_once.pop(next(iter(process.ended_once)))
        else:
            who_calls, attempt = origin(started=int(self.now.timestamp() * 1e9)), 0
        accounts = list(process.accounts.values())
        held = escrow.hold(accounts, amount, now=self.now.timestamp())
        if isinstance(held, Shortfall):
            assert held.account.available < amount
            if attempt:
                process.ended_once[who_calls.call] = (who_calls, attempt)
            return
        process.writer.append(
            Held(
                n=0,
                at=1,
                attempt=attempt + 1,
                origin=who_calls,
                model="m",
                model_version=1,
                provider="p",
                charges=[HeldCharge(account.window, amount) for account in accounts],
                worst_cost=amount,
            )
        )
        process.holds[who_calls.call] = (who_calls, held, attempt + 1)
        self.calls.add(who_calls.call)

    @rule(who=st.integers(0, 2), amounts=st.lists(st.integers(0, 60), min_size=2, max_size=5))
    def traffic(self, who: int, amounts: list[int]) -> None:
        for amount in amounts:
            self.begin(who, amount, False)
            self.end(who, amount // 2, True)

    @rule(who=st.integers(0, 2), cost=st.integers(0, 200), last=st.booleans())
    def end(self, who: int, cost: int, last: bool) -> None:
        if not (process := self._pick(who)) or not process.holds:
            return
        call, held, attempt = process.holds.pop(next(iter(process.holds)))
        spent, overrun = escrow.settle(held, cost)
        process.writer.append(
            Ended(
                n=0,
                at=2,
                attempt=attempt,
                origin=call,
                charges=[Charge(account.window, held.amount, spent, overrun) for account in held.accounts],
                cost=cost,
                outcome=outcome() if last else None,
            )
        )
        self._note(held, spent, overrun)
        if not last:
            process.ended_once[call.call] = (call, attempt)

    @rule(who=st.integers(0, 2))
    def renew(self, who: int) -> None:
        if process := self._pick(who):
            states = services.renew_leases(journal_id=process.writer.journal_id, lease_seconds=60)
            assert set(states) == set(process.accounts)
            assert all(state.state == Lease.OPEN for state in states.values())

    @rule(who=st.integers(0, 2), torn=st.booleans())
    def crash(self, who: int, torn: bool) -> None:
        if process := self._pick(who):
            self._die(process, torn=torn)

    # The rest of the world ------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 1), limit=st.integers(0, 1500))
    def change_limit(self, which: int, limit: int) -> None:
        services.update_budget(COMMAND, budget_id=self.budgets[which].pk, limit_nano=limit)
        self.limits[which] = limit

    @rule(which=st.integers(0, 1), amount=st.integers(1, 500))
    def raise_for_a_while(self, which: int, amount: int) -> None:
        asked = services.ask_raise(
            self.asker,
            budget_id=self.budgets[which].pk,
            amount_nano=amount,
            ends_at=datetime.now(UTC) + timedelta(hours=5),
            reason="busy",
        )
        decide(self.approver, request_id=asked.pk, approves=True, seen=asked.digest)
        self.raised[which] += amount

    @rule(which=st.integers(0, 1), told=st.booleans())
    def raises_are_over(self, which: int, told: bool) -> None:
        """By the clock, and perhaps a job has seen it."""
        if self.raised[which]:
            now = datetime.now(UTC)
            Raise.objects.filter(budget=self.budgets[which]).update(starts_at=now - timedelta(1), ends_at=now)
            Budget.objects.filter(pk=self.budgets[which].pk).update(raised_until=now)
            self.raised[which] = 0
        if told:
            services.end_raises()

    @rule()
    def carry_over(self) -> None:
        services.carry_over_all(now=self.now)

    @rule(data=st.data(), part=st.integers(0, 100))
    def explain(self, data: Any, part: int) -> None:
        """A person says what of a dead process's lease was spent, before its journal turns up."""
        living = [process.writer.journal_id for process in self.processes]
        lost = Lease.objects.filter(
            state=Lease.FORFEITED, window__budget__in=[budget.pk for budget in self.budgets]
        ).exclude(journal_id__in=living)
        if lease := lost.order_by("pk").first():
            spent = lease.outstanding_nano * part // 100
            services.explain_lease(COMMAND, lease_id=lease.pk, spent_nano=spent, reason="the invoice")
            self.explained.add(lease.window_id)

    @rule(cost=st.integers(0, 200))
    def correct(self, cost: int) -> None:
        """A person says what a call cost that nobody knew."""
        unknown = Call.objects.filter(journal_id__in=list(self.followers), status=Call.UNKNOWN)
        call = unknown.exclude(cost_nano=cost).order_by("pk").first()
        if call is None:
            return
        made = correct_call(COMMAND, call_id=call.pk, cost_nano=cost, reason="the invoice")
        self.cost += cost - made.before_nano
        for before, after in zip(made.charges_before, made.charges_after, strict=True):
            self.corrected[before["window"]] += after["cost"] - before["cost"]
            self.overrun[before["window"]] += after["overrun"] - before["overrun"]

    @rule(hours=st.integers(1, 30))
    def time_passes(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule()
    def reap(self) -> None:
        """Every lease has run out, and nobody could read a journal for that long."""
        services.reap_leases(datetime.now(UTC) + timedelta(days=2))

    @rule(data=st.data(), limit=st.integers(1, 12))
    def ingest(self, data: Any, limit: int) -> None:
        if follower := self._any_follower(data):
            follower.step(limit)

    @rule()
    def ingest_everything(self) -> None:
        for one, other in (pair for pair in self.followers.values() if pair):
            while one.step(5) + other.step(3):
                pass

    @rule(data=st.data())
    def ingester_dies(self, data: Any) -> None:
        if follower := self._any_follower(data):
            pair = self.followers[follower.journal_id]
            pair[pair.index(follower)] = Follower(self.directory, follower.journal_id)

    @rule(data=st.data())
    def finish_dead(self, data: Any) -> None:
        if follower := self._any_follower(data):
            finished = follower.finish()
            living = {process.writer.journal_id for process in self.processes}
            assert finished == (follower.journal_id not in living)
            if finished:
                self._nothing_more(follower.journal_id)

    # What must always hold ------------------------------------------------------------------------------------------

    @invariant()
    def books_balance(self) -> None:
        self._balanced()

    def _balanced(self) -> None:
        # Read once and added up here: fifteen sums by the database after every step would take longer than the steps.
        windows = list(Window.objects.filter(budget__in=[budget.pk for budget in self.budgets]))
        leases: dict[int, list[Lease]] = defaultdict(list)
        for lease in Lease.objects.filter(window__in=windows):
            leases[lease.window_id].append(lease)
        overruns: dict[int, int] = defaultdict(int)
        for pk, amount in Overrun.objects.filter(window__in=windows).values_list("window", "amount_nano"):
            overruns[pk] += amount
        for window in windows:
            total = dict.fromkeys((Lease.OPEN, Lease.CLOSED, Lease.FORFEITED, Lease.EXPLAINED), 0)
            for lease in leases[window.pk]:
                total[lease.state] += lease.granted_nano - lease.returned_nano - lease.consumed_nano
            consumed = sum(lease.consumed_nano for lease in leases[window.pk])
            assert window.settled_nano + window.leased_nano + window.passed_on_nano <= window.limit_nano
            assert window.leased_nano == total[Lease.OPEN]
            assert window.unattributed_nano == total[Lease.FORFEITED]
            assert total[Lease.CLOSED] == 0
            assert window.corrected_nano == self.corrected[window.pk]
            said = total[Lease.EXPLAINED] + window.corrected_nano
            free = window.settled_nano - consumed - window.unattributed_nano - said
            # What a journal told beyond what a person had said of its lease was settled where there was room.
            assert free == 0 or (free > 0 and window.pk in self.explained)
            assert consumed <= self.spent[window.pk]
            assert window.overrun_nano == overruns[window.pk]
        for budget in self.budgets:
            own = [window for window in windows if window.budget_id == budget.pk]
            carried = [window.carried_nano for window in own]
            assert sum(carried) == sum(window.passed_on_nano for window in own)
            assert max(carried, default=0) <= budget.carry_over_nano
        for process in self.processes:
            for window_id, account in process.accounts.items():
                [lease] = [one for one in leases[window_id] if one.journal_id == process.writer.journal_id]
                assert account.available >= 0
                assert lease.granted_nano >= account.granted and lease.returned_nano <= account.returned
                assert lease.consumed_nano <= account.spent

    def _everything_is_in(self) -> None:
        for window in Window.objects.filter(budget__in=[budget.pk for budget in self.budgets]):
            assert (window.leased_nano, window.unattributed_nano) == (0, 0)
            spent = self.spent[window.pk] + self.corrected[window.pk]
            if window.pk in self.explained:
                # What there was no room for any more when the journal turned up stands as overrun.
                assert window.settled_nano + window.overrun_nano == spent + self.overrun[window.pk]
                assert window.settled_nano <= spent
            else:
                assert (window.settled_nano, window.overrun_nano) == (spent, self.overrun[window.pk])
        stored = Call.objects.filter(journal_id__in=list(self.followers))
        assert {str(pk) for pk in stored.values_list("pk", flat=True)} == self.calls
        assert (stored.aggregate(sum=Sum("cost_nano"))["sum"] or 0) == self.cost

    # Means ----------------------------------------------------------------------------------------------------------

    def _pick(self, who: int) -> Process | None:
        return self.processes[who % len(self.processes)] if self.processes else None

    def _any_follower(self, data: Any) -> Follower | None:
        pairs = [follower for pair in self.followers.values() for follower in pair]
        return data.draw(st.sampled_from(pairs)) if pairs else None

    def _note(self, held: Hold, spent: int, overrun: int) -> None:
        for account in held.accounts:
            self.spent[account.window] += spent
            self.overrun[account.window] += overrun
        self.cost += spent + overrun

    def _die(self, process: Process, *, torn: bool = False) -> None:
        """As after kill -9: memory is gone, the journal stays, its lock is free."""
        if torn:
            os.write(process.writer._fd, b'{"t":"end","n":99,"at":1,"att')
        process.writer.close()
        self.processes.remove(process)
        for _, held, _ in process.holds.values():
            self._note(held, held.amount, 0)

    def _finish(self, journal_id: Any) -> None:
        if Journal.objects.filter(pk=journal_id, state=Journal.CLOSED).exists():
            self._nothing_more(journal_id)
            return
        assert Follower(self.directory, journal_id).finish()
        self._nothing_more(journal_id)

    def _nothing_more(self, journal_id: Any) -> None:
        """A closed journal takes nothing any more: not from a follower that is behind, not from its own process."""
        assert not list(self.directory.glob(f"{journal_id}.*.jsonl"))
        for lease in Lease.objects.filter(journal_id=journal_id):
            with pytest.raises(Conflict):
                services.lease(
                    window_id=lease.window_id, journal_id=journal_id, need=1, want=1, lease_seconds=60
                )
        self.followers[journal_id] = []


@pytest.mark.timeout(600)
def test_budgets_balance_whatever_happens(db: None) -> None:
    run_state_machine_as_test(
        Budgets,
        settings=tries(
            30,
            at_least=10,
            stateful_step_count=40,
            suppress_health_check=list(HealthCheck),
        ),
    )
