"""What every change to a draft shares: the lock against publishing, checking, and saying what changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import IntegrityError, models, transaction
from django.utils import timezone

from llmops.audit.services import record
from llmops.base.live import LIVE_STATE, touch
from llmops.base.locks import lock
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest
from llmops.providers.rules import text_problem

#: Held shared while a draft changes and exclusively while it is compiled: what is published was all there at one moment.
DRAFT_LOCK = "providers.draft"

_M = TypeVar("_M", bound=models.Model)


def editing() -> None:
    """Take part in changing drafts until the transaction ends."""
    lock(DRAFT_LOCK, shared=True)


def locked(row: _M) -> _M:
    """The stored row, locked until the transaction ends. Raises ``Conflict`` when it is gone."""
    found = type(row)._base_manager.select_for_update().filter(pk=row.pk).first()
    if found is None:
        raise Conflict(f"This {row._meta.verbose_name} no longer exists.")
    return found


def checked(row: models.Model, *, lines: Iterable[str] = ()) -> None:
    """``lines`` names the fields that may hold line breaks. Raises ``InvalidRequest`` naming the first field that does not fit, with all of them in its data; ``Conflict``
    where the only thing wrong is a name that is taken.
    """
    for field in row._meta.concrete_fields:
        value = getattr(row, field.attname)
        if field.name in tuple(lines) and isinstance(value, str):
            value = value.replace("\n", "").replace("\t", "")
        if problem := text_problem(value):
            raise InvalidRequest(f"{field.name}: {problem}.", param=field.name)
    try:
        row.full_clean()
    except ValidationError as invalid:
        problems = {
            (name if name != NON_FIELD_ERRORS else "request"): messages[0]
            for name, messages in invalid.message_dict.items()
        }
        name, message = next(iter(problems.items()))
        codes = {error.code for errors in invalid.error_dict.values() for error in errors}
        kind = Conflict if codes <= {"unique", "unique_together"} else InvalidRequest
        raise kind(
            f"{name}: {message}",
            param=name if name != "request" else None,
            data={"problems": problems},
        ) from None


def inserted(row: models.Model) -> None:
    """Insert a checked row. Raises ``Conflict`` when somebody else has just taken its name."""
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        raise Conflict(
            f"This {row._meta.verbose_name} could not be added: somebody else has just added one of the same name."
        ) from None


def values(row: models.Model, names: Iterable[str]) -> dict[str, Any]:
    """The named fields as JSON-like values; a related object by its name."""
    found: dict[str, Any] = {}
    for name in names:
        value = getattr(row, name)
        found[name] = str(value) if isinstance(value, models.Model) else value
    return found


def assign(row: models.Model, changes: Mapping[str, Any], *, allowed: Iterable[str]) -> None:
    """Set the fields of ``changes``. Raises ``InvalidRequest`` naming a field that cannot be changed."""
    names = tuple(allowed)
    for name, value in changes.items():
        if name not in names:
            raise InvalidRequest(
                f"{name}: this cannot be changed. Fields that can be: {', '.join(names)}.", param=name
            )
        setattr(row, name, value)


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The members that differ, as they were and as they are."""
    names = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}


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
