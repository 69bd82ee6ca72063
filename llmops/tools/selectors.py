"""Reading tools and actions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import F, OuterRef, Subquery, Window
from django.db.models.functions import Coalesce, RowNumber
from django.utils import timezone

from llmops.approvals.models import Decision
from llmops.base.clock import database_now
from llmops.core.actors import Actor
from llmops.tools import rules
from llmops.tools.executors import executor_named
from llmops.tools.models import Action, Tool


def definition_of(tool: Tool) -> rules.Definition | None:
    """What the current version says."""
    return rules.read_definition(tool.current.definition) if tool.current else None


def lacks_secret(tool: Tool) -> bool:
    """Whether what carries it out signs, and there is nothing to sign with."""
    definition = tool.current.definition if tool.current else {}
    return (
        bool(definition.get("executor")) and not tool.sealed and executor_named(definition["executor"]).signs
    )


def examples_of(tool: Tool) -> dict[str, Any]:
    """Arguments to begin with: of each member the first example that the schema gives."""
    properties = tool.current.definition["parameters"].get("properties") if tool.current else None
    found: dict[str, Any] = {}
    for name, one in properties.items() if isinstance(properties, dict) else ():
        examples = one.get("examples") if isinstance(one, dict) else None
        if isinstance(examples, list) and examples:
            found[name] = examples[0]
    return found


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


def something_due() -> bool:
    """Whether there is an action that a worker may have to begin with.

    Asked ten times a second by every worker, as a rule in vain: so it is written out, which takes a tenth of the time that putting the
    question together does, and on PostgreSQL asks for the time in the same breath.
    """
    now, known = ("clock_timestamp()", []) if connection.vendor == "postgresql" else ("%s", [timezone.now()])
    given = [Action.APPROVED, *map(connection.ops.adapt_datetimefield_value, known)]
    with connection.cursor() as cursor:
        cursor.execute(f"{_DUE} <= {now} LIMIT 1", given)
        return cursor.fetchone() is not None


#: Names of the model, nothing that anybody sent.
_DUE = f"SELECT 1 FROM {Action._meta.db_table} WHERE state = %s AND {Action._meta.get_field('due_at').column}"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Due:
    """An action that a worker is to begin with. ``who`` set it free: the last who agreed to it, or who asked for it."""

    action: UUID
    tool: UUID
    who: str


def due(
    most: int,
    *,
    without: Collection[UUID] = (),
    but_of: Collection[str] = (),
    but: Collection[UUID] = (),
) -> list[Due]:
    """Actions that a worker is to begin with, in this order: each one's oldest first, so that nobody stands behind many of somebody
    else's. ``without`` these, and without those that somebody of ``but_of`` set free, and those of the tools ``but``.
    """
    agreed = Decision.objects.filter(request=OuterRef("request"), approves=True).order_by("-decided_at")
    rows = (
        Action.objects.filter(state=Action.APPROVED, due_at__lte=database_now(), tool__paused_at=None)
        .exclude(version__definition__execution=rules.SERVICE)
        .exclude(pk__in=without)
        .exclude(tool__in=but)
        .annotate(who=Coalesce(Subquery(agreed.values("decided_by_id")[:1]), F("requested_by_id")))
        .exclude(who__in=but_of)
        .annotate(turn=Window(RowNumber(), partition_by="who", order_by="approved_at"))
        .order_by("turn", "approved_at")
    )
    return [Due(*one) for one in rows.values_list("pk", "tool", "who")[:most]]
