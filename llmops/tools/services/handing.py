"""Actions that a service carries out itself: a token that is redeemed once, and a report of what came of it. And what a person
finds out about an action of unknown outcome."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils.crypto import salted_hmac

from llmops.access.selectors import powers_of_actor, why_not_in_force
from llmops.base.clock import database_now
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.digests import canonical_json, equal
from llmops.core.errors import Conflict, InvalidRequest, PermissionDenied
from llmops.core.texts import text_problem
from llmops.tools import rules
from llmops.tools.executors import Outcome
from llmops.tools.executors.base import DEEPEST_RESULT, MOST_RESULT_BYTES, too_deep
from llmops.tools.models import Action, Tool
from llmops.tools.services.executing import finish, refused_before_start, take
from llmops.tools.services.proposing import audit


def token_of(action: Action) -> str:
    """What redeems this action, with exactly these arguments. It follows from the installation's key and is stored nowhere."""
    code = salted_hmac("llmops.tools.redeem", f"{action.pk}:{action.digest}", algorithm="sha256").hexdigest()
    return f"act_{code}"


def redeem(actor: Actor, *, action: Action, token: str) -> tuple[Action, UUID]:
    """Claim an approved action for whoever shows its token: once. The claim's id belongs into the report.

    Raises ``PermissionDenied`` for a wrong token, ``Conflict`` for an action that is not to be carried out (any more).
    """
    _refuse_who_may_not_propose(actor, action)
    if why := why_not_in_force(actor):
        raise PermissionDenied(f"{why} It carries nothing out until it is in force again.")
    if not equal(token_of(action), token):
        raise PermissionDenied("This token does not belong to this action.", param="token")
    with transaction.atomic():
        tool = Tool.objects.select_for_update(of=("self",)).get(pk=action.tool_id)
        stored = Action.objects.select_related("version__tool", "request", "tool").get(pk=action.pk)
        definition = rules.read_definition(stored.version.definition)
        if definition.execution != rules.SERVICE:
            raise Conflict("The console carries this action out itself; there is nothing to redeem.")
        _refuse_other_than_approved(stored)
        if tool.paused_at is not None:
            raise Conflict(
                f"The tool {tool.slug} is paused. The token stays good; try again when it is resumed."
            )
        now = database_now()
        if not refused_before_start(actor, stored, now):
            claim_id = take(stored, now, definition.timeout_s, by=actor.name)
            if claim_id is None:
                raise Conflict("This action was redeemed already. It is carried out once.")
            audit(actor, stored, "started", after={"version": stored.version.number, "tool": tool.slug})
            return stored, claim_id
    raise Conflict(stored.message)


def report(
    actor: Actor, *, action: Action, claim_id: UUID, succeeded: bool, result: Any = None, message: str = ""
) -> Action:
    """What came of an action that was redeemed. Raises ``Conflict`` for another claim, or when somebody decided meanwhile."""
    _refuse_who_may_not_propose(actor, action)
    if too_deep(result):
        raise InvalidRequest(
            f"result: objects and lists in each other at most {DEEPEST_RESULT} deep.", param="result"
        )
    try:
        size = len(canonical_json(result))
    except (ValueError, TypeError, RecursionError):
        raise InvalidRequest("result: this cannot be written as JSON.", param="result") from None
    if size > MOST_RESULT_BYTES:
        raise InvalidRequest(f"result: at most {MOST_RESULT_BYTES} bytes.", param="result")
    if problem := text_problem(result, lines=True):
        raise InvalidRequest(f"result: {problem}.", param="result")
    if problem := text_problem(message, lines=True):
        raise InvalidRequest(f"message: {problem}.", param="message")
    if action.claim_id != claim_id:
        raise Conflict("claim: this is not the claim under which the action was redeemed.", param="claim")
    if action.state not in (Action.CLAIMED, Action.UNKNOWN) or action.resolution:
        raise Conflict(f"This action is over: {action.get_state_display().lower()}.")
    said = Outcome("succeeded" if succeeded else "failed", result, message[:1000])
    became = finish(action, claim_id, said, actor)
    action.refresh_from_db()
    if became != said.state or action.resolution:
        raise Conflict(f"Somebody has decided about this meanwhile: {action.get_state_display().lower()}.")
    return action


def resolve(actor: Actor, *, action: Action, happened: bool, reason: str) -> Action:
    """What a person found out about an action of unknown outcome: it happened, or it did not. Nothing is run again; who wants
    it done proposes it anew."""
    if actor.kind != "user":
        raise PermissionDenied("Only a person who is signed in can say what happened.")
    if not powers_of_actor(actor).allow("action.resolve", action.project_id):
        raise PermissionDenied("You may not decide about outcomes in this project.")
    reason = reason.strip()
    if not reason:
        raise InvalidRequest("reason: Say how you found out.", param="reason")
    if problem := text_problem(reason, lines=True):
        raise InvalidRequest(f"reason: {problem}.", param="reason")
    with transaction.atomic():
        now: datetime = database_now()
        if not compare_and_set(
            action,
            expect={"state": Action.UNKNOWN, "resolution": ""},
            change={
                "state": Action.SUCCEEDED if happened else Action.FAILED,
                "resolution": Action.HAPPENED if happened else Action.DID_NOT,
                "resolved_by": actor.name[:200],
                "resolved_at": now,
                "updated_at": now,
            },
        ):
            raise Conflict("The outcome of this action is not unknown (any more). Reload to see it.")
        audit(
            actor,
            action,
            "resolved",
            before={"state": Action.UNKNOWN},
            after={"state": action.state, "resolution": action.resolution},
            reason=reason,
        )
    return action


def _refuse_who_may_not_propose(actor: Actor, action: Action) -> None:
    if not powers_of_actor(actor).allow("action.propose", action.project_id):
        raise PermissionDenied("You may not carry out actions in this project.")


def _refuse_other_than_approved(action: Action) -> None:
    if action.state == Action.WAITING:
        raise Conflict("This action is not approved yet.")
    if action.claimed_at is not None:
        raise Conflict("This action was redeemed already. It is carried out once.")
    if action.state != Action.APPROVED:
        raise Conflict(f"This action is over: {action.get_state_display().lower()}.")
