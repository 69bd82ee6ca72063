"""What takes longest starts first in each process of a parallel run, and runs once where the engine does not matter."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests import conftest

TESTS = Path(conftest.__file__).parent


def collected(*places: str, worker: bool) -> list[str]:
    config: Any = SimpleNamespace(getoption=lambda name: {"backend": "sqlite"}[name])
    if worker:
        config.workerinput = {}
    items: list[Any] = [SimpleNamespace(path=TESTS / place) for place in places]
    conftest.pytest_collection_modifyitems(config, items)
    return [item.path.relative_to(TESTS).as_posix() for item in items]


def test_workers_take_what_is_long_first():
    places = ("core/test_money.py", "access/test_powers.py", "e2e/test_browser.py", "compat/test_compat.py")
    assert collected(*places, worker=True) == [*reversed(places[1:]), places[0]]


def test_a_run_in_one_process_keeps_its_order():
    places = ("core/test_money.py", "compat/test_compat.py")
    assert collected(*places, worker=False) == list(places)


def test_every_place_that_is_named_exists():
    for place in (*conftest._LONG, *conftest._EMBEDDED):
        assert (TESTS / place).exists(), place
