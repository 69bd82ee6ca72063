"""What approvals know of actions: ``settings.APPROVAL_KINDS`` names ``KIND``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth import get_user_model
from django.utils.module_loading import import_string

from llmops.approvals.kinds import Kind
from llmops.approvals.models import Request
from llmops.base.clock import database_now
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.appearance import written_out
from llmops.core.errors import Conflict
from llmops.tools import rules
from llmops.tools.models import Action
from llmops.tools.rules import RISK_WORDS, SERVICE
from llmops.tools.services.binding import binding_problem

#: A kind's name is the beginning of its events: ``tool.action_requested``, ``tool.action_approved``.
ACTION = "tool.action"
#: Who proposes what nobody need agree to and carries it out at once has so long to begin with it before any worker does.
BY_WHO_ASKED = timedelta(seconds=60)


def content_of(action: Action, because: str) -> dict[str, Any]:
    """What a reviewer is shown and agrees to. Texts and whole numbers only, so that no database changes a digit."""
    definition = action.version.definition
    return {
        "action": str(action.pk),
        "action_digest": action.digest,
        "tool": action.tool.slug,
        "version": action.version.number,
        "version_digest": action.version.digest,
        "says": action.says,
        "arguments": action.arguments,
        "risk": action.risk,
        "because": because,
        "run": action.run,
        "by": _carried_out_by(definition),
        "behalf_of": action.behalf_of_id,
        "behalf_of_name": action.behalf_of_name,
        "supersedes": str(action.supersedes_id or ""),
    }


def _carried_out_by(definition: Mapping[str, Any]) -> str:
    if definition["execution"] == SERVICE:
        return "the service that asked, with a token that works once"
    if definition["executor"] == "webhook":
        return f"the console, with a signed request to {definition['settings']['url']}"
    return f"the console, with its function {definition['settings'].get('function', '')}"


def _describe(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = [
        ("What", content["says"]),
        ("Tool", f"{content['tool']}, version {content['version']}"),
        ("Arguments", written_out(content["arguments"])),
        ("Risk", f"{content['risk']}: {RISK_WORDS[content['risk']]}"),
        ("Because of", content["because"]),
        ("Carried out by", content["by"]),
    ]
    if content["behalf_of"]:
        lines.append(("On behalf of", content["behalf_of_name"]))
    if content["run"]:
        lines.append(("Run", content["run"]))
    return lines


def _objects(actor: Actor, content: Mapping[str, Any]) -> str:
    if content["behalf_of"] and content["behalf_of"] in _names_of(actor):
        return "This was asked for on your behalf. Another person must decide."
    return ""


def _names_of(actor: Actor) -> tuple[str, ...]:
    """As what an account can be named: by what was said, and by its own id, as it was kept once."""
    users = get_user_model().objects.filter(pk=actor.identifier)
    username = users.values_list("username", flat=True).first() if actor.kind == "user" else None
    return (actor.identifier, *([rules.person_said(username)] if username else []))


def _execute(actor: Actor, request_id: UUID, content: Mapping[str, Any]) -> dict[str, Any]:
    """The action may be carried out from now on. Nothing runs in the approval's transaction: a worker claims it."""
    action = Action.objects.select_for_update(of=("self",)).get(pk=UUID(str(content["action"])))
    if problem := binding_problem(action, content):
        raise Conflict(f"{problem} Reject this; it can be proposed again.")
    release(action, {"request_id": request_id})
    return {"action": str(action.pk), "action_digest": action.digest}


def release(action: Action, where: Mapping[str, Any], *, by_who_asked: bool = False) -> None:
    """From ``waiting`` to ``approved``: workers find it there (``llmops.tools.lane``), at once unless whoever asked carries it out."""
    now = database_now()
    due = now + BY_WHO_ASKED if by_who_asked else now
    change: dict[str, Any] = {
        "state": Action.APPROVED,
        "approved_at": now,
        "due_at": due if action.version.definition["execution"] != SERVICE else None,
        "updated_at": now,
    }
    if not compare_and_set(action, expect={"state": Action.WAITING, **where}, change=change):
        raise Conflict("This action does not wait any more. Reload to see what became of it.")


def tell_its_run(action: Action) -> None:
    """Whoever waits for what comes of it may go on. A schedule looks as well, so nothing hangs on this."""
    if action.run:
        import_string(settings.ACTION_ENDED)(action.run)


_ENDS = {
    Request.REJECTED: Action.REJECTED,
    Request.CANCELLED: Action.CANCELLED,
    Request.EXPIRED: Action.EXPIRED,
}


def _ended(content: Mapping[str, Any], state: str) -> None:
    action = Action.objects.get(pk=UUID(str(content["action"])))
    now = database_now()
    if compare_and_set(
        action,
        expect={"state": Action.WAITING},
        change={"state": _ENDS[state], "finished_at": now, "updated_at": now},
    ):
        tell_its_run(action)


def _revise(
    actor: Actor, content: Mapping[str, Any], arguments: Mapping[str, Any], reason: str
) -> Request | None:
    from llmops.tools.services.proposing import revise

    made = revise(
        actor,
        action=Action.objects.get(pk=UUID(str(content["action"]))),
        arguments=dict(arguments),
        reason=reason,
    )
    return made.request


KIND = Kind(
    name=ACTION,
    permission="action.approve",
    asks="action.propose",
    views="action.view",
    describe=_describe,
    execute=_execute,
    lifetime=timedelta(days=30),
    objects=_objects,
    ended=_ended,
    revise=_revise,
)
