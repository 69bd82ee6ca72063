"""Looking for words in what calls said and were answered, where their project has it kept for people.

The texts are sealed, so nothing can be indexed: they are opened one after the other, newest first, within bounds of time and number,
and a search goes on from where the one before it stopped. Every search is on the record, with the calls of which it showed something.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from llmops.access.models import Project
from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.core.actors import Actor
from llmops.core.digests import digest
from llmops.core.errors import InvalidRequest
from llmops.usage.models import KeptAnswer, KeptText
from llmops.usage.texts import Texts, nothing_kept, unsealed

LEAST_LETTERS, MOST_LETTERS = 2, 200
#: Calls found, and calls looked through, in one search.
MOST_FOUND, MOST_LOOKED_AT = 50, 20_000
#: How long one search may take, in seconds.
MOST_S = 1.5
_BATCH = 200
#: Characters of the text on either side of what was found.
_AROUND = 90


@dataclass(frozen=True, slots=True)
class Hit:
    """The first place of a call at which the words stand. ``part``: whose text it is (a role), ``text``, ``refusal`` or ``tool`` for
    one of the answer. ``more``: in how many further texts of the call they stand."""

    call_id: UUID
    started_at: datetime
    part: str
    answered: bool
    before: str
    found: str
    after: str
    more: int


@dataclass(frozen=True, slots=True)
class Found:
    """``looked_at`` calls, newest first, back to ``reached``. ``next_cursor`` where there are older ones to look through."""

    hits: list[Hit]
    looked_at: int
    reached: datetime | None
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """``word``: the longest of the words. To look for it alone takes a tenth of the time, and most texts do not have it."""

    word: str
    pattern: re.Pattern[str]


def search_texts(
    actor: Actor,
    *,
    project: Project,
    words: str,
    since: timedelta | None = None,
    cursor: str = "",
    most_s: float = MOST_S,
) -> Found:
    """Calls of ``project`` whose kept texts say ``words``, in whatever case and with whatever space between them.

    ``since``: how far back; None for all that is kept. Whoever calls this has asked whether the actor may read texts of the project.
    Raises ``InvalidRequest`` for words or a cursor that are none, ``NotFound`` where nothing is kept for people.
    """
    wanted, at = _wanted(words), _place(cursor)
    if project.archived_at or not project.keep_texts_percent or not project.keep_texts_readable:
        raise nothing_kept()
    now = database_now()
    kept_for = timedelta(days=project.keep_texts_days)
    kept = KeptText.objects.filter(
        project_id=project.pk, readable=True, started_at__gt=now - min(kept_for, since or kept_for)
    )
    until = time.monotonic() + most_s
    hits: list[Hit] = []
    looked_at, reached, over = 0, None, False
    for texts, started_at in _newest_first(kept, at, until=now + kept_for):
        looked_at, reached, at = looked_at + 1, started_at, (started_at, texts.call_id)
        if (hit := _hit(wanted, texts, started_at)) is not None:
            hits.append(hit)
        if len(hits) >= MOST_FOUND or looked_at >= MOST_LOOKED_AT or time.monotonic() >= until:
            over = True
            break
    more = over and at is not None and kept.filter(_older(*at)).exists()
    with transaction.atomic():
        # Nothing is shown that is not on the record. The words themselves may be what must not be kept: their digest can be compared.
        record(
            actor,
            action="usage.texts_searched",
            object_type="access.project",
            object_id=project.pk,
            object_name=project.slug,
            project_id=project.pk,
            after={
                "words": digest(" ".join(words.split())),
                "looked_at": looked_at,
                "shown": [str(hit.call_id) for hit in hits],
            },
        )
    return Found(hits, looked_at, reached, f"{at[0].isoformat()}|{at[1]}" if more and at else None)


def _wanted(words: str) -> _Wanted:
    each = words.split()
    if not LEAST_LETTERS <= len(" ".join(each)) <= MOST_LETTERS:
        raise InvalidRequest(
            f"words: give {LEAST_LETTERS} to {MOST_LETTERS} characters to look for.", param="words"
        )
    pattern = re.compile(r"\s+".join(map(re.escape, each)), re.IGNORECASE)
    return _Wanted(max(each, key=len).casefold(), pattern)


def _place(cursor: str) -> tuple[datetime, UUID] | None:
    if not cursor:
        return None
    at, _, call = cursor.partition("|")
    try:
        place = datetime.fromisoformat(at), UUID(call)
    except ValueError:
        place = None
    if place is None or place[0].tzinfo is None:
        raise InvalidRequest("after: this place is not known; search anew.", param="after")
    return place


def _older(at: datetime, call: UUID) -> Q:
    # The first condition is that of the index.
    return Q(started_at__lte=at) & (Q(started_at__lt=at) | Q(call_id__lt=call))


def _newest_first(
    kept: QuerySet[KeptText], at: tuple[datetime, UUID] | None, *, until: datetime
) -> Iterator[tuple[Texts, datetime]]:
    while True:
        rows = kept if at is None else kept.filter(_older(*at))
        batch = list(rows.order_by("-started_at", "-call_id")[:_BATCH])
        answers = {
            one.call_id: one
            for one in KeptAnswer.objects.filter(
                pk__in=[row.pk for row in batch], project_id__in={row.project_id for row in batch}
            )
        }
        for row in batch:
            texts = unsealed(row, answers.get(row.pk), until=until)
            yield texts or Texts(row.pk, until, []), row.started_at
        if len(batch) < _BATCH:
            return
        at = batch[-1].started_at, batch[-1].call_id


def _hit(wanted: _Wanted, texts: Texts, started_at: datetime) -> Hit | None:
    first, part, text, answered, more = None, "", "", False, -1
    for of_answer, parts in ((False, texts.asked), (True, texts.answered)):
        for name, said in parts:
            if wanted.word not in said.casefold() or (match := wanted.pattern.search(said)) is None:
                continue
            more += 1
            if first is None:
                first, part, text, answered = match, name, said, of_answer
    if first is None:
        return None
    begin, end = first.span()
    start, stop = max(0, begin - _AROUND), min(len(text), end + _AROUND)
    return Hit(
        call_id=texts.call_id,
        started_at=started_at,
        part=part,
        answered=answered,
        before=("…" if start else "") + text[start:begin],
        found=text[begin:end],
        after=text[end:stop] + ("…" if stop < len(text) else ""),
        more=more,
    )
