"""The trail as a file: JSON, one event a line, and a checkpoint as the last line.

Whoever keeps a checkpoint (its sequence and hash) elsewhere can prove later that nothing up to it was changed: not even
somebody who recomputes the whole chain can give another history the same hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from django.utils import timezone

from llmops.audit import chain, selectors
from llmops.audit.services import as_exported
from llmops.base.reads import consistent_read
from llmops.core.errors import InvalidRequest


def lines(*, first: int = 1, last: int | None = None) -> Iterator[str]:
    """Lines without line ends, read as of one moment and a chunk at a time."""
    if first < 1 or (last is not None and last < first):
        raise InvalidRequest(
            f"There are no events from {first} to {last}; they are numbered from 1.", param="from"
        )
    with consistent_read():
        newest, _ = selectors.head()
        if first > max(newest, 1) or (last or 0) > newest:
            raise InvalidRequest(f"The newest event is {newest}.", param="to" if last else "from")
        sequence, hashed = first - 1, None
        for event in selectors.in_order(first=first, last=last):
            yield _line(as_exported(event))
            sequence, hashed = event.sequence, event.hash
        checkpoint = {
            "sequence": sequence,
            "hash": hashed or chain.GENESIS,
            "at": chain.time_text(timezone.now()),
        }
        yield _line({"checkpoint": checkpoint})


def _line(value: dict[str, Any]) -> str:
    # ASCII only: some tools take characters such as U+2028 for the end of a line.
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
