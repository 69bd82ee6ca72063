"""Taking the trail away: what was found as CSV to read, or all of it as evidence that others can check."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from llmops.audit import chain
from llmops.audit.searching import Search, ascending
from llmops.audit.services import as_exported
from llmops.usage.exports import cells

COLUMNS = (*chain.FIELDS[:-2], *chain.OPTIONAL, *chain.FIELDS[-2:])
_LINES = 500


def as_csv(search: Search) -> Iterator[bytes]:
    """A line an event, oldest first. To be read and not to be proved with: what was left out shows no gap."""
    yield cells.lines([COLUMNS])
    for events in ascending(search, chunk=_LINES):
        rows = []
        for event in events:
            found = as_exported(event)
            rows.append([_cell(found.get(name)) for name in COLUMNS])
        yield cells.lines(rows)


def in_chunks(lines: Iterable[str], most: int = _LINES) -> Iterator[bytes]:
    """Lines of an export, some hundreds at a time."""
    held: list[str] = []
    for line in lines:
        held.append(line)
        if len(held) >= most:
            yield ("\n".join(held) + "\n").encode()
            held.clear()
    if held:
        yield ("\n".join(held) + "\n").encode()


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, int):
        return value
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return cells.text(str(value))
