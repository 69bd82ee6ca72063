"""What services tell about their calls afterwards: resolved, converted, a thumb up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Sum

from llmops.base.clock import database_now
from llmops.base.locks import lock
from llmops.core.actors import Actor
from llmops.core.errors import InvalidRequest, NotFound
from llmops.core.ids import time_of
from llmops.core.money import NANO
from llmops.usage.ingest import write
from llmops.usage.models import Call, CallOutcome, OutcomeKind, OutcomeRollup
from llmops.usage.services.journals import ROLLUPS_LOCK
from llmops.usage.services.retention import calls_since

#: Outcomes in one request, kinds in one project, characters of a note.
MOST_AT_ONCE, MOST_KINDS, LONGEST_NOTE = 1_000, 40, 300
#: What one outcome may bring, and those of a project's calls of one day together (nanodollars): sums of them over years fit
#: into a column.
MOST_WORTH, MOST_WORTH_A_DAY = 10**6 * NANO, 10**8 * NANO
KIND = re.compile(r"[a-z][a-z0-9_]{0,39}")
#: How far a call's clock may be from its id's, and a service's clock ahead of ours.
_APART, _AHEAD = timedelta(hours=1), timedelta(minutes=5)
RECORDED, CHANGED, UNCHANGED, UNKNOWN = "recorded", "changed", "unchanged", "unknown"


@dataclass(frozen=True, slots=True)
class Told:
    """One outcome as a service tells it. ``value_nano`` is what it brought, in nanodollars.

    None: as it was told before; for the first time no money, no note, and now.
    """

    call_id: UUID
    kind: str
    value_nano: int | None = None
    at: datetime | None = None
    note: str | None = None


def report_outcomes(actor: Actor, told: Sequence[Told], *, project_ids: Collection[UUID] | None) -> list[str]:
    """Book outcomes of calls of these projects (None: of all); for each in turn what became of it.

    ``recorded``, ``changed`` (told before with other particulars: the last word counts), ``unchanged``, or ``unknown``: no such
    call, or one of another project. Telling the same again changes nothing. Raises ``NotFound`` when every call is unknown, and
    ``InvalidRequest`` naming the item, with nothing booked.
    """
    now = database_now()
    _check(told, now)
    calls = _calls({one.call_id for one in told}, project_ids, now)
    if told and not calls:
        raise NotFound(
            "call_id: there is no such call in your project. A call is known about two seconds after its end, and until its "
            "retention is over.",
            param="call_id",
        )
    with transaction.atomic():
        # As the ingester does: whoever recomputes rollups holds this lock alone.
        lock(ROLLUPS_LOCK, shared=True)
        for project in sorted({call.project_id for call in calls.values()}):
            lock(f"usage.outcomes:{project}")
        _know_kinds(told, calls)
        return _book(actor, told, calls, now)


def forget_outcomes() -> int:
    """Remove outcomes of calls whose retention is over; their rollups stay. How many went."""
    since = calls_since()
    if since is None:
        return 0
    old = CallOutcome.objects.filter(call_started_at__lt=since).order_by("call_started_at")
    count, _ = CallOutcome.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:20_000])).delete()
    return count


def bucket_key(outcome: CallOutcome) -> tuple[Any, ...]:
    """Where the outcome counts: values of ``OutcomeRollup.DIMENSIONS``."""
    day = outcome.call_started_at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (
        day,
        outcome.project_id,
        outcome.key_id,
        outcome.route,
        outcome.model,
        outcome.feature,
        outcome.kind,
    )


def _check(told: Sequence[Told], now: datetime) -> None:
    if len(told) > MOST_AT_ONCE:
        raise InvalidRequest(f"outcomes: at most {MOST_AT_ONCE} in one request.", param="outcomes")
    for index, one in enumerate(told):
        if not KIND.fullmatch(one.kind):
            raise InvalidRequest(
                f"outcomes[{index}].kind: lowercase letters, digits and underscores, at most 40, such as resolved.",
                param=f"outcomes[{index}].kind",
            )
        if one.value_nano is not None and not 0 <= one.value_nano <= MOST_WORTH:
            raise InvalidRequest(
                f"outcomes[{index}].value: at most {MOST_WORTH // NANO:,} USD.",
                param=f"outcomes[{index}].value",
            )
        if one.note is not None and (len(one.note) > LONGEST_NOTE or "\0" in one.note):
            raise InvalidRequest(
                f"outcomes[{index}].note: at most {LONGEST_NOTE} plain characters.",
                param=f"outcomes[{index}].note",
            )
        if one.at is not None and one.at > now + _AHEAD:
            raise InvalidRequest(
                f"outcomes[{index}].at: this lies in the future.", param=f"outcomes[{index}].at"
            )


def _calls(ids: Collection[UUID], project_ids: Collection[UUID] | None, now: datetime) -> dict[UUID, Call]:
    """The calls, by id; their ids tell on which days to look. An id of days to come (or of years that there are none of) is of
    no call."""
    last_ms = (now + _APART).timestamp() * 1000
    dated = [one for one in ids if one.version == 7 and one.int >> 80 <= last_ms]
    if not dated:
        return {}
    moments = [time_of(one) for one in dated]
    found = Call.objects.filter(
        pk__in=dated, started_at__gte=min(moments) - _APART, started_at__lt=max(moments) + _APART
    )
    if project_ids is not None:
        found = found.filter(project_id__in=list(project_ids))
    columns = ("id", "started_at", "project_id", "key_id", "route", "model", "feature")
    return {call.pk: call for call in found.only(*columns)}


def _know_kinds(told: Sequence[Told], calls: Mapping[UUID, Call]) -> None:
    wanted: dict[UUID, set[str]] = {}
    for one in told:
        if one.call_id in calls:
            wanted.setdefault(calls[one.call_id].project_id, set()).add(one.kind)
    for project, kinds in wanted.items():
        known = set(OutcomeKind.objects.filter(project_id=project).values_list("kind", flat=True))
        fresh = sorted(kinds - known)
        if len(known) + len(fresh) > MOST_KINDS:
            raise InvalidRequest(
                f"outcomes: a project has at most {MOST_KINDS} kinds of outcomes; {fresh[0]!r} would be one too many. Use "
                f"one of {', '.join(sorted(known)[:10])} ...",
                param="kind",
            )
        OutcomeKind.objects.bulk_create([OutcomeKind(project_id=project, kind=kind) for kind in fresh])


def _book(actor: Actor, told: Sequence[Told], calls: Mapping[UUID, Call], now: datetime) -> list[str]:
    stored = {(row.call_id, row.kind): row for row in CallOutcome.objects.filter(call_id__in=list(calls))}
    sums: dict[tuple[Any, ...], Counter[str]] = {}
    fresh: list[CallOutcome] = []
    results = []
    for one in told:
        call = calls.get(one.call_id)
        if call is None:
            results.append(UNKNOWN)
            continue
        known = stored.get((one.call_id, one.kind))
        if known is not None and _same(known, one):
            results.append(UNCHANGED)
            continue
        before = known.value_nano if known else 0
        row = known or CallOutcome(
            call_id=call.pk,
            call_started_at=call.started_at,
            project_id=call.project_id,
            key_id=call.key_id,
            route=call.route,
            model=call.model,
            feature=call.feature,
            kind=one.kind,
        )
        row.told_by = actor.name[:200]
        if one.value_nano is not None:
            row.value_nano = one.value_nano
        if one.note is not None:
            row.note = one.note
        row.at = one.at or (known.at if known else now)
        added = sums.setdefault(bucket_key(row), Counter())
        added["value_nano"] += row.value_nano - before
        if known is None:
            added["outcomes"] += 1
            stored[one.call_id, one.kind] = row
            fresh.append(row)
        elif row.pk:
            row.save()
        results.append(CHANGED if known else RECORDED)
    _refuse_too_much(sums)
    CallOutcome.objects.bulk_create(fresh)
    write.add_outcomes({key: (added["outcomes"], added["value_nano"]) for key, added in sums.items()})
    return results


def _refuse_too_much(sums: Mapping[tuple[Any, ...], Counter[str]]) -> None:
    """Of one day and project: whoever holds a key tells what he likes, and everybody's figures are summed."""
    more: Counter[tuple[datetime, UUID]] = Counter()
    for (day, project, *_), added in sums.items():
        more[day, project] += added["value_nano"]
    for (day, project), worth in more.items():
        if worth <= 0:
            continue
        told = OutcomeRollup.objects.filter(bucket=day, project_id=project).aggregate(sum=Sum("value_nano"))
        if (told["sum"] or 0) + worth > MOST_WORTH_A_DAY:
            raise InvalidRequest(
                f"outcomes: calls of one day bring at most {MOST_WORTH_A_DAY // NANO:,} USD in a project.",
                param="value",
            )


def _same(known: CallOutcome, one: Told) -> bool:
    return (
        one.value_nano in (None, known.value_nano)
        and one.note in (None, known.note)
        and one.at in (None, known.at)
    )
