"""The trail as a file: JSON, one event a line, and a checkpoint as the last line.

Whoever keeps a checkpoint (its sequence and hash) elsewhere can prove later that nothing up to it was changed: not even
somebody who recomputes the whole chain can give another history the same hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from llmops.audit import chain, selectors
from llmops.audit.models import Event
from llmops.audit.services import as_exported, record
from llmops.core.actors import Actor
from llmops.core.errors import InvalidRequest


def lines(*, first: int = 1, last: int | None = None) -> Iterator[str]:
    """Lines without line ends, a chunk in memory at a time.

    They hold one moment, although each chunk is read by itself: the last event is settled first, and no event that the
    chain head has reached ever changes. What somebody changes in spite of that, whoever verifies the file finds.
    """
    if first < 1 or (last is not None and last < first):
        raise InvalidRequest(
            f"There are no events from {first} to {last}; they are numbered from 1.", param="from"
        )
    newest, _ = selectors.head()
    if first > max(newest, 1) or (last or 0) > newest:
        raise InvalidRequest(f"The newest event is {newest}.", param="to" if last else "from")
    return _written(first, newest if last is None else last)


@transaction.atomic
def on_record(
    actor: Actor, *, file: str, narrowed: Mapping[str, Any], project_id: UUID | None = None
) -> Event:
    """That somebody takes events away: the kind of ``file``, and which events by what they are ``narrowed`` to."""
    return record(
        actor,
        action="audit.exported",
        object_type="audit.event",
        object_id="",
        object_name="the audit trail",
        project_id=project_id,
        after={"file": file, **{name: value for name, value in narrowed.items() if value not in (None, "")}},
    )


def checkpoint() -> str:
    """The end of the chain as one line: kept elsewhere, it proves later that nothing up to it was changed."""
    return _checkpoint(*selectors.head())


def _written(first: int, last: int) -> Iterator[str]:
    sequence, hashed = first - 1, None
    for event in selectors.in_order(first=first, last=last):
        yield _line(as_exported(event))
        sequence, hashed = event.sequence, event.hash
    yield _checkpoint(sequence, hashed or chain.GENESIS)


def _checkpoint(sequence: int, hashed: str) -> str:
    return _line(
        {"checkpoint": {"sequence": sequence, "hash": hashed, "at": chain.time_text(timezone.now())}}
    )


def _line(value: dict[str, Any]) -> str:
    # ASCII only: some tools take characters such as U+2028 for the end of a line.
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
