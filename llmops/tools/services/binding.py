"""Whether what is about to be carried out is what was proposed, and what was approved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from llmops.access.selectors import powers_of_actor, why_not_in_force
from llmops.core.actors import Actor, ActorKind
from llmops.core.digests import digest, equal
from llmops.tools.models import Action
from llmops.tools.rules import action_digest


def requester_of(action: Action) -> dict[str, str]:
    return {
        "kind": action.requested_by_kind,
        "id": action.requested_by_id,
        "behalf_of": action.behalf_of_id,
    }


def digest_of(action: Action) -> str:
    """The digest that follows from what is stored."""
    return action_digest(
        version=f"{action.version_id}:{action.version.digest}",
        arguments=action.given,
        run=action.run,
        requester=requester_of(action),
    )


def asker_problem(action: Action) -> str:
    """Why nothing is carried out any more for who asked for it; empty where it may be. Looked at when it is approved, and again right
    before it is claimed: whoever stops a key stops what it asked for."""
    kind = cast(ActorKind, action.requested_by_kind)
    asker = Actor(kind, action.requested_by_id, action.requested_by_name)
    if why := why_not_in_force(asker):
        return why
    if not powers_of_actor(asker).allow("action.propose", action.project_id):
        return f"{asker.name}, who asked for this, may not propose actions in this project any more."
    return ""


def binding_problem(action: Action, content: Mapping[str, Any]) -> str:
    """Why the action is not what ``content``, which was approved, tells of; empty where it is."""
    same = (
        equal(digest_of(action), action.digest)
        and equal(str(content["action_digest"]), action.digest)
        and str(content["action"]) == str(action.pk)
        and equal(str(content["arguments"]), action.arguments)
    )
    return "" if same else "What is stored is not what was shown: something of it was changed."


def approval_problem(action: Action) -> str:
    """Why the action may not be carried out as it stands; empty where it may. Looked at right before it is claimed."""
    if not equal(digest_of(action), action.digest):
        return "What is stored is not what was proposed: something of it was changed."
    request = action.request
    if request is None:
        return ""
    if problem := binding_problem(action, request.content):
        return problem
    if not equal(digest(request.content), request.digest):
        return "The request is not what was approved: something of it was changed."
    given = request.decisions.filter(approves=True, digest=request.digest).count()
    if request.state != request.EXECUTED or given < request.required:
        return "It was not approved."
    return ""
