"""Appending to the trail. Other apps call ``record`` as the last statement of their transaction."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, transaction
from django.db.models import Model
from django.utils import timezone

from llmops.audit import chain
from llmops.audit.models import ChainHead, Event
from llmops.base.compiled import CompiledQuery
from llmops.core.actors import Actor
from llmops.core.redaction import redact, redact_text

# Every change of the control plane asks these; put into SQL by the ORM each time, they would be half of what an event takes.
_HEAD = CompiledQuery(
    lambda: ChainHead.objects.select_for_update().filter(pk=1).values_list("sequence", "hash")
)
_MOVE_HEAD = f"UPDATE {ChainHead._meta.db_table} SET sequence = %s, hash = %s WHERE id = 1"  # noqa: S608 - a name of our own


def _within_a_transaction() -> bool:
    """Whether the caller opened a transaction. One that Django wraps around a test does not count: with it, no test would see
    a caller that forgot."""
    return any(not block._from_testcase for block in transaction.get_connection().atomic_blocks)


def record(
    actor: Actor,
    *,
    action: str,
    object_type: str,
    object_id: Any,
    object_name: str,
    project_id: UUID | None = None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    reason: str = "",
) -> Event:
    """Append one event inside the caller's transaction.

    ``before`` and ``after`` hold only what changed (or the whole new object), as JSON-like values; secrets are masked
    here once more, whatever the caller passed. The chain head is locked until the transaction ends, so this comes last.
    """
    if not _within_a_transaction():
        raise RuntimeError("audit.record needs the transaction of the change it describes")
    [(sequence, last)] = _HEAD.rows()
    row: dict[str, Any] = {
        "sequence": sequence + 1,
        "at": timezone.now(),
        "actor_kind": actor.kind,
        "actor_id": actor.identifier[:64],
        "actor_name": _text(actor.name, 200),
        "ip": _text(actor.ip, 64),
        "request_id": _text(actor.request_id, 80),
        "action": action,
        "object_type": object_type,
        "object_id": str(object_id)[:64],
        "object_name": _text(object_name, 200),
        "project_id": project_id,
        "before": _plain(before),
        "after": _plain(after),
        "reason": _text(reason),
        "origin": _origin(actor),
        "prev_hash": last,
    }
    event = Event(**row)
    event.hash = chain.event_hash(as_exported(event))
    event.save(force_insert=True)
    with connection.cursor() as cursor:
        cursor.execute(_MOVE_HEAD, [event.sequence, event.hash])
    return event


def record_about(
    actor: Actor,
    row: Model,
    *,
    action: str,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    reason: str = "",
    project_id: UUID | None = None,
) -> Event:
    """``record`` with the object's type, id, name and project read from ``row``.

    Where both ``before`` and ``after`` are given, only the fields that differ are kept. Call it even when nothing differs:
    that somebody saved is on the record too.
    """
    if before is not None and after is not None:
        differing = [name for name in after if before.get(name) != after[name]]
        before, after = (
            {name: before.get(name) for name in differing},
            {name: after[name] for name in differing},
        )
    return record_of(
        actor, row, action=action, before=before, after=after, reason=reason, project_id=project_id
    )


def record_of(
    actor: Actor,
    row: Model,
    *,
    action: str,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    reason: str = "",
    project_id: UUID | None = None,
) -> Event:
    """As ``record_about``, with ``before`` and ``after`` as they are."""
    return record(
        actor,
        action=action,
        object_type=row._meta.label_lower,
        object_id=row.pk,
        object_name=str(row),
        project_id=project_id or getattr(row, "project_id", None),
        before=before,
        after=after,
        reason=reason,
    )


def as_exported(event: Event) -> dict[str, Any]:
    """The event as the chain hashes and the export writes it: JSON-like, times as text."""
    found = {name: getattr(event, name) for name in chain.FIELDS}
    if event.origin is not None:
        found["origin"] = event.origin
    found["at"] = chain.time_text(event.at)
    found["project_id"] = str(event.project_id) if event.project_id else None
    return found


def _origin(actor: Actor) -> dict[str, str] | None:
    found = {"agent": _text(actor.agent, 200), "session": _text(actor.session, 64)}
    return {name: text for name, text in found.items() if text} or None


def _plain(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """JSON-like copy without secrets; floats become text, since databases do not all give them back unchanged."""
    if value is None:
        return None
    return _storable(json.loads(json.dumps(redact(value), cls=DjangoJSONEncoder), parse_float=str))


def _text(text: str, longest: int | None = None) -> str:
    return _storable(redact_text(text))[:longest]


def _storable(value: Any) -> Any:
    """Text without what a database refuses to hold (NUL, halves of surrogate pairs)."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return value
