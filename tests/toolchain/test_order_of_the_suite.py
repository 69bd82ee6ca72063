"""What takes longest starts first in each process of a parallel run; what no engine matters to runs once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import backends, conftest

TESTS = Path(conftest.__file__).parent


class Item:
    def __init__(self, place: str, *marks: pytest.MarkDecorator, fixturenames: tuple[str, ...] = ()) -> None:
        self.nodeid = place
        self.path = TESTS / place
        self.fixturenames = fixturenames
        self.stash = pytest.Stash()
        self._marks = {mark.name: mark.mark for mark in marks}

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return self._marks.get(name)


def collected(*items: Item, forks: str | None = None, backend: str = "sqlite") -> list[str]:
    hook = SimpleNamespace(pytest_deselected=lambda items: None)
    options = {"backend": backend, "forks": forks}
    config: Any = SimpleNamespace(getoption=options.__getitem__, hook=hook)
    left: list[Any] = list(items)
    conftest.pytest_collection_modifyitems(config, left)
    return [item.nodeid for item in left]


def test_a_run_in_several_takes_what_is_long_first():
    places = ("core/test_money.py", "access/test_powers.py", "e2e/test_browser.py", "compat/test_compat.py")
    assert collected(*map(Item, places), forks="2") == [*reversed(places[1:]), places[0]]


def test_a_run_in_one_process_keeps_its_order():
    places = ("core/test_money.py", "compat/test_compat.py")
    assert collected(*map(Item, places)) == list(places)


def test_every_place_that_is_named_exists():
    for place in (*conftest._LONG, *conftest._EMBEDDED):
        assert (TESTS / place).exists(), place


def test_what_meets_the_database_runs_on_both_engines_unless_it_says_that_none_matters():
    items = (
        Item("core/pure.py"),
        Item("a.py", pytest.mark.django_db),
        Item("b.py", fixturenames=("installation",)),
        Item("c.py", pytest.mark.django_db, pytest.mark.any_engine),
    )
    assert collected(*items) == ["core/pure.py", "a.py", "b.py", "c.py"]
    assert collected(*items, backend="postgres") == ["a.py", "b.py"]
    assert collected(*items, backend="both", forks="2") == ["core/pure.py", "a.py", "b.py", "c.py"]
    assert [item.stash[backends.MEETS] for item in items] == [
        ("sqlite",), ("sqlite", "postgres"), ("sqlite", "postgres"), ("sqlite",),
    ]  # fmt: skip


@pytest.mark.parametrize("backend", ["sqlite", "postgres", "both"])
def test_what_commits_may_not_say_so(backend):
    for item in (
        Item("a.py", pytest.mark.django_db(transaction=True), pytest.mark.any_engine),
        Item("b.py", pytest.mark.any_engine, fixturenames=("transactional_db",)),
    ):
        with pytest.raises(pytest.UsageError, match="runs on every engine"):
            collected(item, backend=backend)
