"""What one test file hands on to the next: a whole stack and a browser, which take longer to start than to use.

A fixture of scope ``module`` whose body is ``yield from handed_on(request, make)`` keeps what ``make`` opened for as long
as the file that is next in this process has the same fixture. A run in several processes gives the files that import
such fixtures from one another to one process, one after the other (``together``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest

Held = TypeVar("Held")
FOLLOWING = pytest.StashKey[pytest.Item | None]()
#: The files that share a stack and a browser: the one that has the fixtures, and those that import them.
_OWNER = "tests/e2e/test_browser.py"
_IMPORTS = re.compile(r"^from tests\.e2e\.test_browser import (?:\([^)]*|[^\n]*)\bstack\b", re.MULTILINE)
_ROOT = Path(__file__).resolve().parent.parent
_held: dict[str, tuple[AbstractContextManager[Any], Any]] = {}


def handed_on(
    request: pytest.FixtureRequest, make: Callable[[], AbstractContextManager[Held]]
) -> Iterator[Held]:
    name = request.fixturename
    assert name is not None
    if name not in _held:
        manager = make()
        _held[name] = manager, manager.__enter__()
    yield _held[name][1]
    following = request.session.stash.get(FOLLOWING, None)
    # Not the fixtures themselves: a file that is imported by another is loaded twice, once for pytest.
    if following is None or _place(following.path) != _place(request.path):
        _held.pop(name)[0].__exit__(None, None, None)


@cache
def together(file: str) -> str:
    """The name of what is given to one process as a whole: the file itself, or all that share the browser."""
    path = _ROOT / file
    shares = file == _OWNER or (path.is_file() and _IMPORTS.search(path.read_text()) is not None)
    return _OWNER if shares else file


def _place(path: Path) -> str:
    return together(path.relative_to(_ROOT).as_posix())
