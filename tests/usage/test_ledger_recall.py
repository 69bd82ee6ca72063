"""A reader that starts anew at the floor knows the same open calls as one that followed the journal from its start."""

from __future__ import annotations

from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from llmops.usage.ingest.batch import Batch
from llmops.usage.ingest.ledger import Ledger
from llmops.usage.journal import Entry, Position
from llmops.usage.records import Charge, Ended, Held
from tests.usage.journals import origin, outcome


@st.composite
def interleavings(draw: st.DrawFn) -> list[Held | Ended]:
    """Calls of one to three attempts, their records shuffled into each other in any order that can happen."""
    calls = [origin() for _ in range(draw(st.integers(1, 8)))]
    steps: list[list[Held | Ended]] = []
    for who in calls:
        attempts = draw(st.integers(1, 3))
        records: list[Held | Ended] = []
        for number in range(1, attempts + 1):
            last = number == attempts
            records.append(
                Held(n=0, at=1, attempt=number, origin=who, model="m", model_version=1, provider="p")
            )
            records.append(Ended(n=0, at=2, attempt=number, origin=who, outcome=outcome() if last else None))
        steps.append(records)
    found: list[Held | Ended] = []
    while any(steps):
        waiting = [records for records in steps if records]
        found.append(draw(st.sampled_from(waiting)).pop(0))
    return found


@given(interleavings())
def test_the_open_calls_are_known_again_from_the_floor(records: list[Held | Ended]) -> None:
    journal = uuid4()
    entries = [Entry(record, Position(0, 100 * n, n)) for n, record in enumerate(records)]
    followed = Ledger(journal)
    for cut, entry in enumerate(entries, start=1):
        assert followed.take([entry], Batch()) == 1
        floor = followed.floor(Position(0, 100 * cut, cut))
        anew = Ledger(journal)
        anew.recall(entries[floor.sequence : cut])
        assert {call: set(found.holds) for call, found in anew.open.items()} == {
            call: set(found.holds) for call, found in followed.open.items()
        }


def test_a_record_that_is_refused_has_charged_nothing() -> None:
    who, window = origin(), 7
    good = Held(n=0, at=1, attempt=1, origin=who, model="m", model_version=1, provider="p")
    bad = Ended(
        n=0,
        at=2**70,
        attempt=1,
        origin=who,
        charges=[Charge(window, 5, 5), Charge(window + 1, 5, 9, overrun=4)],
        soft=[str(uuid4())],
        cost=9,
        outcome=outcome(),
    )
    batch = Batch()

    assert (
        Ledger(uuid4()).take([Entry(one, Position(0, 0, n)) for n, one in enumerate((good, bad))], batch) == 1
    )

    assert batch == Batch()
