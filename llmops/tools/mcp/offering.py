"""What MCP clients see of a project's tools, and of what became of a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.urls import reverse

from llmops.access.models import Project
from llmops.approvals.models import Request
from llmops.core.actors import Actor
from llmops.core.digests import canonical_json
from llmops.core.errors import NotFound
from llmops.tools import rules, wording
from llmops.tools.models import Action, Tool
from llmops.tools.selectors import may_call

WAIT = "wait_for_action"
PAGE = 100
#: Nothing more comes by itself.
OVER = frozenset(
    (Action.SUCCEEDED, Action.FAILED, Action.UNKNOWN, Action.REJECTED, Action.EXPIRED, Action.CANCELLED)
)
_DESTROYS = rules.RISKS.index(rules.DESTRUCTIVE)

INSTRUCTIONS = (
    "Tools of the project {project}. Some calls wait until people agree to them: the answer then is pending and names an "
    f"action. Do something else meanwhile, or ask {WAIT} with that action; asking for the same call again does not make it run "
    "twice. A call that was rejected is not to be tried again as it was."
)


def tools_for(actor: Actor, project: Project, after: str) -> tuple[list[dict[str, Any]], str]:
    """A page of the tools that ``actor`` may call, by name, and where the next begins (empty: nowhere).

    Left out is what is paused, put away, or carried out by the service that asks, which a client of this kind is not.
    """
    rows = Tool.objects.filter(
        project=project,
        archived_at=None,
        paused_at=None,
        current__definition__execution=rules.CONSOLE,
        slug__gt=after,
    ).exclude(slug=WAIT)
    page = list(rows.select_related("current").order_by("slug")[: PAGE + 1])
    told = [] if after else [waiting_tool()]
    for tool in page[:PAGE]:
        assert tool.current is not None
        definition = rules.read_definition(tool.current.definition)
        if may_call(actor, definition):
            told.append(_tool(tool, definition))
    return told, page[PAGE - 1].slug if len(page) > PAGE else ""


def check_offered(actor: Actor, project: Project, name: str) -> None:
    """Raises ``NotFound`` for what this client has no tool of. One that is paused is there, and says so when it is called."""
    tool = Tool.objects.select_related("current").filter(project=project, slug=name, archived_at=None).first()
    if tool is not None and tool.current is not None:
        definition = rules.read_definition(tool.current.definition)
        if definition.execution == rules.CONSOLE and may_call(actor, definition):
            return
    raise NotFound("There is no such tool for this client.", param="name")


def _tool(tool: Tool, definition: rules.Definition) -> dict[str, Any]:
    worst = max(
        rules.RISKS.index(risk) for risk in (definition.risk, *(rule.risk for rule in definition.rules))
    )
    needs = {
        risk: definition.needed(risk) for risk in rules.RISKS[rules.RISKS.index(definition.risk) : worst + 1]
    }
    description = definition.description
    if most := max(needs.values()):
        always = min(needs.values()) > 0
        description += (
            f"\n\n{'Every call waits' if always else 'Some calls wait'} until {wording.people(most)} "
            f"{'agrees' if most == 1 else 'agree'}."
        )
    return {
        "name": tool.slug,
        "description": description,
        "inputSchema": definition.parameters,
        "annotations": {
            "readOnlyHint": worst == 0,
            "destructiveHint": worst >= _DESTROYS,
            "idempotentHint": worst == 0,
            "openWorldHint": True,
        },
        "_meta": {
            "llmops/risk": definition.risk,
            "llmops/version": tool.current.number if tool.current else 0,
        },
    }


def waiting_tool() -> dict[str, Any]:
    return {
        "name": WAIT,
        "description": "What became of a call that was pending. Waits a while for its end; ask again as long as it is pending.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "action": {
                    "type": "string",
                    "format": "uuid",
                    "description": "As the pending answer named it.",
                },
                "seconds": {
                    "type": "number",
                    "minimum": 0,
                    "maximum": 50,
                    "description": "How long to wait at most.",
                },
            },
            "required": ["action"],
            "additionalProperties": False,
        },
        "annotations": {
            "readOnlyHint": True,
            "destructiveHint": False,
            "idempotentHint": True,
            "openWorldHint": False,
        },
    }


@dataclass(frozen=True, slots=True)
class Standing:
    """How a call stands: the action that was asked for, and the one that it became where a reviewer put another in its place."""

    asked: Action
    now: Action

    @property
    def over(self) -> bool:
        return self.now.state in OVER


def standing_of(action_id: Any) -> Standing:
    rows = Action.objects.select_related("tool", "version", "request", "superseded_by").prefetch_related(
        "request__decisions"
    )
    asked = found = rows.get(pk=action_id)
    while found.state == Action.SUPERSEDED and (later := getattr(found, "superseded_by", None)) is not None:
        found = rows.get(pk=later.pk)
    return Standing(asked, found)


def progress_said(standing: Standing) -> str:
    action, request = standing.now, standing.now.request
    if action.state == Action.WAITING and request is not None:
        return f"{_agreement(request)}; open until {request.expires_at:%Y-%m-%d %H:%M} UTC"
    return {Action.APPROVED: "Agreed to, about to begin", Action.CLAIMED: "Being carried out"}.get(
        action.state, action.get_state_display()
    )


def _agreement(request: Request) -> str:
    given = sum(one.approves for one in request.decisions.all())
    return (
        f"Waits for {wording.people(request.required - given)} to agree ({given} of {request.required} did)"
    )


def result_of(standing: Standing) -> dict[str, Any]:
    """The answer to the call as it stands: what came of it, why nothing did, or that it is pending and how to ask again."""
    action = standing.now
    told: dict[str, Any] = {
        "action": str(standing.asked.pk),
        "state": action.state,
        "says": action.says,
        "risk": action.risk,
        "address": _address(action),
    }
    if action.pk != standing.asked.pk:
        told |= {"replaced_by": str(action.pk), "arguments": action.given}
    if action.state == Action.SUCCEEDED:
        text = (
            canonical_json(action.result).decode() if action.result is not None else action.message or "Done."
        )
        if action.pk != standing.asked.pk:
            text = f"A reviewer changed the arguments to {canonical_json(action.given).decode()}. {text}"
        return _result(text, {**told, "result": action.result})
    if not standing.over:
        request = action.request
        told["pending"] = True
        if action.state == Action.WAITING and request is not None:
            given = sum(one.approves for one in request.decisions.all())
            told |= {
                "expires_at": request.expires_at.isoformat(),
                "approvals": {"given": given, "needed": request.required},
            }
        text = (
            f"Pending: {progress_said(standing)}. Nothing has to be done for it. To see what became of it call {WAIT} with "
            f'{{"action": "{standing.asked.pk}"}}.'
        )
        return _result(text, told)
    why = _why(action)
    return _result(why, {**told, "message": why}, is_error=True)


def _why(action: Action) -> str:
    if action.state == Action.REJECTED and action.request is not None:
        said = [one.reason for one in action.request.decisions.all() if not one.approves and one.reason]
        because = f": {said[0]}" if said else "."
        return f"A reviewer rejected this and nothing was done{because}"
    return {
        Action.EXPIRED: "Nobody agreed in time, and nothing was done.",
        Action.CANCELLED: "This was taken back, and nothing was done.",
        Action.UNKNOWN: "It may or may not have happened; a person looks into it. Do not ask for it again. ",
    }.get(action.state, "It failed: ") + (
        action.message if action.state in (Action.FAILED, Action.UNKNOWN) else ""
    )


def _address(action: Action) -> str:
    if action.request_id is None:
        return ""
    return settings.PUBLIC_URL + reverse("dashboards:inbox_item", args=[action.request_id])


def _result(text: str, told: dict[str, Any], *, is_error: bool = False) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "structuredContent": told, "isError": is_error}


def refused_result(message: str) -> dict[str, Any]:
    """A call that was not taken, in words that a model can act on."""
    return {"content": [{"type": "text", "text": message}], "isError": True}
