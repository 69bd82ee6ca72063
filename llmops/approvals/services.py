"""Asking for an act that takes a second person, and deciding about it.

Whoever decides names the digest of what they saw. The request's row is locked while it is decided: of two who approve at
once one is first, and the act is carried out in the transaction of the approval that completes it, so once or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.db.models import Q

from llmops.access.holders import holders_of_key
from llmops.access.selectors import NotInForce, not_in_force, powers_of, powers_of_actor
from llmops.approvals.kinds import kind_named
from llmops.approvals.models import Decision, Request
from llmops.approvals.standing_in import lenders
from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.base.requests import user_actor
from llmops.base.transitions import compare_and_set
from llmops.core.actors import SYSTEM, Actor, ActorKind, job_actor
from llmops.core.digests import digest, equal
from llmops.core.errors import Conflict, InvalidRequest, NotFound, PermissionDenied
from llmops.core.texts import text_problem

_LONGEST_REASON = 500
#: What follows where the key that asked is not in force.
NOT_IN_ITS_NAME = "So nothing is approved that was asked for with it. Reject this, or approve it when the key is in force again."
_DECIDED = "You have decided about this already, or who stands in for you has. Another person must."


def ask(
    actor: Actor,
    *,
    kind: str,
    title: str,
    content: Mapping[str, Any],
    object_type: str,
    object_id: Any,
    object_name: str,
    project_id: UUID | None,
    reason: str,
    latest: datetime | None = None,
    required: int | None = None,
    told: Mapping[str, Any] | None = None,
) -> Request:
    """Put an act before those who may approve it. It stays open for the kind's lifetime, and not beyond ``latest``.

    ``required`` says how many must agree in place of the kind, whoever asks. ``told`` goes into the trail beside the title.
    """
    how = kind_named(kind)
    reason = _checked_reason(reason, "Say why; whoever approves it must be able to judge.")
    with transaction.atomic():
        now = database_now()
        expires_at = min(now + how.lifetime, latest) if latest else now + how.lifetime
        if required is None:
            # A key or a command is nobody's word, and whoever holds it may be among those who approve.
            required = how.required if actor.kind == "user" else how.required + 1
        made = Request.objects.create(
            kind=kind,
            title=title[:200],
            content=dict(content),
            digest=digest(dict(content)),
            object_type=object_type,
            object_id=str(object_id),
            object_name=object_name,
            project_id=project_id,
            reason=reason,
            requested_by_kind=actor.kind,
            requested_by_id=actor.identifier[:64],
            requested_by_name=actor.name[:200],
            required=required,
            expires_at=expires_at,
        )
        tell = {"title": made.title, "expires_at": expires_at.isoformat(), **(told or {})}
        _audit(actor, made, "requested", reason, tell)
    return made


def decide(actor: Actor, *, request_id: UUID, approves: bool, seen: str, reason: str = "") -> Request:
    """Approve or reject. With the approval that completes it the act is carried out.

    ``seen`` is the digest of what the person was shown. Raises ``PermissionDenied`` for the requester, for whoever is no
    person, and for whoever may not; ``Conflict`` when it is decided already, has run out, says something else by now, or who
    asked may not ask for it any more. An earlier approval counts as long as who gave it still may. What cannot be done as it was
    asked for any more ends as ``void`` instead of being approved.
    """
    reason = _checked_reason(reason, "" if approves else "Say why; whoever asked wants to know.")
    with transaction.atomic():
        row = _locked(request_id)
        away = _deciding_for(actor, row)
        _refuse_what_is_over(row)
        if not equal(digest(row.content), row.digest) or not equal(seen, row.digest):
            raise Conflict(
                "This is not what you were shown: it was changed meanwhile. Reload the page and read it again."
            )
        if _has_decided(actor.identifier, row):
            raise Conflict(_DECIDED)
        if approves and (why := void_because(row)):
            _void(actor, row, why)
            return row
        mine = Decision.objects.create(
            request=row,
            approves=approves,
            reason=reason,
            digest=row.digest,
            decided_by_id=actor.identifier[:64],
            decided_by_name=actor.name[:200],
            for_id=str(away.pk) if away is not None else "",
            for_name=user_actor(away).name[:200] if away is not None else "",
        )
        lent: dict[str, Any] = {"standing_in_for": user_actor(away).name} if away is not None else {}
        if not approves:
            _close(row, Request.REJECTED)
            _tell_the_end(row)
            _audit(actor, row, "rejected", reason, lent)
            return row
        _refuse_from_who_may_not_ask(row)
        counted = {one.pk for one in row.decisions.filter(approves=True) if _counts(one, row)}
        if mine.pk not in counted:
            # Taken away between the first look and this one: it would be on record and count for nothing.
            raise PermissionDenied(
                "You may not decide about this any more. Nothing was decided; somebody else has to."
            )
        given = len(counted)
        told: dict[str, Any] = {"approvals": f"{given} of {row.required}", **lent}
        if given >= row.required:
            result = kind_named(row.kind).execute(actor, row.pk, row.content)
            _close(row, Request.EXECUTED, result=result)
            told |= result
        _audit(actor, row, "approved", reason, told)
    return row


def cancel(actor: Actor, *, request_id: UUID, reason: str = "") -> Request:
    """Take back what one has asked for oneself."""
    with transaction.atomic():
        row = _locked(request_id)
        if not _asked_by(actor, row):
            raise PermissionDenied("Only who asked for this can take it back. Others can reject it.")
        _refuse_what_is_over(row)
        _close(row, Request.CANCELLED)
        _tell_the_end(row)
        _audit(actor, row, "cancelled", _checked_reason(reason, ""), {})
    return row


def set_aside(request_id: UUID) -> Request:
    """Close a request that another takes the place of, in the caller's transaction, which leaves the event."""
    row = _locked(request_id)
    _refuse_what_is_over(row)
    _close(row, Request.CANCELLED)
    return row


