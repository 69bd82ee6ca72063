"""Putting drafts of this room away, and throwing their live switches; what all drafts share is in ``base.drafts``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from django.db import models
from django.utils import timezone

from llmops.audit.services import record
from llmops.base.drafts import assign, checked, difference, editing, inserted, locked, values
from llmops.base.live import LIVE_STATE, touch
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest

__all__ = [
    "DEGRADED",
    "PAUSED",
    "Switch",
    "assign",
    "checked",
    "difference",
    "editing",
    "inserted",
    "locked",
    "set_archived",
    "throw",
    "values",
]

_M = TypeVar("_M", bound=models.Model)


def set_archived(actor: Actor, row: _M, *, kind: str, archived: bool) -> _M:
    """Put away or bring back a row that has ``slug`` and ``archived_at``."""
    name = kind.rsplit(".", 1)[-1]
    change = {"archived_at": timezone.now() if archived else None}
    if not compare_and_set(row, expect={"archived_at__isnull": archived}, change=change):
        raise Conflict(f"This {name} is {'already archived' if archived else 'not archived'}.")
    record(
        actor,
        action=f"{name}.{'archived' if archived else 'restored'}",
        object_type=kind,
        object_id=row.pk,
        object_name=str(row),
        before={"archived": not archived},
        after={"archived": archived},
    )
    return row


@dataclass(frozen=True)
class Switch:
    """A live switch of a row: the fields that hold since when and why, and the words for on and for off again."""

    at: str
    reason: str
    on: str
    off: str


PAUSED = Switch("paused_at", "pause_reason", "paused", "resumed")
DEGRADED = Switch("degraded_at", "degrade_reason", "degraded", "recovered")


def throw(actor: Actor, row: _M, switch: Switch, *, kind: str, on: bool, reason: str) -> _M:
    """Throw a live switch of a row; data planes follow at once."""
    name = kind.rsplit(".", 1)[-1]
    if on and not reason.strip():
        raise InvalidRequest(
            f"reason: say why the {name} is {switch.on}; callers and on-call read it.", param="reason"
        )
    if len(reason) > 300:
        raise InvalidRequest("reason: at most 300 characters are kept.", param="reason")
    change = {switch.at: timezone.now() if on else None, switch.reason: reason.strip() if on else ""}
    if not compare_and_set(row, expect={f"{switch.at}__isnull": on}, change=change):
        raise Conflict(f"This {name} is {'already' if on else 'not'} {switch.on}.")
    touch(LIVE_STATE)
    record(
        actor,
        action=f"{name}.{switch.on if on else switch.off}",
        object_type=kind,
        object_id=row.pk,
        object_name=str(row),
        before={switch.on: not on},
        after={switch.on: on},
        reason=reason.strip(),
    )
    return row
