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
#: The file that has the fixtures, and the one of them that shows that a file which imports it shares them.
_OWNERS = {"tests/e2e/test_browser.py": "stack", "tests/browser_in_process.py": "browser"}
_IMPORTS = {
    owner: re.compile(
        rf"^from {re.escape(owner[:-3].replace('/', '.'))} import (?:\([^)]*|[^\n]*)\b{name}\b", re.MULTILINE
    )
    for owner, name in _OWNERS.items()
}
_ROOT = Path(__file__).resolve().parent.parent
_held: dict[tuple[str, str], tuple[AbstractContextManager[Any], Any]] = {}


def handed_on(
    request: pytest.FixtureRequest, make: Callable[[], AbstractContextManager[Held]]
) -> Iterator[Held]:
    assert request.fixturename is not None
    place = _place(request.path)
    # Not by the fixture itself: a file that is imported by another is loaded twice, once for pytest.
    name = place, request.fixturename
    if name not in _held:
        manager = make()
        _held[name] = manager, manager.__enter__()
    yield _held[name][1]
    following = request.session.stash.get(FOLLOWING, None)
    if following is None or _place(following.path) != place:
        _held.pop(name)[0].__exit__(None, None, None)


@cache
def together(file: str) -> str:
    """The name of what is given to one process as a whole: the file itself, or all that share a browser."""
    path = _ROOT / file
    if file in _OWNERS or not path.is_file():
        return file
    text = path.read_text()
    return next((owner for owner, imports in _IMPORTS.items() if imports.search(text)), file)


def _place(path: Path) -> str:
    return together(path.relative_to(_ROOT).as_posix())