def void_because(row: Request) -> str:
    """Why an open request cannot be done as it was asked for any more; empty while it can."""
    try:
        how = kind_named(row.kind)
    except InvalidRequest:
        return ""
    return how.void(row.content) if how.void is not None and row.state == Request.OPEN else ""


def void_open(kind: str, *, why: str, but: UUID | None = None) -> int:
    """End every open request of ``kind`` besides ``but``: what each was about has changed. How many. Part of a transaction.

    One that somebody is deciding about at this moment is left to them: what they approve is held against what is there.
    """
    open_ones = Request.objects.filter(kind=kind, state=Request.OPEN)
    if but is not None:
        open_ones = open_ones.exclude(pk=but)
    rows = list(
        open_ones.select_for_update(
            of=("self",), skip_locked=connection.features.has_select_for_update_skip_locked
        )
    )
    for row in rows:
        _void(SYSTEM, row, why)
    return len(rows)


def _void(actor: Actor, row: Request, why: str) -> None:
    _close(row, Request.VOID, result={"why": why})
    _tell_the_end(row)
    _audit(actor, row, "voided", why, {})


def expire_requests(now: datetime | None = None) -> int:
    """Close what nobody decided in time; how many."""
    now = now or database_now()
    closed = 0
    over = Request.objects.filter(state=Request.OPEN, expires_at__lte=now).order_by("pk")
    for pk in over.values_list("pk", flat=True)[:500]:
        with transaction.atomic():
            row = _locked(pk)
            if row.state == Request.OPEN and row.expires_at <= now:
                _close(row, Request.EXPIRED)
                _tell_the_end(row)
                _audit(job_actor("approvals.expire"), row, "expired", "Nobody decided in time.", {})
                closed += 1
    return closed


def why_not(actor: Actor, row: Request) -> str:
    """Why a decision of ``actor`` would not count, as things stand; empty where it would."""
    try:
        _deciding_for(actor, row)
        _refuse_what_is_over(row)
    except (PermissionDenied, Conflict) as refused:
        return refused.message
    return _DECIDED if _has_decided(actor.identifier, row) else ""


def may_decide(actor: Actor, row: Request) -> bool:
    """Whether ``actor`` is somebody whose decision would count, as things stand."""
    return not why_not(actor, row)


def decides_for(actor: Actor, row: Request) -> str:
    """The name of whoever ``actor`` would stand in for; empty where they decide by themselves, or not at all."""
    try:
        away = _deciding_for(actor, row)
    except (PermissionDenied, Conflict):
        return ""
    return user_actor(away).name if away is not None else ""


def _locked(request_id: UUID) -> Request:
    row = Request.objects.select_for_update(of=("self",)).filter(pk=request_id).first()
    if row is None:
        raise NotFound("There is no such request.")
    return row


def asker_of(row: Request) -> Actor:
    return Actor(cast(ActorKind, row.requested_by_kind), row.requested_by_id, row.requested_by_name)


def why_not_approved(row: Request) -> str:
    """Why nobody can approve an open request at the moment, though they may reject it: the key that asked is not in force."""
    return _said_of(not_in_force(asker_of(row))) if row.state == Request.OPEN else ""


def _said_of(standing: NotInForce | None) -> str:
    if standing is None:
        return ""
    ways = (
        "or approve it once somebody has resumed the key"
        if standing.for_now
        else "somebody who may can ask again"
    )
    return f"{standing.why} Nothing is approved that was asked for with it: reject it{',' if standing.for_now else ';'} {ways}."


def _asked_by(actor: Actor, row: Request) -> bool:
    return (actor.kind, actor.identifier[:64]) == (row.requested_by_kind, row.requested_by_id)


