"""Tools and actions to test with."""

from __future__ import annotations

from typing import Any

from llmops.access.models import Project
from llmops.approvals import services as approvals
from llmops.base.requests import user_actor
from llmops.core.actors import Actor
from llmops.tools import services
from llmops.tools.models import Action, Tool
from llmops.tools.selectors import lacks_secret
from tests.cast import COMMAND, issue

REFUND: dict[str, Any] = {
    "description": "Gives money back to a customer.",
    "says": "Refund {amount} USD to {customer}",
    "parameters": {
        "type": "object",
        "properties": {
            "amount": {"type": "number", "exclusiveMinimum": 0},
            "customer": {"type": "string", "maxLength": 100},
            "environment": {"type": "string"},
        },
        "required": ["amount", "customer"],
        "additionalProperties": False,
    },
    "risk": "write",
    "rules": [
        {"when": "amount > 100", "risk": "destructive"},
        {"when": "amount > 1000", "risk": "irreversible"},
    ],
    "executor": "python",
    "settings": {"function": "count"},
    "concurrency": 50,
}
FUNCTIONS = {
    "count": "tests.tools.making.count",
    "wait": "tests.tools.making.wait",
    "break": "tests.tools.making.broken",
}
#: What was carried out, in this process.
DONE: list[dict[str, Any]] = []


def count(arguments: Any, job: Any) -> dict[str, Any]:
    DONE.append({"key": job.key, **arguments})
    return {"refunded": arguments["amount"]}


def wait(arguments: Any, job: Any) -> None:
    import time

    time.sleep(3)


def broken(arguments: Any, job: Any) -> None:
    DONE.append(dict(arguments))
    raise RuntimeError("half way")


def a_tool(project: Project, slug: str = "refund", *, signed: bool = True, **changed: Any) -> Tool:
    made = services.create_tool(COMMAND, project=project, slug=slug, definition={**REFUND, **changed})
    if signed and lacks_secret(made):
        services.rotate_secret(COMMAND, tool=made)
        made.refresh_from_db()
    return made


def a_service(project: Project, *scopes: str, name: str = "agent") -> Actor:
    key = issue(project, *(scopes or ("actions",)), name=name).key
    return Actor(kind="service_key", identifier=str(key.pk), name=f"{key.name} ({key.prefix})")


def proposed(actor: Actor, project: Project, amount: Any = 500, **known: Any) -> Action:
    tool = known.pop("tool", "refund")
    arguments = known.pop("arguments", {"amount": amount, "customer": "Ada"})
    return services.propose(actor, project=project, tool=tool, arguments=arguments, **known)


def decide(who: Any, action: Action, *, approves: bool = True, **changed: Any) -> Any:
    assert action.request is not None
    given = {
        "request_id": action.request.pk,
        "approves": approves,
        "seen": action.request.digest,
        "reason": "so",
    }
    return approvals.decide(who if isinstance(who, Actor) else user_actor(who), **{**given, **changed})


def state_of(action: Action) -> str:
    return Action.objects.values_list("state", flat=True).get(pk=action.pk)
