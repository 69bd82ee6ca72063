"""What work in progress would say: rendered, checked, counted and priced, without keeping anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmops.core.errors import ConsoleError, InvalidRequest
from llmops.prompts import content as contents
from llmops.prompts.rendering import Compiled, Rendered
from llmops.prompts.selectors import Cost, costs_of

#: Longer renderings are shown up to here; counted is all of it.
MOST_SHOWN = 100_000
_COUNTED = 200_000


@dataclass(frozen=True)
class Preview:
    """``problems`` are ``(param, message)``: what keeps it from being a version, or these values from being rendered."""

    system: str
    user: str
    digest: str
    tokens: int | None
    ceiling: int | None
    problems: list[tuple[str, str]]
    inferred: list[str]
    costs: list[Cost]


def preview(content: Any, variables: Mapping[str, Any], *, priced: bool = True) -> Preview:
    """Never raises for what is wrong with the content or the values: that is what it tells."""
    problems: list[tuple[str, str]] = []
    kept: dict[str, Any] | None = None
    try:
        kept = contents.checked(content)
    except ConsoleError as refused:
        problems.append((refused.param or "", refused.message))
    shown, names = kept, []
    try:
        loose = contents.drafted(content)
        names = [one["name"] for one in contents.inferred(loose)]
        # What is wrong in one place need not keep the rest from being seen.
        shown = kept or {
            **loose,
            "variables": contents.checked_variables(loose["variables"] or contents.inferred(loose)),
        }
    except ConsoleError:
        shown = kept
    rendered, costs, tokens = _render(shown, variables, problems) if shown is not None else None, [], None
    if rendered is not None and shown is not None:
        if len(rendered.system) + len(rendered.user) <= _COUNTED:
            tokens = contents.tokens_of(rendered, shown["output_schema"], contents.ENCODINGS["o200k_base"])
        ceiling = shown["token_ceiling"]
        if isinstance(ceiling, int) and tokens is not None and tokens > ceiling:
            problems.append(
                ("token_ceiling", f"These values take {tokens:,} tokens, more than the {ceiling:,} allowed.")
            )
        if priced and isinstance(shown["parameters"], dict):
            costs = costs_of(rendered, shown) if kept is not None else []
    return Preview(
        system=rendered.system[:MOST_SHOWN] if rendered else "",
        user=rendered.user[:MOST_SHOWN] if rendered else "",
        digest=rendered.digest if rendered else "",
        tokens=tokens,
        ceiling=shown["token_ceiling"] if shown else None,
        problems=problems,
        inferred=names,
        costs=costs,
    )


def _render(
    content: Mapping[str, Any], variables: Mapping[str, Any], problems: list[tuple[str, str]]
) -> Rendered | None:
    try:
        return Compiled(content, content["variables"]).render(variables)
    except InvalidRequest as refused:
        told = (refused.param or "", refused.message)
        if told not in problems:
            problems.append(told)
        return None