def _deciding_for(actor: Actor, row: Request) -> Any:
    """Whose power ``actor`` decides with: None for their own, or the account of who is away. Raises ``PermissionDenied``."""
    if actor.kind != "user":
        raise PermissionDenied(
            "Only a person who is signed in can decide; a key or a command is nobody's word."
        )
    how = kind_named(row.kind)
    if why := _objection(actor, row):
        raise PermissionDenied(why)
    if powers_of_actor(actor).allow(how.permission, row.project_id):
        return None
    where = f"in the project {row.project.slug}" if row.project else "for the whole organisation"
    refusal = f"You may not decide about this {where}."
    for person in lenders(actor.identifier):
        if not powers_of(person).allow(how.permission, row.project_id):
            continue
        name = person.get_username()
        if _objection(user_actor(person), row):
            refusal = f"You stand in for {name}, who asked for this or is asked for, and may not decide about it either."
        elif _has_decided(str(person.pk), row):
            refusal = (
                f"You stand in for {name}, who has had a say in this already. Another person must decide."
            )
        else:
            return person
    raise PermissionDenied(refusal)


def _objection(actor: Actor, row: Request) -> str:
    if _asked_by(actor, row):
        return "You asked for this yourself. Another person must decide."
    if row.requested_by_kind == "service_key" and actor.identifier in holders_of_key(
        row.requested_by_id, row.created_at
    ):
        return (
            f"You were shown the secret of {row.requested_by_name}, with which this was asked for, so it may be your own word. "
            "Another person must decide."
        )
    how = kind_named(row.kind)
    return how.objects(actor, row.content) if how.objects is not None else ""


def _has_decided(user_id: str, row: Request) -> bool:
    """Whether this account has, or somebody who stood in for it."""
    return row.decisions.filter(Q(decided_by_id=user_id) | Q(for_id=user_id)).exists()


def _refuse_from_who_may_not_ask(row: Request) -> None:
    """Two people agree who both may, at the moment when it is done: whoever left since is none of them."""
    asks = kind_named(row.kind).asks
    asker = asker_of(row)
    if why := _said_of(not_in_force(asker)):
        raise Conflict(why)
    if asks and not powers_of_actor(asker).allow(asks, row.project_id):
        raise Conflict(
            f"{row.requested_by_name} asked for this and may not ask for it any more. Reject it; somebody who may can ask again."
        )


def _counts(decision: Decision, row: Request) -> bool:
    """Whether an approval counts: who gave it, or lent the power for it, may have lost it since."""
    if (
        decision.for_id
        and not get_user_model().objects.filter(pk=decision.decided_by_id, is_active=True).exists()
    ):
        return False
    holder = Actor("user", decision.for_id or decision.decided_by_id, "")
    return powers_of_actor(holder).allow(kind_named(row.kind).permission, row.project_id)


def _refuse_what_is_over(row: Request) -> None:
    if row.state != Request.OPEN:
        raise Conflict(f"This is over: {row.get_state_display().lower()}. Reload to see who decided.")
    if row.expires_at <= database_now():
        raise Conflict("This has run out: nobody decided in time. It has to be asked for again.")


def _tell_the_end(row: Request) -> None:
    try:
        how = kind_named(row.kind)
    except InvalidRequest:
        # No room knows the kind any more; the request ends all the same.
        return
    if how.ended is not None:
        how.ended(row.content, row.state)


def _close(row: Request, state: str, **change: Any) -> None:
    now = database_now()
    if not compare_and_set(
        row,
        expect={"state": Request.OPEN},
        change={"state": state, "closed_at": now, "updated_at": now, **change},
    ):
        raise Conflict("Somebody else has decided about this meanwhile. Reload to see what.")


def _checked_reason(reason: str, missing: str) -> str:
    reason = reason.strip()
    if missing and not reason:
        raise InvalidRequest(f"reason: {missing}", param="reason")
    if len(reason) > _LONGEST_REASON:
        raise InvalidRequest(f"reason: at most {_LONGEST_REASON} characters.", param="reason")
    # Forms send line breaks of two characters.
    reason = reason.replace("\r\n", "\n")
    if problem := text_problem(reason, lines=True):
        raise InvalidRequest(f"reason: {problem}.", param="reason")
    return reason


def _audit(actor: Actor, row: Request, happened: str, reason: str, told: Mapping[str, Any]) -> None:
    """About the object that the act is about, so that its history shows it: ``budget.raise_approved``."""
    record(
        actor,
        action=f"{row.kind}_{happened}",
        object_type=row.object_type,
        object_id=row.object_id,
        object_name=row.object_name,
        project_id=row.project_id,
        after={"request": str(row.pk), "digest": row.digest, **told},
        reason=reason,
    )
