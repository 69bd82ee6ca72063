"""Proposing a call of a tool, replacing one that waits by another, and taking one back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction
from django.db.models import Q

from llmops.access.models import Project
from llmops.access.selectors import powers_of_actor, why_not_in_force
from llmops.approvals.services import ask, cancel, set_aside
from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.digests import canonical_json
from llmops.core.errors import Conflict, InvalidRequest, NotFound, PermissionDenied
from llmops.core.texts import text_problem
from llmops.tools import rules
from llmops.tools.models import Action, Tool
from llmops.tools.selectors import lacks_secret, may_call
from llmops.tools.services.approving import ACTION, content_of, release
from llmops.tools.services.binding import digest_of

KIND = "tools.action"
LONGEST_REASON, LONGEST_USERNAME = 2000, 150


def propose(
    actor: Actor,
    *,
    project: Project,
    tool: str,
    arguments: Any,
    reason: str = "",
    run: str = "",
    behalf_of: str = "",
    idempotency_key: str = "",
    once: bool = False,
    carries_out: bool = False,
) -> Action:
    """Ask for a call of the tool of this name. It is checked and classified; then it waits, or nobody need agree and it runs.

    ``behalf_of`` is the username for whom it is asked, who may then not approve it; who may not see the project's members is not told
    whether there is such an account. The same ``idempotency_key`` of the same
    requester gives the same action; with ``once`` also the same call does, as long as the one before is not over. ``carries_out``: where
    nobody need agree, the caller executes it at once, and workers look at it only if the caller does not.

    Raises ``NotFound`` for no such tool, ``InvalidRequest`` naming the member of ``arguments``, ``PermissionDenied`` for who may not
    call it, ``Conflict`` for a tool that is paused or a key that was used for another call.
    """
    if not powers_of_actor(actor).allow("action.propose", project.pk):
        raise PermissionDenied(f"You may not propose actions in the project {project.slug}.")
    if why := why_not_in_force(actor):
        raise PermissionDenied(f"{why} It proposes nothing until it is in force again.")
    reason, run = _text(reason, "reason", LONGEST_REASON, lines=True), _text(run, "run", 64)
    idempotency_key = _text(idempotency_key, "Idempotency-Key", 255)
    person = _person(actor, project, behalf_of)
    try:
        with transaction.atomic():
            if earlier := _earlier(actor, project, tool, arguments, run, person, idempotency_key):
                return earlier
            # Locked: of two that ask for the same at once, the second finds what the first made.
            found = _callable(actor, project, tool)
            if once and (under_way := _under_way(actor, found, arguments, run, person)):
                return under_way
            return _proposed(
                actor, found, arguments, reason, run, person, idempotency_key, carries_out=carries_out
            )
    except IntegrityError:
        # The same key at the same moment: whoever came second gets what the first made.
        if earlier := _earlier(actor, project, tool, arguments, run, person, idempotency_key):
            return earlier
        raise


def revise(actor: Actor, *, action: Action, arguments: Any, reason: str) -> Action:
    """Propose other arguments in place of an action that waits. The old one is closed; the new one is the reviser's, and
    another person must agree to it."""
    if actor.kind != "user":
        raise PermissionDenied("Only a person who is signed in edits an action; a service proposes another.")
    if not powers_of_actor(actor).allow("action.propose", action.project_id):
        raise PermissionDenied("You may not propose actions in this project.")
    reason = _text(reason, "reason", LONGEST_REASON, lines=True)
    if not reason:
        raise InvalidRequest("reason: Say what you changed and why.", param="reason")
    with transaction.atomic():
        if action.request_id is None:
            raise Conflict("This action waits for nobody.")
        set_aside(action.request_id)
        stored = Action.objects.select_for_update(of=("self",)).select_related("tool").get(pk=action.pk)
        now = database_now()
        if not compare_and_set(
            stored,
            expect={"state": Action.WAITING},
            change={"state": Action.SUPERSEDED, "finished_at": now, "updated_at": now},
        ):
            raise Conflict("This action does not wait any more. Reload to see what became of it.")
        person = (stored.behalf_of_id, stored.behalf_of_name)
        tool = _callable(actor, stored.project, stored.tool.slug)
        made = _proposed(actor, tool, arguments, reason, stored.run, person, "", replaces=stored)
        if (made.arguments, made.version_id) == (stored.arguments, stored.version_id):
            raise InvalidRequest("arguments: nothing is different. Approve or reject it.", param="arguments")
    return made


def withdraw(actor: Actor, *, action: Action, reason: str = "") -> Action:
    """Take back what one proposed oneself, as long as nobody began with it."""
    if (actor.kind, actor.identifier[:64]) != (action.requested_by_kind, action.requested_by_id):
        raise PermissionDenied("Only who proposed this can take it back. Reviewers can reject it.")
    if action.request_id is not None and action.state == Action.WAITING:
        cancel(actor, request_id=action.request_id, reason=reason)
        action.refresh_from_db()
        return action
    with transaction.atomic():
        now = database_now()
        if not compare_and_set(
            action,
            expect={"state": Action.APPROVED},
            change={"state": Action.CANCELLED, "finished_at": now, "updated_at": now},
        ):
            raise Conflict("This cannot be taken back any more. Reload to see what became of it.")
        audit(actor, action, "cancelled", after={"state": action.state}, reason=reason)
    return action


def call_off(actor: Actor, *, action: Action, reason: str) -> None:
    """End an action whose run is over, whoever asked for it as it stands: a reviewer may have put it in the place of another.

    Raises ``Conflict`` for one that somebody has decided about, or begun with.
    """
    with transaction.atomic():
        if action.request_id is not None and action.state == Action.WAITING:
            set_aside(action.request_id)
        now = database_now()
        if not compare_and_set(
            action,
            expect={"state": (Action.WAITING, Action.APPROVED), "claimed_at": None},
            change={"state": Action.CANCELLED, "finished_at": now, "updated_at": now},
        ):
            raise Conflict("This has begun, or is over. Reload to see what became of it.")
        audit(actor, action, "cancelled", after={"state": action.state}, reason=reason)


def _proposed(
    actor: Actor,
    tool: Tool,
    arguments: Any,
    reason: str,
    run: str,
    person: tuple[str, str],
    idempotency_key: str,
    replaces: Action | None = None,
    carries_out: bool = False,
) -> Action:
    version = tool.current
    assert version is not None
    definition = rules.read_definition(version.definition)
    given = rules.checked_arguments(definition, arguments)
    found = rules.classify(definition, given)
    now = database_now()
    action = Action(
        project=tool.project,
        tool=tool,
        version=version,
        arguments=canonical_json(given).decode(),
        run=run,
        says=rules.in_words(definition, tool.slug, given),
        reason=reason,
        requested_by_kind=actor.kind,
        requested_by_id=actor.identifier[:64],
        requested_by_name=actor.name[:200],
        behalf_of_id=person[0],
        behalf_of_name=person[1][:200],
        risk=found.risk,
        risk_rule=found.words[:600],
        idempotency_key=idempotency_key,
        supersedes=replaces,
        state=Action.WAITING,
    )
    action.digest = digest_of(action)
    needed = definition.needed(found.risk)
    action.save(force_insert=True)
    told: dict[str, Any] = {
        "action_digest": action.digest,
        "risk": found.risk,
        "because": found.words,
        "tool": str(version),
    }
    if replaces is not None:
        told |= {"replaces": str(replaces.pk), "changes": _changes(replaces, action)}
    if needed == 0:
        release(action, {}, by_who_asked=carries_out)
        audit(actor, action, "proposed", after={"says": action.says, **told}, reason=reason)
        return action
    action.request = ask(
        actor,
        kind=ACTION,
        title=rules.cut(action.says, 200),
        content=content_of(action, found.words),
        object_type=KIND,
        object_id=action.pk,
        object_name=rules.cut(action.says, 200),
        project_id=tool.project_id,
        reason=reason[:500] or "No reason was given.",
        latest=now + timedelta(seconds=definition.approve_within_s),
        required=needed,
        told=told,
    )
    Action.objects.filter(pk=action.pk).update(request=action.request)
    return action


def _changes(before: Action, after: Action) -> list[str]:
    changes = rules.argument_changes(before.given, after.given)
    return [f"{name}: {old or 'nothing'} → {new or 'nothing'}"[:200] for name, old, new in changes[:40]]


def _callable(actor: Actor, project: Project, slug: str) -> Tool:
    """The tool, locked; its current version holds until the transaction ends."""
    found = Tool.objects.select_for_update(of=("self",)).filter(project=project, slug=slug).first()
    if found is None or found.archived_at is not None or found.current is None:
        raise NotFound(f"There is no tool {slug!r} in the project {project.slug}.", param="tool")
    if found.paused_at is not None:
        why = f": {found.pause_reason}" if found.pause_reason else ""
        raise Conflict(f"The tool {slug} is paused{why}. Try again when it is resumed.", param="tool")
    if lacks_secret(found):
        raise Conflict(
            f"The tool {slug} cannot be carried out yet: it has no secret that signs what its webhook gets. Whoever manages the tools "
            "makes one on its page (New signing secret), or over the API (rotate-secret).",
            param="tool",
            code="tool_not_signed",
        )
    if not may_call(actor, rules.read_definition(found.current.definition)):
        raise PermissionDenied(f"This key may not call {slug}; its definition names who may.", param="tool")
    return found


def _earlier(
    actor: Actor,
    project: Project,
    tool: str,
    arguments: Any,
    run: str,
    person: tuple[str, str],
    idempotency_key: str,
) -> Action | None:
    """What the same requester proposed under this key. On behalf of somebody else it would be another action: one who may not approve
    it is part of what was asked for."""
    if not idempotency_key:
        return None
    found = (
        Action.objects.select_related("tool", "version", "request", "project")
        .filter(
            project=project,
            requested_by_kind=actor.kind,
            requested_by_id=actor.identifier[:64],
            idempotency_key=idempotency_key,
        )
        .first()
    )
    if found is None:
        return None
    try:
        same = canonical_json(arguments).decode() == found.arguments
    except (ValueError, TypeError, RecursionError):
        same = False
    if not same or (found.tool.slug, found.run, found.behalf_of_id) != (tool, run, person[0]):
        raise Conflict(
            "This Idempotency-Key was used for another action. Use a new one for each action.",
            param="Idempotency-Key",
        )
    return found


def _under_way(actor: Actor, tool: Tool, arguments: Any, run: str, person: tuple[str, str]) -> Action | None:
    """The same call of the same requester that is not over, or that a reviewer put another in the place of which is not."""
    assert tool.current is not None
    given = rules.checked_arguments(rules.read_definition(tool.current.definition), arguments)
    same = Action(
        version=tool.current,
        arguments=canonical_json(given).decode(),
        run=run,
        requested_by_kind=actor.kind,
        requested_by_id=actor.identifier[:64],
        behalf_of_id=person[0],
    )
    open_states = (Action.WAITING, Action.APPROVED, Action.CLAIMED)
    return (
        Action.objects.select_related("tool", "version", "request", "project")
        .filter(tool=tool, digest=digest_of(same))
        .filter(Q(state__in=open_states) | Q(state=Action.SUPERSEDED, superseded_by__state__in=open_states))
        .order_by("created_at")
        .first()
    )


def _person(actor: Actor, project: Project, username: str) -> tuple[str, str]:
    username = _text(username, "on_behalf_of", LONGEST_USERNAME)
    check_account(actor, project, username)
    return rules.person_said(username), username


def check_account(actor: Actor, project: Project, username: str) -> None:
    """Tell who may see the project's members that a name is nobody's. Nobody else is told anything of it, nor is it looked up."""
    if not username or not powers_of_actor(actor).allow("member.view", project.pk):
        return
    if not get_user_model().objects.filter(username=username, is_active=True).exists():
        raise InvalidRequest("on_behalf_of: there is no account of this name.", param="on_behalf_of")


def _text(value: str, name: str, longest: int, *, lines: bool = False) -> str:
    value = value.strip()
    if len(value) > longest:
        raise InvalidRequest(f"{name}: at most {longest} characters.", param=name)
    if problem := text_problem(value, lines=lines):
        raise InvalidRequest(f"{name}: {problem}.", param=name)
    return value


def audit(
    actor: Actor,
    action: Action,
    happened: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any],
    reason: str = "",
) -> None:
    """One event about the action; ``tool.action_<happened>``, as approvals name theirs."""
    record(
        actor,
        action=f"{ACTION}_{happened}",
        object_type=KIND,
        object_id=action.pk,
        object_name=action.says[:200],
        project_id=action.project_id,
        before=dict(before) if before is not None else None,
        after={"digest": action.digest, **after},
        reason=reason,
    )
