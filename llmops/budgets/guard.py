"""Whether somebody may make a budget of a scope: asked by admin and API, before the service is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmops.access.models import Project
from llmops.access.selectors import may, projects_for
from llmops.budgets.models import Budget
from llmops.budgets.services import no_such_scope, resolved_scope, scope_after
from llmops.core.errors import PermissionDenied

_SCOPE = ("scope_kind", "scope_value", "project_id")


def check_new(who: Any, values: Mapping[str, Any]) -> None:
    """Refuse a new budget in a project where ``who`` manages none. ``values`` are those of ``create_budget``."""
    scope = resolved_scope(values["scope_kind"], values.get("scope_value", ""), values.get("project_id"))
    _check(who, *scope)


def check_change(who: Any, budget: Budget, values: Mapping[str, Any]) -> None:
    """Refuse to move a budget to where ``who`` manages none. ``values`` are those of ``update_budget``."""
    given = {name: values[name] for name in _SCOPE if name in values}
    if given:
        _check(who, *scope_after(budget, **given))


def _check(who: Any, kind: str, value: str, owner: Project | None) -> None:
    if may(who, "budget.manage", owner):
        return
    if owner is None:
        raise PermissionDenied(
            "You may not set budgets for the whole organisation. Name a project that you manage.",
            param="project",
        )
    if not projects_for(who, "project.view").filter(pk=owner.pk).exists():
        # To whom a project is invisible it is as if it did not exist.
        raise no_such_scope(kind, value)
    raise PermissionDenied(f"You may not set budgets in the project {owner.slug}.", param="scope_value")
