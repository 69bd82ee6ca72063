"""Acts that take a second person, for the tests of how they are approved."""

from __future__ import annotations

from typing import Any

from llmops.approvals.kinds import Kind
from llmops.core.actors import Actor
from llmops.core.errors import Conflict

DONE: list[dict[str, Any]] = []


def _execute(actor: Actor, request_id: Any, content: Any) -> dict[str, Any]:
    if content.get("fails"):
        raise Conflict("Not any more.")
    DONE.append({"by": actor.name, **content})
    return {"done": content["what"]}


THING = Kind(
    name="thing.switch",
    permission="budget.approve",
    describe=lambda content: [("What", content["what"])],
    execute=_execute,
)
TWO = Kind(
    name="thing.launch", permission="budget.approve", describe=THING.describe, execute=_execute, required=2
)
