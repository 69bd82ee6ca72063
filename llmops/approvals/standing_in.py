"""Standing in for somebody who is away: from a moment to another, another person decides what they could.

The stand-in decides in their own name, with the power of the one who is away, as far as that one holds it at the moment. Two people stay
two people: what the one who is away has decided, asked for, or is asked for, their stand-in does not decide, and the other way round.
What a stand-in may decide they also see; nothing else is lent.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Q, QuerySet

from llmops.access.selectors import powers_of
from llmops.approvals.models import StandIn
from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.base.requests import user_actor
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest, NotFound, PermissionDenied
from llmops.core.texts import text_problem

KIND = "approvals.standin"
LONGEST = timedelta(days=90)
_LONGEST_REASON = 300


def name_stand_in(
    actor: Actor,
    *,
    person: str,
    stand_in: str,
    ends_at: datetime,
    starts_at: datetime | None = None,
    reason: str = "",
) -> StandIn:
    """Have ``stand_in`` decide for ``person`` (usernames) from ``starts_at`` (now) to ``ends_at``.

    People name one for themselves; whoever may manage members of the whole organisation does for others. Raises ``InvalidRequest``
    naming the field, ``Conflict`` where the person has a stand-in within that time already.
    """
    if actor.kind != "user":
        raise PermissionDenied(
            "Only a person who is signed in names a stand-in; a key or a command is nobody's word."
        )
    reason = reason.strip()
    if len(reason) > _LONGEST_REASON:
        raise InvalidRequest(f"reason: at most {_LONGEST_REASON} characters.", param="reason")
    if problem := text_problem(reason):
        raise InvalidRequest(f"reason: {problem}.", param="reason")
    with transaction.atomic():
        user = get_user_model().objects.filter(pk=actor.identifier).first()
        powers = powers_of(user)
        if (user is None or user.get_username() != person) and not powers.allow("member.manage", None):
            # Before anything is looked up: whether there is such an account is not for everybody.
            raise _for_oneself()
        away = _account(person, "person", lock=True)
        other = _stand_in(stand_in, told=powers.allow("member.view", None))
        now = database_now()
        begin = max(starts_at or now, now)
        if away.pk == other.pk:
            raise InvalidRequest("stand_in: name another person.", param="stand_in")
        if not powers_of(away).allow_anywhere("approval.decide"):
            raise InvalidRequest(
                f"person: {away.get_username()} decides nothing that could be lent.", param="person"
            )
        if ends_at <= begin:
            raise InvalidRequest("ends_at: it must end after it begins, and in the future.", param="ends_at")
        if ends_at - begin > LONGEST:
            raise InvalidRequest(
                f"ends_at: at most {LONGEST.days} days; name one again then.", param="ends_at"
            )
        overlapping = not_over(now).filter(person=away, starts_at__lt=ends_at, ends_at__gt=begin)
        if (there := overlapping.select_related("stand_in").first()) is not None:
            raise Conflict(
                f"{there.stand_in.get_username()} stands in for {away.get_username()} then. End that first.",
                param="person",
            )
        row = StandIn.objects.create(
            person=away,
            stand_in=other,
            starts_at=begin,
            ends_at=ends_at,
            reason=reason,
            named_by=actor.name[:200],
        )
        told = {
            "person": away.get_username(),
            "stand_in": other.get_username(),
            "starts_at": begin.isoformat(),
            "ends_at": ends_at.isoformat(),
        }
        _record(actor, row, "stand_in.named", after=told, reason=reason)
    return row


def end_stand_in(actor: Actor, *, row: StandIn) -> StandIn:
    """End it before its time. Who is away does, whoever may name one for others, and the stand-in too. What was decided stays."""
    if actor.kind != "user":
        raise PermissionDenied("Only a person who is signed in ends this.")
    with transaction.atomic():
        if actor.identifier not in (str(row.person_id), str(row.stand_in_id)):
            _refuse_for_others(actor, row.person)
        now = database_now()
        if row.ends_at <= now or not compare_and_set(
            row, expect={"ended_at": None}, change={"ended_at": now, "updated_at": now}
        ):
            raise Conflict("This is over already.")
        _record(actor, row, "stand_in.ended", after={"ended_at": now.isoformat()})
    return row


def not_over(now: datetime) -> QuerySet[StandIn]:
    return StandIn.objects.filter(ended_at=None, ends_at__gt=now)


def lenders(user_id: str, now: datetime | None = None) -> list[Any]:
    """The people for whom this account stands in at the moment."""
    if not user_id.isdigit():
        return []
    now = now or database_now()
    rows = not_over(now).filter(stand_in_id=int(user_id), stand_in__is_active=True, person__is_active=True)
    rows = rows.filter(starts_at__lte=now).select_related("person").order_by("starts_at", "pk")
    return [row.person for row in rows]


def stand_ins_for(people: Iterable[Any], now: datetime) -> QuerySet[Any]:
    """Accounts that stand in at the moment for any of ``people`` (ids)."""
    rows = not_over(now).filter(person_id__in=list(people), starts_at__lte=now)
    return get_user_model().objects.filter(pk__in=rows.values("stand_in_id"), is_active=True)


def shown_rows(actor: Actor, now: datetime) -> QuerySet[StandIn]:
    """What is not over and ``actor`` has a part in; whoever manages members of the whole organisation sees all."""
    rows = not_over(now).select_related("person", "stand_in").order_by("starts_at", "pk")
    if actor.kind != "user":
        return rows.none()
    if _manages(actor):
        return rows
    return rows.filter(Q(person_id=actor.identifier) | Q(stand_in_id=actor.identifier))


def may_name_for_others(actor: Actor) -> bool:
    return actor.kind == "user" and _manages(actor)


def _refuse_for_others(actor: Actor, person: Any) -> None:
    if actor.identifier != str(person.pk) and not _manages(actor):
        raise _for_oneself()


def _for_oneself() -> PermissionDenied:
    return PermissionDenied(
        "You name a stand-in for yourself. For others somebody does who manages members of the whole organisation.",
        param="person",
    )


def _manages(actor: Actor) -> bool:
    user = get_user_model().objects.filter(pk=actor.identifier).first()
    return powers_of(user).allow("member.manage", None)


def _active(username: str) -> QuerySet[Any]:
    return get_user_model().objects.filter(username=username, is_active=True)


def _account(username: str, name: str, *, lock: bool = False) -> Any:
    rows = _active(username)
    found = (rows.select_for_update() if lock else rows).first()
    if found is None:
        raise InvalidRequest(f"{name}: there is no account of this name.", param=name)
    return found


def _stand_in(username: str, *, told: bool) -> Any:
    """The account that is to stand in. ``told``: who asks may know whether there is one of this name that decides nothing."""
    found = _account(username, "stand_in") if told else _active(username).first()
    if found is not None and powers_of(found).allow_anywhere("approval.decide"):
        return found
    who = f"{username} has no" if told else "nobody of this name has an"
    raise InvalidRequest(
        f"stand_in: {who} inbox to decide in. Name an operator, a reviewer, somebody of finance or an administrator.",
        param="stand_in",
    )


def _record(actor: Actor, row: StandIn, action: str, *, after: dict[str, Any], reason: str = "") -> None:
    record(
        actor,
        action=action,
        object_type=KIND,
        object_id=row.pk,
        object_name=str(row)[:200],
        after=after,
        reason=reason,
    )


def find(pk: Any, actor: Actor) -> StandIn:
    """Raises ``NotFound`` for one that is over, or that ``actor`` has no part in."""
    found = shown_rows(actor, database_now()).filter(pk=pk).first()
    if found is None:
        raise NotFound("There is no such stand-in, or it is over.")
    return found


def named(user: Any) -> str:
    return user_actor(user).name
