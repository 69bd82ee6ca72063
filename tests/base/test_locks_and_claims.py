"""Real threads on real connections: one wins a claim, locks keep others out, nothing is lost between."""

from __future__ import annotations

import threading

import pytest
from django.db import connection, transaction
from django.db.models import F

from llmops.access.models import Project
from llmops.base import live
from llmops.base.locks import lock, try_lock
from llmops.base.transitions import compare_and_set, move
from llmops.core.errors import Conflict
from tests.cast import in_threads

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def row():
    return Project.objects.create(slug="p", name="free")


def test_one_of_many_wins_a_claim(row):
    def claim(name):
        return lambda: compare_and_set(
            Project.objects.get(pk=row.pk), expect={"name": "free"}, change={"name": name}
        )

    won = in_threads(*(claim(f"worker {number}") for number in range(8)))
    assert sorted(won) == [False] * 7 + [True]
    row.refresh_from_db()
    assert row.name == f"worker {won.index(True)}"


def test_the_winner_carries_the_new_values_and_the_loser_the_old(row):
    stale = Project.objects.get(pk=row.pk)
    assert compare_and_set(row, expect={"name": ("free", "idle")}, change={"name": "mine"})
    assert row.name == "mine"
    assert not compare_and_set(stale, expect={"name": "free"}, change={"name": "theirs"})
    assert stale.name == "free"


def test_an_expression_is_not_written_onto_the_row(row):
    assert compare_and_set(row, expect={"name": "free"}, change={"cost_center": F("slug")})
    assert row.cost_center == ""
    row.refresh_from_db()
    assert row.cost_center == "p"


def test_a_state_moves_once_and_the_refusal_says_where_it_stands(row):
    def step():
        move(Project.objects.get(pk=row.pk), to="done", allowed_from=["free"], field="name")

    results = in_threads(*[step] * 6)
    refusals = [result for result in results if isinstance(result, Conflict)]
    assert (results.count(None), len(refusals)) == (1, 5)
    assert all("'done' and cannot become 'done'" in refusal.message for refusal in refusals)
    row.delete()
    row.pk = Project().pk
    with pytest.raises(Conflict, match="no longer exists"):
        move(row, to="x", allowed_from=["done"], field="name")


def test_a_lock_makes_read_then_write_safe(row):
    def add():
        for _ in range(10):
            with transaction.atomic():
                lock("counter")
                read = Project.objects.get(pk=row.pk)
                Project.objects.filter(pk=row.pk).update(cost_center=str(int(read.cost_center or 0) + 1))

    assert in_threads(add, add, add, add) == [None] * 4
    row.refresh_from_db()
    assert row.cost_center == "40"


def test_a_lock_outside_a_transaction_is_a_mistake_said_aloud():
    for take in (lock, try_lock):
        with pytest.raises(RuntimeError, match="transaction"):
            take("name")


def test_a_held_lock_is_seen_by_others():
    """On SQLite the transaction itself is the lock, so nobody else gets as far as asking."""
    if connection.vendor == "sqlite":
        with transaction.atomic():
            assert try_lock("name")
        return
    held, asked = threading.Event(), threading.Event()

    def holder():
        with transaction.atomic():
            lock("name")
            held.set()
            assert asked.wait(30)

    def asker():
        assert held.wait(30)
        with transaction.atomic():
            answers = [try_lock("name"), try_lock("another")]
        asked.set()
        return answers

    assert in_threads(holder, asker) == [None, [False, True]]
    with transaction.atomic():
        assert try_lock("name")


def test_shared_holders_admit_each_other_on_postgresql():
    if connection.vendor == "sqlite":
        with transaction.atomic():
            lock("name", shared=True)
            lock("name", shared=True)
        return
    both = threading.Barrier(2)

    def share():
        with transaction.atomic():
            lock("name", shared=True)
            # Neither could pass if one kept the other out.
            both.wait(30)

    assert in_threads(share, share) == [None, None]


def test_every_touch_counts():
    def touch():
        for _ in range(10):
            with transaction.atomic():
                live.touch(live.LIVE_STATE)

    with transaction.atomic():
        live.touch(live.LIVE_STATE)
    before = live.versions()[live.LIVE_STATE]
    assert in_threads(touch, touch, touch) == [None] * 3
    assert live.versions()[live.LIVE_STATE] == before + 30


def test_a_touch_is_undone_with_its_transaction():
    before = live.versions()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        live.touch(live.REVISION)
        raise ZeroDivisionError
    assert live.versions() == before


def test_the_first_touches_of_a_name_race():
    live.LiveVersion.objects.all().delete()

    def touch():
        with transaction.atomic():
            live.touch("fresh")

    assert in_threads(*[touch] * 6) == [None] * 6
    assert live.versions() == {"fresh": 6}
