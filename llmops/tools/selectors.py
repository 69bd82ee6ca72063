"""Reading tools and actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmops.core.actors import Actor
from llmops.tools import rules
from llmops.tools.models import Action, Tool


def definition_of(tool: Tool) -> rules.Definition | None:
    """What the current version says."""
    return rules.read_definition(tool.current.definition) if tool.current else None


def may_call(actor: Actor, definition: rules.Definition) -> bool:
    """Whether the definition lets ``actor`` call; people may, as far as they may propose."""
    return (
        actor.kind != "service_key"
        or not definition.callers
        or actor.name.rpartition(" (")[0] in definition.callers
    )


def trial(tool: Tool, arguments: Any) -> dict[str, Any]:
    """What would become of a call with these arguments: checked, classified and told in words. Nothing is kept or called.

    Raises ``InvalidRequest`` where the arguments do not follow the schema.
    """
    definition = definition_of(tool)
    assert definition is not None and tool.current is not None
    given = rules.checked_arguments(definition, arguments)
    found = rules.classify(definition, given)
    return {
        "version": tool.current.number,
        "says": rules.in_words(definition, tool.slug, given),
        "risk": found.risk,
        "because": found.words,
        "approvals": definition.needed(found.risk),
        "arguments": given,
    }


def changes_against_superseded(action: Action) -> list[tuple[str, str, str]]:
    """Arguments that differ from the action that this one replaces, as (path, before, after)."""
    if action.supersedes is None:
        return []
    return rules.argument_changes(action.supersedes.given, action.given)


def offered(tools: list[Tool]) -> list[Mapping[str, Any]]:
    """Tools as the OpenAI API describes functions to a model."""
    found: list[Mapping[str, Any]] = []
    for tool in tools:
        definition = definition_of(tool)
        if definition is not None:
            function = {
                "name": tool.slug,
                "description": definition.description,
                "parameters": definition.parameters,
            }
            found.append({"type": "function", "function": function})
    return found
