"""Reading what a call said, and what it was answered, where its project has that kept for people. Every reading is on the record.

Old texts, kept while nobody was to read them, stay closed; and all are closed once the project says so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from llmops.access.models import Project
from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.base.master_keys import master_keys
from llmops.core.actors import Actor
from llmops.core.errors import ConsoleError, NotFound
from llmops.usage.models import Call, KeptAnswer, KeptText
from llmops.usage.records import kept_answer_identity, kept_text_identity

#: Why there is nothing to be read.
NONE_KEPT, CLOSED, NOT_THIS, GONE = "none_kept", "closed", "not_this", "gone"
PERMISSION = "text.read"
#: Endpoints whose calls can be asked again.
REPLAYABLE = ("chat.completions", "responses")


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a call's texts can be read, without opening them; ``why`` not, and until when they are kept."""

    why: str = ""
    until: datetime | None = None

    @property
    def there(self) -> bool:
        return not self.why


@dataclass(frozen=True, slots=True)
class Texts:
    """``asked`` are pairs of a role and text, ``answered`` pairs of ``text``, ``refusal`` or ``tool`` and the words.

    ``request``: the members to send again, without who asked and for which model; None where they were too many. ``cut`` and
    ``answer_cut``: there was more. ``changed``: something was taken out of what was asked.
    """

    call_id: UUID
    until: datetime
    asked: list[tuple[str, str]]
    cut: bool = False
    changed: bool = False
    request: dict[str, Any] | None = None
    answered: list[tuple[str, str]] = field(default_factory=list)
    answer_cut: bool = False


def standing_of(call: Call, *, now: datetime | None = None) -> Standing:
    return _standing(call, Project.objects.filter(pk=call.project_id, archived_at=None).first(), now)


def _standing(call: Call, project: Project | None, now: datetime | None = None) -> Standing:
    if project is None or not project.keep_texts_percent:
        return Standing(NONE_KEPT)
    if not project.keep_texts_readable:
        return Standing(CLOSED)
    until = call.started_at + timedelta(days=project.keep_texts_days)
    if until <= (now or database_now()):
        return Standing(GONE)
    if not KeptText.objects.filter(pk=call.pk, project_id=call.project_id, readable=True).exists():
        return Standing(NOT_THIS)
    return Standing(until=until)


@transaction.atomic
def read_texts(actor: Actor, *, calls: Sequence[Call], why: str) -> dict[UUID, Texts]:
    """The texts of those of ``calls`` that have some, on the record: one event, about the first of them.

    ``why`` is what they are read for: ``read``, ``compared``, ``replayed``, ``kept``. Whoever calls this has asked whether the actor may.
    Raises ``NotFound`` when none of them has any.
    """
    found: dict[UUID, Texts] = {}
    for call in calls:
        standing = standing_of(call)
        if standing.until is not None and (texts := _opened(call, standing.until)) is not None:
            found[call.pk] = texts
    if not found:
        raise nothing_kept()
    first = next(call for call in calls if call.pk in found)
    record(
        actor,
        action="usage.texts_read",
        object_type="usage.call",
        object_id=first.pk,
        object_name=str(first.pk),
        project_id=first.project_id,
        after={"for": why, "calls": [str(pk) for pk in found]},
    )
    return found


def opened(call: Call) -> Texts:
    """The texts of ``call``. Whoever calls this puts it on record in the same transaction. Raises ``NotFound`` without any."""
    standing = standing_of(call)
    found = _opened(call, standing.until) if standing.until is not None else None
    if found is None:
        raise nothing_kept()
    return found


def looked_at(call: Call) -> Texts | None:
    """For figures about a request, and for nothing that shows its words: no reading by a person. None without any."""
    standing = standing_of(call)
    return _opened(call, standing.until) if standing.until is not None else None


def nothing_kept() -> NotFound:
    return NotFound(
        "The texts of this call are not kept, or not for people to read: its project says which are, and for how long."
    )


def _opened(call: Call, until: datetime) -> Texts | None:
    row = KeptText.objects.filter(pk=call.pk, project_id=call.project_id, readable=True).first()
    if row is None:
        return None
    answer = KeptAnswer.objects.filter(pk=call.pk, project_id=call.project_id).first()
    return unsealed(row, answer, until=until)


def unsealed(row: KeptText, answer: KeptAnswer | None, *, until: datetime) -> Texts | None:
    """The texts of one call, kept until ``until``; None when they cannot be opened. Whoever calls this puts it on record."""
    told = _json(row.sealed, kept_text_identity(row.pk))
    if not isinstance(told, dict):
        return None
    said = _json(answer.sealed, kept_answer_identity(row.pk)) if answer is not None else None
    said = said if isinstance(said, dict) else {}
    request = told.get("request")
    return Texts(
        call_id=row.pk,
        until=until,
        asked=_pairs(told.get("texts")),
        cut=bool(told.get("cut")),
        changed=bool(told.get("changed")),
        request=request if isinstance(request, dict) else None,
        answered=_pairs(said.get("parts")),
        answer_cut=bool(said.get("cut")),
    )


def _json(sealed: str, identity: str) -> Any:
    try:
        return json.loads(master_keys().open(sealed, identity=identity))
    except (ConsoleError, ValueError):
        return None


def _pairs(value: Any) -> list[tuple[str, str]]:
    return [(str(one[0]), str(one[1])) for one in value or () if isinstance(one, list) and len(one) == 2]
