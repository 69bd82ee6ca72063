"""The trail as a file: canonical JSON, one event a line, and a checkpoint as the last line.

Whoever keeps a checkpoint (its sequence and hash) elsewhere can prove later that nothing up to it was changed: not even
somebody who recomputes the whole chain can give another history the same hash.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.utils import timezone

from llmops.audit import chain, selectors
from llmops.audit.services import as_exported
from llmops.base.reads import consistent_read
from llmops.core.digests import canonical_json
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
            yield canonical_json(as_exported(event)).decode()
            sequence, hashed = event.sequence, event.hash
        checkpoint = {
            "sequence": sequence,
            "hash": hashed or chain.GENESIS,
            "at": chain.time_text(timezone.now()),
        }
        yield canonical_json({"checkpoint": checkpoint}).decode()
