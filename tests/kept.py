"""Rows that many tests begin with: made once for the tests of a file that ask for them one after the other.

``@kept`` over a function makes a fixture of its name, as ``@pytest.fixture`` does. What it makes is made within a transaction
that stays open beneath the tests' own, so that each test begins with it and gets a copy of what the function returned; what
a test changes is taken back after it, as ever. The transaction is taken back before the first test that does not ask for the
same. What a function takes are fixtures that are kept as well: it may depend on nothing that a single test chose.

Tests that commit, and those that share rows of a wider scope, have it made for each of them.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connection, transaction

Make = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class _Layer:
    make: Make
    block: transaction.Atomic
    #: what was made, pickled: each test has objects of its own
    found: bytes


#: Each within the transaction of those before it.
_layers: list[_Layer] = []


def kept(make: Make) -> Any:
    takes = inspect.signature(make).parameters

    def fixture(db: None, **taken: Any) -> Any:
        for layer in _layers:
            if layer.make is make:
                return pickle.loads(layer.found)
        return make(**taken)

    fixture.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("db", *takes)]
    )
    fixture.__doc__ = make.__doc__
    fixture.kept = make  # type: ignore[attr-defined]
    return pytest.fixture(name=make.__name__)(fixture)


def begin(item: pytest.Item) -> None:
    """Before the transaction of ``item`` begins, with the database unblocked: make what it asks for, and is not there."""
    asked = _asked(item)
    _keep_of(asked)
    for make in asked[len(_layers) :]:
        block = transaction.atomic()
        block.__enter__()
        try:
            found = pickle.dumps(
                make(**{name: _found(item, name) for name in inspect.signature(make).parameters})
            )
        except BaseException:
            _take_back(block)
            raise
        _layers.append(_Layer(make, block, found))


def end(item: pytest.Item, following: pytest.Item | None, blocker: Any) -> None:
    """After the transaction of ``item``: take back what ``following`` does not begin with."""
    if _layers:
        with blocker.unblock():
            _keep_of(_asked(following) if following is not None and following.path == item.path else [])


def _keep_of(asked: list[Make]) -> None:
    shared = 0
    # A test that closed the connection took all with it.
    if not connection.closed_in_transaction:
        while shared < min(len(asked), len(_layers)) and _layers[shared].make is asked[shared]:
            shared += 1
    while len(_layers) > shared:
        _take_back(_layers.pop().block)


def _take_back(block: transaction.Atomic) -> None:
    if not connection.closed_in_transaction:
        transaction.set_rollback(True)
    block.__exit__(None, None, None)


def _asked(item: pytest.Item) -> list[Make]:
    """What ``item`` asks for, each after what it takes."""
    found: list[Make] = []
    known = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]

    def add(name: str) -> None:
        make = getattr(known[name][-1].func, "kept", None) if name in known else None
        if make is None or make in found:
            return
        for taken in inspect.signature(make).parameters:
            if not hasattr(known[taken][-1].func, "kept"):
                raise pytest.UsageError(
                    f"{name} is kept, so it can not take {taken}, which each test has anew."
                )
            add(taken)
        found.append(make)

    for name in item.fixturenames:  # type: ignore[attr-defined]
        add(name)
    return found if found and _shares(item, known) else []


def _found(item: pytest.Item, name: str) -> Any:
    make = item._fixtureinfo.name2fixturedefs[name][-1].func.kept  # type: ignore[attr-defined]
    return pickle.loads(next(layer.found for layer in _layers if layer.make is make))


def _shares(item: pytest.Item, known: Any) -> bool:
    marker = item.get_closest_marker("django_db")
    names = set(item.fixturenames)  # type: ignore[attr-defined]
    if marker is not None and (marker.kwargs.get("transaction") or marker.kwargs.get("reset_sequences")):
        return False
    if not names.isdisjoint(("transactional_db", "django_db_reset_sequences", "live_server")):
        return False
    # A fixture of a wider scope that writes has a transaction of its own, which may end at another time.
    return not any(
        definition.scope != "function" and "django_db_blocker" in definition.argnames
        for name in names - {"django_db_setup", "_django_setup_unittest"}
        for definition in known.get(name, ())
    )
